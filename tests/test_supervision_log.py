"""The log tells what is supervised: one line for each thing that happens to an agent, ids and causes as fields."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors import messages as m
from sidecar.http.logs import JsonLines
from sidecar.state.models import AgentState
from sidecar.supervision.fleet import Trigger
from tests.fleet import SLEEPS, DoomedSidecar, Fleet, does, runs, wait_until

CRASHES = "import sys; sys.exit('broken \\x1b]0;title\\x07 \\u202e')"
QUICK = {"backoff_initial_seconds": 0.01, "max_restarts": 1}


class Said:
    """Lines about an agent, as a program reads them."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, agent_id: str) -> list[dict[str, Any]]:
        lines = [json.loads(JsonLines().format(record)) for record in self._caplog.records]
        return [line for line in lines if line.get("agent_id") == agent_id]

    def what(self, agent_id: str) -> list[tuple[str, str]]:
        """Level and the words before the fields."""
        return [(line["level"], line["message"].partition(" agent_id=")[0]) for line in self.of(agent_id)]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Said]:
    with caplog.at_level(logging.INFO, logger="sidecar"):
        yield Said(caplog)


def test_a_crash_is_a_warning_with_its_last_line_and_giving_up_an_error(tmp_path: Path, said: Said) -> None:
    with Fleet(tmp_path, crashes=runs(CRASHES, **QUICK)) as fleet:
        agent = fleet.spawn_id("crashes")
        fleet.wait_for_state(agent, AgentState.FAILED)
        assert [line for line in said.what(agent) if line[1] != "agent spawned"] == [
            ("info", "agent started"),
            ("warning", "agent exited"),
            ("info", "agent restarting"),
            ("info", "agent started"),
            ("warning", "agent exited"),
            ("error", "agent failed"),
        ]
        exited, restarting = said.of(agent)[-5:-3]
        assert (exited["cause"], exited["exit_code"], exited["signal"], exited["incarnation"]) == ("exit", 1, None, 1)
        assert exited["last_line"].startswith("broken ")
        assert not {"\x1b", "\x07", "\u202e"} & set(exited["last_line"])
        assert exited["ran_for_s"] > 0
        assert restarting["delay_ms"] > 0
        assert said.of(agent)[-1]["reason"].startswith("the limit of restarts")


def test_a_wanted_end_is_information(tmp_path: Path, said: Said) -> None:
    with Fleet(tmp_path, options={"max_concurrent": 1}, sleeps=does(*SLEEPS), ends=does("true")) as fleet:
        stopped, completed = fleet.spawn_id("sleeps"), fleet.spawn_id("ends")
        fleet.stop(stopped)
        fleet.wait_for_state(completed, AgentState.COMPLETED)
        wait_until(lambda: ("info", "agent completed") in said.what(completed))
        assert ("info", "agent queued") in said.what(completed)
        assert "a slot" in next(line for line in said.of(completed) if "waiting_for" in line)["waiting_for"]
        for agent, last in ((stopped, "agent stopped"), (completed, "agent completed")):
            assert {level for level, _ in said.what(agent)} == {"info"}
            assert said.what(agent)[-2:] == [("info", "agent exited"), ("info", last)]


def test_a_limit_that_was_broken_is_a_warning(tmp_path: Path, said: Said) -> None:
    with Fleet(tmp_path, sleeps=does(*SLEEPS, run_timeout_seconds=0.05, restart="never")) as fleet:
        agent = fleet.spawn_id("sleeps")
        fleet.wait_for_state(agent, AgentState.FAILED)
        (exited,) = (line for line in said.of(agent) if line["message"].startswith("agent exited"))
        assert (exited["level"], exited["cause"]) == ("warning", "timeout")


def test_a_trigger_that_fires_and_an_agent_that_is_adopted_are_told(tmp_path: Path, said: Said) -> None:
    trigger = Trigger(on="agent_stopped", spawn="ends")
    profiles = {"sleeps": does(*SLEEPS), "ends": does("true")}
    first = DoomedSidecar(tmp_path, ("sleeps",), **profiles)
    first.kill()
    with Fleet(tmp_path, triggers=(trigger,), **profiles) as fleet:
        wait_until(lambda: ("info", "agent adopted") in said.what(first.agents[0]))
        fleet.stop(first.agents[0])
        agents = wait_until(lambda: found if len(found := fleet.ask(m.ListAgents(project_id=None))) > 1 else None)
        messages = [line["message"] for line in said.of(agents[0].agent_id)]
        assert any(message.startswith("trigger fired on=agent_stopped event_id=evt-") for message in messages)
