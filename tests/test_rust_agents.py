"""Agents in Rust: the users' guide's own where SIDECAR_AGENT_GUIDE names it, else one like it, and our example.

They are built from Debian's crates; where those, or cargo, are not installed, these tests are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.rust_crates import build, crate_of, skip_without_rust

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "raw" / "agent-rust"
GUIDE = os.environ.get("SIDECAR_AGENT_GUIDE")

# The first of these tests compiles every crate.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs `guide-agent` and `agent-rust`."""
    skip_without_rust()
    place = tmp_path_factory.mktemp("rust")
    crate_of("guide-agent", guide_agent(), place)
    shutil.copytree(EXAMPLE, place / EXAMPLE.name)
    return build(place)


def guide_agent() -> str:
    if GUIDE is None:
        return (HERE / "guide_agent.rs").read_text(encoding="utf-8")
    blocks = re.findall(r"^```rust\n(.*?)^```", Path(GUIDE).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "fn main" in block]
    return str(code)


def profile(program: Path) -> str:
    return f'[profiles.rust-specialist]\ncommand = ["{program}"]\nrestart = "never"\n'


def ended(sidecar: Any, agent_id: str) -> str:
    """What it printed, once it has ended well."""
    exited = sidecar.wait_for("agent_exited", f"agent_id:{agent_id}", timeout_s=60)
    logs = {
        stream: sidecar.operator.get(f"/api/agents/{agent_id}/logs", params={"stream": stream}).json()["data"]
        for stream in ("stdout", "stderr")
    }
    assert exited["data"]["exit_code"] == 0, logs["stderr"]
    return str(logs["stdout"])


def test_the_guides_agent_runs_under_the_sidecar_to_its_end(start_sidecar: Any, programs: Path) -> None:
    sidecar = start_sidecar(profiles=profile(programs / "guide-agent"))
    agent_id = sidecar.spawn("rust-specialist", "issue-7")["agent_id"]
    ended(sidecar, agent_id)
    (result,) = sidecar.operator.get("/api/results", params={"agent_id": agent_id}).json()["results"]
    assert (result["status"], result["issue_id"]) == ("success", "issue-7")
    event = sidecar.wait_for("implementation_complete", "issue_id:issue-7,status:success")
    assert (event["publisher"], event["topic"]) == (agent_id, "implementation")


def test_the_example_hands_in_a_result_says_so_and_waits_for_a_word(start_sidecar: Any, programs: Path) -> None:
    sidecar = start_sidecar(profiles=profile(programs / "agent-rust"))
    agent_id = sidecar.spawn("rust-specialist")["agent_id"]
    counted = sidecar.wait_for("files_counted", f"publisher:{agent_id}")
    result = sidecar.operator.get(f"/api/results/{counted['data']['result_id']}").json()
    assert (result["status"], result["result"]["metrics"]["files"]) == ("success", 1)  # a Rust specialist's: README.md
    sidecar.operator.post("/api/events/go_on", json={"data": {"issue_id": "issue-1"}})
    said = ended(sidecar, agent_id)
    assert "1 files on main" in said
    assert "operator said go on" in said


def test_the_example_says_what_is_missing(programs: Path) -> None:
    done = subprocess.run([programs / "agent-rust"], env={}, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "SIDECAR_URL is not set" in done.stderr
