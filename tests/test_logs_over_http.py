"""Who may read an agent's log, and what nobody reads in it: tokens and secrets, however they fell into pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PYTHON, StartSidecar
from tests.fleet import wait_until

KEY = "ghp_" + "Ab3dEf6hIj9kLmN2pQr5sTu8vWx1yZ4cB7eG"
PRINTS = """
import os, sys, time
from pathlib import Path
token, key, folder = os.environ["JWT_TOKEN"], sys.argv[1], Path(sys.argv[2])
print("my token is", token, flush=True)
print("and my key", key, file=sys.stderr, flush=True)
sys.stdout.write("in two pieces: " + key[:20]); sys.stdout.flush()
(folder / "written").touch()
while not (folder / "go-on").exists():
    time.sleep(0.01)
print(key[20:], "and then", flush=True)
print("last words " + token[:50], end="", flush=True)
"""


@pytest.fixture
def loud(start_sidecar: StartSidecar, tmp_path: Path) -> tuple[Any, dict[str, Any], Path]:
    script = tmp_path / "prints.py"
    script.write_text(PRINTS)
    command = f'command = ["{PYTHON}", "{script}", "{KEY}", "{tmp_path}"]'
    sidecar = start_sidecar(f'[profiles.loud-specialist]\n{command}\nrestart = "never"\n')
    return sidecar, sidecar.spawn("loud-specialist"), tmp_path


def hides(spawned: dict[str, Any], text: str) -> bool:
    return not any(secret in text for secret in (spawned["jwt_token"], KEY, KEY[20:], spawned["jwt_token"][-30:]))


def test_a_log_is_for_its_agent_and_for_who_may_spawn(loud: tuple[Any, dict[str, Any], Path]) -> None:
    sidecar, spawned, _ = loud
    path = f"/api/agents/{spawned['agent_id']}/logs"
    for reader in (sidecar.client(spawned["jwt_token"]), sidecar.agent("chief-architect", "boss"), sidecar.operator):
        assert reader.get(path).status_code == 200
    for reader in (sidecar.agent("poet", "other"), sidecar.agent("python-specialist", "worker")):
        for params in ({}, {"offset": 0}, {"offset": 0, "timeout": 5}, {"stream": "stderr"}):
            answer = reader.get(path, params=params)
            assert (answer.status_code, answer.json()["code"]) == (403, "AUTH_003")
    elsewhere = sidecar.agent("chief-architect", "boss", project_id="other")
    assert elsewhere.get(path).status_code == 404
    namesake = sidecar.agent("poet", spawned["agent_id"], project_id="other")
    assert namesake.get(path).status_code == 404


def test_tokens_and_secrets_are_taken_out_of_logs(loud: tuple[Any, dict[str, Any], Path]) -> None:
    sidecar, spawned, folder = loud
    path = f"/api/agents/{spawned['agent_id']}/logs"
    wait_until(lambda: (folder / "written").exists())
    for stream, words in (("stdout", "my token is"), ("stderr", "and my key")):
        for params in ({"tail": 50}, {"offset": 0}, {"offset": 0, "timeout": 5}):
            said = sidecar.operator.get(path, params={"stream": stream, **params}).json()["data"]
            assert words in said
            assert hides(spawned, said)


@pytest.mark.parametrize("timeout", [0, 5])
def test_a_secret_that_comes_in_two_pieces_is_taken_out_too(
    loud: tuple[Any, dict[str, Any], Path], timeout: int
) -> None:
    sidecar, spawned, folder = loud
    path = f"/api/agents/{spawned['agent_id']}/logs"
    wait_until(lambda: (folder / "written").exists())
    seen, offset, ended = "", 0, False
    while not ended:
        chunk = sidecar.operator.get(path, params={"offset": offset, "timeout": timeout}).json()
        assert chunk["offset"] == offset
        seen, offset, ended = seen + chunk["data"], chunk["next_offset"], chunk["ended"]
        if "my token" in seen:
            (folder / "go-on").touch()
    assert hides(spawned, seen)
    assert "in two pieces" in seen
    assert "and then" in seen
    assert "last words" in seen


def test_every_offset_of_a_log_is_a_safe_place_to_begin(loud: tuple[Any, dict[str, Any], Path]) -> None:
    sidecar, spawned, folder = loud
    (folder / "go-on").touch()
    sidecar.wait_for("agent_exited", f"agent_id:{spawned['agent_id']}")
    path = f"/api/agents/{spawned['agent_id']}/logs"
    size = sidecar.operator.get(path).json()["next_offset"]
    for offset in range(0, size, 7):
        said = sidecar.operator.get(path, params={"offset": offset}).json()["data"]
        assert hides(spawned, said), offset
