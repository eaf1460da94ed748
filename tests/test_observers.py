"""Observers: each learns what it wants to, in order, and of what agents did even if the Spawner died in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.actors.agents.announcer import Announcer, DescribedAgent, LifecycleEvent
from sidecar.actors.messages import CountEvents
from sidecar.actors.runtime.asking import Fact, Later
from sidecar.actors.runtime.timers import Timers
from sidecar.http.observe.observer import Observer, all_of
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.models import AgentId, AgentSpec

SPEC = AgentSpec(agent_id=AgentId("a-1"), agent_type="test-engineer", issue_id="i", project_id="p")
EXITED = LifecycleEvent("agent_exited", "p", DescribedAgent(agent_id="a-1", cause="exit", exit_code=3))


class Restarts(Observer):
    """Notes the restarts of actors, under a name of its own."""

    def __init__(self, name: str, told: list[tuple[str, str]]) -> None:
        self._name = name
        self._told = told

    def restarted(self, actor: str, reason: str) -> None:
        assert reason
        self._told.append((self._name, actor))


class Narrows(Observer):
    """Has another project asked for."""

    def __init__(self, project_id: str) -> None:
        self._project_id = project_id

    def asked(self, request: Any, later: Later[Any]) -> Any:
        assert not later.done()
        return CountEvents(project_id=(request.project_id or "") + self._project_id)


class TestAllOfThem:
    def test_are_told_in_order_of_what_they_want_to_know(self) -> None:
        told: list[tuple[str, str]] = []
        everyone = all_of(Restarts("first", told), Narrows("x"), Restarts("second", told))
        everyone.restarted("spawner", "it was asked for")
        assert told == [("first", "spawner"), ("second", "spawner")]

    def test_need_not_want_to_know_anything(self) -> None:
        everyone = all_of(Restarts("only", []))
        everyone.called_tool("publish_event", "ok")
        request = CountEvents(project_id=None)
        assert everyone.asked(request, Later()) is request

    def test_see_of_a_request_what_those_before_them_made_of_it(self) -> None:
        everyone = all_of(Narrows("a"), Narrows("b"))
        assert everyone.asked(CountEvents(project_id=None), Later()) == CountEvents(project_id="ab")


class Bus:
    """Keeps what it is asked, and answers when told to."""

    name = "event_bus"

    def __init__(self) -> None:
        self.asked: list[Later[Any]] = []

    def tell(self, fact: Fact) -> None:
        pass  # nobody's state depends on it here

    def request(self, request: Any) -> Later[Any]:
        assert len(request.events) == 1
        self.asked.append(Later())
        return self.asked[-1]


@pytest.mark.parametrize("dies", [False, True], ids=["the same Spawner", "the next Spawner"])
def test_an_event_of_an_agent_is_told_once_the_bus_has_it(tmp_path: Path, dies: bool) -> None:
    told: list[LifecycleEvent] = []
    bus, timers = Bus(), Timers()

    def opened() -> tuple[AgentRegistry, Announcer]:
        registry = AgentRegistry(tmp_path / "registry")
        return registry, Announcer(registry, bus, timers, bus, told.extend)

    registry, announcer = opened()
    announcer.announce_about(SPEC, "agent_exited", topic="system", agent_id="a-1", cause="exit", exit_code=3)
    registry.commit()
    if dies:
        registry.close()
        registry, announcer = opened()
    announcer.send()
    assert told == []
    bus.asked[0].answer(())
    assert told == [EXITED]
    registry.close()
