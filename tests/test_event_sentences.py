"""Events are told in sentences: a crash and a success can be told apart, everywhere in the same words."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http import cli
from sidecar.http.cli.main import main
from sidecar.http.cli.sentences import sentence_of

SCRIPT = Path(cli.__path__[0]).parent / "dashboard" / "sentences.js"


def event(event_type: str, topic: str = "system", publisher: str = "sidecar", **data: Any) -> dict[str, Any]:
    return {"event_type": event_type, "topic": topic, "publisher": publisher, "data": data}


def befell(event_type: str, **data: Any) -> dict[str, Any]:
    about = {"agent_id": "ada", "agent_type": "poet", "issue_id": "i", "incarnation": 1, "process_id": 7, "restarts": 0}
    return event(event_type, **about | data)


TOLD = [
    (befell("agent_spawned"), ("ada", "is spawned", False)),
    (befell("agent_started"), ("ada", "runs as process 7", False)),
    (befell("agent_started", incarnation=2), ("ada", "runs again as process 7, incarnation 2", False)),
    (
        befell("agent_exited", cause="exit", exit_code=0, signal=None, uptime_seconds=1.474),
        ("ada", "completed after 1.47 s", False),
    ),
    (befell("agent_exited", cause="exit", exit_code=3), ("ada", "crashed: exit code 3", True)),
    (befell("agent_exited", cause="signal", exit_code=None, signal=9), ("ada", "crashed: killed by signal 9", True)),
    (
        befell("agent_exited", cause="oom", signal=9),
        ("ada", "crashed: killed by the kernel, which ran out of memory", True),
    ),
    (befell("agent_exited", cause="heartbeat", signal=15), ("ada", "crashed: no heartbeat came in time", True)),
    (befell("agent_exited", cause="killed", signal=15, uptime_seconds=2), ("ada", "was ended after 2.00 s", False)),
    (befell("agent_exited", cause=None), ("ada", "completed", False)),
    (befell("agent_restarting", delay_ms=439), ("ada", "is restarted in 439 ms", False)),
    (befell("agent_failed", reason="6 deaths within 60 s"), ("ada", "gave up: 6 deaths within 60 s", True)),
    (befell("agent_failed", cause="start_failed"), ("ada", "gave up: it could not be started", True)),
    (befell("agent_stopped", cause="killed"), ("ada", "is stopped", False)),
    (befell("agent_adopted"), ("ada", "goes on as process 7, taken over", False)),
    (befell("agent_lost"), ("ada", "ended while no sidecar ran", True)),
    (befell("agent_queued", waiting_for="place 2 of 3"), ("ada", "waits for place 2 of 3", False)),
    (befell("agent_queued", waiting_for={"slot": 2}), ("ada", 'waits for {"slot":2}', False)),
    (befell("agent_queued", waiting_for={"what": "slot", "text": "place 2"}), ("ada", "waits for place 2", False)),
    (befell("agent_blocked", why="poet has failed"), ("ada", "is blocked: poet has failed", True)),
    (
        event("chain_cut", "error", agent_type="poet", path=["a", "b"]),
        ("sidecar", "poet is not spawned: a → b caused one another", True),
    ),
    (befell("agent_queued"), ("ada", "waits for its turn", False)),
    (befell("agent_paused_somehow"), ("ada", "paused somehow", False)),
    (event("architecture_defined", "architecture", "bob", decision="SQLite"), ("bob", "SQLite", False)),
    (event("implementation_complete", "implementation", "bob", files=["a", "b"]), ("bob", "wrote a, b", False)),
    (event("implementation_complete", "implementation", "bob", agent_id="bob", n=1), ("bob", "n=1", False)),
    (
        event("testing_complete", "testing", "bob", tests=6, status="success", coverage=99),
        ("bob", "6 tests: success, 99 % of the lines executed", False),
    ),
    (
        event("security_audit_complete", "security", "b", files_scanned=3, findings=0),
        ("b", "3 files scanned, 0 findings", False),
    ),
    (
        event("documentation_complete", "documentation", "b", commit="4051"),
        ("b", "documented and committed as 4051", False),
    ),
    (
        event("result_stored", "coordination", "b", result_id="res-1", status="failed"),
        ("b", "result res-1, failed", False),
    ),
    (event("error_encountered", "error", "b", error="no disk"), ("b", "no disk", True)),
    (event("tick", "coordination", "b", text="x", n=[1, None], agent_id="b"), ("b", "text=x  n=[1,null]", False)),
    (event("toString", "coordination", "b"), ("b", "", False)),
    (event("agent_failed", "error", "mallory", reason="forged"), ("mallory", "reason=forged", True)),
]


@pytest.mark.parametrize(("told", "said"), TOLD)
def test_an_event_is_told_in_a_sentence(told: dict[str, Any], said: tuple[str, str, bool]) -> None:
    assert msgspec.structs.astuple(sentence_of(told)) == said


def test_the_dashboard_says_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    program = (
        f"import {{ sentenceOf }} from {json.dumps(SCRIPT.resolve().as_uri())};"
        "import { readFileSync } from 'node:fs';"
        "const events = JSON.parse(readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(events.map(sentenceOf)));"
    )
    argv = [node, "--experimental-default-type=module", "--input-type=module", "--eval", program]
    given_ = json.dumps([told for told, _ in TOLD])
    done = subprocess.run(argv, input=given_, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [(one["who"], one["what"], one["isBad"]) for one in json.loads(done.stdout)] == [said for _, said in TOLD]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5
)


@given(
    st.sampled_from([told for told, _ in TOLD]),
    st.dictionaries(
        st.sampled_from(
            [
                "incarnation",
                "cause",
                "exit_code",
                "signal",
                "uptime_seconds",
                "delay_ms",
                "files",
                "tests",
                "decision",
                "reason",
            ]
        ),
        json_values,
    ),
)
def test_whatever_an_agent_puts_into_an_event_is_told_somehow(told: dict[str, Any], more: dict[str, Any]) -> None:
    sentence = sentence_of({**told, "publisher": "mallory", "data": {**told["data"], **more}})
    assert sentence.subject == "mallory"


def test_a_crash_and_a_success_are_told_apart_in_every_list(sidecar: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token()}
    good, bad = sidecar.spawn("python-specialist")["agent_id"], sidecar.spawn("rust-specialist")["agent_id"]
    sidecar.wait_for("agent_exited", f"agent_id:{good}")
    sidecar.wait_for("agent_failed", f"agent_id:{bad}")
    for command in (
        ["events", "list", "--type", "agent_exited"],
        ["events", "subscribe", "agent_exited", "--since", "earliest"],
        ["top"],
    ):
        lines = CliRunner().invoke(main, command, env=env).stdout.splitlines()
        (ended,) = [line for line in lines if good in line and "agent_exited" in line]
        assert "completed after" in ended
        assert any("crashed: exit code 3" in line for line in lines if bad in line)
    red = CliRunner().invoke(main, ["events", "subscribe", "agent_failed", "--since", "earliest"], env=env, color=True)
    assert "\x1b[31mgave up: " in red.stdout
