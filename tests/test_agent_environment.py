"""What an agent is started with: the protocol's variables, its arguments as they are, nothing of the sidecar's."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors import messages as m
from sidecar.state.clock import utc_now
from sidecar.state.errors import InvalidRequest, TokenExpired
from sidecar.state.identity import AgentClass, Caller, Permission
from sidecar.state.models import AgentState
from sidecar.supervision.launch import fill, inherited
from sidecar.supervision.request_environment import MAX_TEXT_BYTES
from tests.fleet import SLEEPS, Fleet, does, runs, wait_until

TELLS = "import json, os, sys; print(json.dumps({'argv': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}))"
ARGUMENTS = ("{task}", "--on={agent_id}:{issue_id}", "{project_root}/x", "{unknown} {", "{context_url}")


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch to another user")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("SIDECAR_JWT_SECRET", "not for agents")
    monkeypatch.setenv("JWT_TOKEN", "an outer agent's")
    monkeypatch.setenv("HOME", "/home/of-the-sidecar")
    monkeypatch.setenv("SOME_API_KEY", "agents need it")
    tells = runs(TELLS)
    tells["command"] += ARGUMENTS
    (tmp_path / "sub").mkdir()
    with Fleet(
        tmp_path,
        tells=tells,
        elsewhere=runs(TELLS, cwd="{project_root}/sub", env={"EXTRA": "for {agent_type}", "LANG": "C"}),
        architect=does(*SLEEPS, agent_class=AgentClass.ARCHITECT),
        sleeps=does(*SLEEPS),
        nowhere=does("true", cwd="/no/such/folder"),
        stranger=does("true", user="no-such-user"),
        other=does("env", user="nobody", cwd="/", env={"SHELL": "/profile/sh"}),
        reopens=does("sh", "-c", "echo out >> /dev/stdout; echo err > /dev/stderr", user="nobody", cwd="/"),
    ) as fleet:
        yield fleet


def told(fleet: Fleet, agent_type: str, **more: Any) -> dict[str, Any]:
    agent = fleet.spawn_id(agent_type, **more)
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    return {"agent_id": agent, **msgspec.json.decode(fleet.log(agent))}


def test_an_agent_gets_the_variables_of_the_protocol(fleet: Fleet) -> None:
    seen = told(fleet, "tells", task="write it", environment={"TASK_MORE": "of it"})
    env, agent = seen["env"], seen["agent_id"]
    api = "http://127.0.0.1:1/api"
    expected = {
        "AGENT_ID": agent,
        "AGENT_TYPE": "tells",
        "ISSUE_ID": "issue-1",
        "PROJECT_ID": "p",
        "SIDECAR_URL": api,
        "CONTEXT_URL": f"{api}/context/issue-1/tells",
        "AGENT_TASK": "write it",
        "PROJECT_ROOT": str(fleet.directory),
        "TASK_MORE": "of it",
        "SOME_API_KEY": "agents need it",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert fleet.key.verify(env["JWT_TOKEN"], now=utc_now()).agent_id == agent
    assert seen["cwd"] == str(fleet.directory)


def test_an_agent_gets_nothing_of_the_sidecars_own(fleet: Fleet) -> None:
    env = told(fleet, "tells")["env"]
    assert {name for name in env if name.startswith("SIDECAR_")} == {"SIDECAR_URL", "SIDECAR_INSTANCE"}
    assert "not for agents" not in env.values()
    assert env["JWT_TOKEN"] != "an outer agent's"


def test_an_agent_gets_of_gits_variables_only_those_of_the_user() -> None:
    of_a_hook = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX",
                 "GIT_GLOB_PATHSPECS", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_AUTHOR_DATE", "GIT_EXEC_PATH",
                 "GIT_NAMESPACE", "GIT_QUARANTINE_PATH")  # fmt: skip
    of_the_user = ("GIT_AUTHOR_NAME", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_TERMINAL_PROMPT", "PATH")
    assert set(inherited(dict.fromkeys((*of_a_hook, *of_the_user), "x"))) == set(of_the_user)


def test_text_of_a_request_is_an_argument_and_nothing_else(fleet: Fleet) -> None:
    task = "{agent_id}; rm -rf / $(reboot) `x` 'y' \"z\" \n {task}"
    seen = told(fleet, "tells", task=task)
    api = "http://127.0.0.1:1/api"
    agent = seen["agent_id"]
    assert seen["argv"] == [
        task,
        f"--on={agent}:issue-1",
        f"{fleet.directory}/x",
        "{unknown} {",
        f"{api}/context/issue-1/tells",
    ]


@as_root
def test_an_agent_of_another_user_has_that_accounts_variables_where_nothing_else_is_said(fleet: Fleet) -> None:
    agent = fleet.spawn_id("other")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    seen = dict(line.split("=", 1) for line in fleet.log(agent).splitlines())
    home = pwd.getpwnam("nobody").pw_dir
    expected = {
        "HOME": home,
        "USER": "nobody",
        "LOGNAME": "nobody",
        "SHELL": "/profile/sh",
        "SOME_API_KEY": "agents need it",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert told(fleet, "tells")["env"]["HOME"] == "/home/of-the-sidecar"


@as_root
def test_an_agent_of_another_user_can_open_its_streams_anew(fleet: Fleet) -> None:
    agent = fleet.spawn_id("reopens")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert (fleet.log(agent), fleet.log(agent, "stderr")) == ("out\n", "err\n")
    for path in (fleet.directory / "logs").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_a_profile_sets_folder_and_variables(fleet: Fleet) -> None:
    seen = told(fleet, "elsewhere")
    assert seen["cwd"] == str(fleet.directory / "sub")
    assert (seen["env"]["EXTRA"], seen["env"]["LANG"]) == ("for elsewhere", "C")


@pytest.mark.parametrize("text", ["a\0b", "x" * (MAX_TEXT_BYTES + 1)])
def test_text_that_no_process_can_get_is_refused_before_anything_starts(fleet: Fleet, text: str) -> None:
    with pytest.raises(InvalidRequest, match="task"):
        fleet.spawn("sleeps", task=text)
    with pytest.raises(InvalidRequest, match=r"environment\.TASK_NOTE"):
        fleet.spawn("sleeps", environment={"TASK_NOTE": text})
    fleet.spawn("sleeps", task="y" * MAX_TEXT_BYTES)


@pytest.mark.parametrize(
    ("agent_type", "named"), [("nowhere", "started: folder folder cannot be entered"), ("stranger", "no-such-user")]
)
def test_what_is_missing_for_a_start_is_named(fleet: Fleet, agent_type: str, named: str) -> None:
    with pytest.raises(Exception, match=named):
        fleet.spawn(agent_type)


@given(st.text(), st.dictionaries(st.sampled_from(["task", "agent_id"]), st.text(), min_size=2))
def test_filling_puts_each_value_in_once_and_leaves_the_rest(text: str, values: dict[str, str]) -> None:
    values |= dict.fromkeys(("agent_type", "issue_id", "project_id", "project_root", "context_url"), "v")
    plain = text.replace("{", "").replace("}", "")
    assert fill(plain + "{task}" + plain, values) == plain + values["task"] + plain


# --- tokens


def caller(fleet: Fleet, text: str) -> Caller:
    return fleet.key.verify(text, now=utc_now())


def is_good(fleet: Fleet, holder: Caller, *, later_s: float = 0) -> bool:
    return not fleet.revocations.is_revoked(holder.token_id, now=utc_now() + timedelta(seconds=later_s))


def test_a_token_may_what_its_class_may(fleet: Fleet) -> None:
    spawned = fleet.spawn("architect")
    assert spawned.token is not None
    assert Permission.SPAWN_AGENTS in caller(fleet, spawned.token.text).permissions
    plain = fleet.spawn("sleeps")
    assert plain.token is not None
    assert Permission.SPAWN_AGENTS not in caller(fleet, plain.token.text).permissions


def test_a_token_is_revoked_with_the_end_of_its_process(fleet: Fleet) -> None:
    spawned = fleet.spawn("sleeps")
    assert spawned.token is not None
    first = caller(fleet, spawned.token.text)
    assert is_good(fleet, first)
    fleet.restart(spawned.status.agent_id)
    assert not is_good(fleet, first)
    second = fleet.token_of(spawned.status.agent_id)
    assert is_good(fleet, second)
    os.kill(fleet.status(spawned.status.agent_id).process_id or 0, signal.SIGKILL)
    wait_until(lambda: fleet.status(spawned.status.agent_id).incarnation == 3)
    assert not is_good(fleet, second)
    third = fleet.token_of(spawned.status.agent_id)
    fleet.stop(spawned.status.agent_id)
    assert not is_good(fleet, third)


def test_a_refreshed_token_is_revoked_by_the_next_sidecar_too(fleet: Fleet) -> None:
    spawned = fleet.spawn("sleeps")
    assert spawned.token is not None
    old = caller(fleet, spawned.token.text)
    new = caller(fleet, fleet.ask(m.RefreshToken(caller=old)).text)
    fleet.vanish()
    fleet.open()
    fleet.stop(spawned.status.agent_id)
    assert not is_good(fleet, new)


def test_a_refreshed_token_leaves_the_old_one_good_for_a_minute(fleet: Fleet) -> None:
    spawned = fleet.spawn("sleeps")
    assert spawned.token is not None
    old = caller(fleet, spawned.token.text)
    new = caller(fleet, fleet.ask(m.RefreshToken(caller=old)).text)
    assert (new.agent_id, new.permissions, new.issue_id) == (old.agent_id, old.permissions, old.issue_id)
    assert (is_good(fleet, old), is_good(fleet, old, later_s=61), is_good(fleet, new)) == (True, False, True)
    fleet.stop(spawned.status.agent_id)
    assert not is_good(fleet, new)
    assert not is_good(fleet, old)


def test_an_expired_token_is_refreshed_only_while_its_agent_runs(fleet: Fleet) -> None:
    spawned = fleet.spawn("sleeps")
    assert spawned.token is not None
    expired = msgspec.structs.replace(caller(fleet, spawned.token.text), expires_at=utc_now() - timedelta(seconds=100))
    assert fleet.ask(m.RefreshToken(caller=expired)).expires_at > utc_now()
    fleet.stop(spawned.status.agent_id)
    with pytest.raises(TokenExpired):
        fleet.ask(m.RefreshToken(caller=expired))


def test_no_token_is_in_the_registry(fleet: Fleet) -> None:
    spawned = fleet.spawn("sleeps")
    assert spawned.token is not None
    for path in (fleet.directory / "registry").rglob("*"):
        if path.is_file():
            assert spawned.token.text.encode() not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0


def test_what_an_agent_was_told_can_be_looked_up(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sleeps", task="think", context_requirements=("dependencies",))
    spec = fleet.ask(m.FindSpec(agent_id=agent))
    assert spec is not None
    assert (spec.task, spec.context_requirements) == ("think", ("dependencies",))
    assert fleet.ask(m.FindSpec(agent_id=m.AgentId("minted-by-hand"))) is None
    assert os.environ["SIDECAR_JWT_SECRET"] not in str(spec)
