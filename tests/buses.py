"""A real EventBus on a journal of its own, and what tests ask it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sidecar.actors.agent_facts import AgentSubscribed
from sidecar.actors.event_bus import EventBus, EventOptions
from sidecar.actors.messages import AwaitEvents, PublishEvent
from sidecar.actors.replies import EventBatch, PublishedEvent
from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import Later, R, Request, ask
from sidecar.actors.runtime.timers import Timers
from sidecar.state.models import AgentId

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
WITHIN_S = 10.0


class Bus:
    """A real EventBus in its thread, on a journal in `directory`."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.options = EventOptions(**options)
        self.open()

    def open(self) -> None:
        self.timers = Timers()
        self.timers.start()
        self.supervisor = ActorSupervisor(gave_up=lambda name, reason: None)
        self.handle: ActorHandle = self.supervisor.handle(
            "event_bus", lambda: EventBus(journal_dir=self.directory, options=self.options, timers=self.timers)
        )
        self.supervisor.start()

    def close(self) -> None:
        self.supervisor.stop()
        self.timers.stop()

    def reopen(self) -> None:
        self.close()
        self.open()

    def ask(self, request: Request[R]) -> R:
        return ask(self.handle, request, timeout_s=WITHIN_S)

    def publish(self, event_type: str = "done", **more: Any) -> PublishedEvent:
        return self.ask(publishing(event_type, **more))

    def wait(self, *event_types: str, **more: Any) -> Later[EventBatch]:
        return self.handle.request(awaiting(*event_types, **more))

    def take(self, *event_types: str, **more: Any) -> EventBatch:
        return got(self.wait(*event_types, **{"timeout_s": 0.0, **more}))

    def agent_runs(self, agent: str, incarnation: int, *, topics: frozenset[str] = frozenset()) -> None:
        self.handle.tell(
            AgentSubscribed(
                agent_id=AgentId(agent), project_id="p", topics=topics, since=LONG_AGO, incarnation=incarnation
            )
        )


def publishing(event_type: str = "done", *, project: str = "p", data: Any = None, **more: Any) -> PublishEvent:
    return PublishEvent(
        project_id=project,
        event_type=event_type,
        publisher="someone",
        publisher_type="python-specialist",
        data=msgspec.Raw(msgspec.json.encode(data or {})),
        **more,
    )


def awaiting(*event_types: str, agent: str = "a", project: str = "p", **more: Any) -> AwaitEvents:
    return AwaitEvents(
        project_id=project,
        agent_id=AgentId(agent),
        event_types=frozenset(event_types),
        **{"timeout_s": WITHIN_S, "agent_since": LONG_AGO, **more},
    )


def got(later: Later[EventBatch]) -> EventBatch:
    return later.result(timeout=WITHIN_S)


def ids(batch: EventBatch) -> list[str]:
    return [delivery.event.event_id for delivery in batch.deliveries]
