"""A ResultStore under its supervisor, with a bus to listen to; for the tests of results."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sidecar.actors.messages import FindResults, GetResult, PublishEvent, StoreResult
from sidecar.actors.replies import AcceptedResult, PublishedEvent
from sidecar.actors.result_store import ResultOptions, ResultStore
from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import ask
from sidecar.actors.runtime.owner import Owner
from sidecar.actors.runtime.timers import Timers
from sidecar.state.errors import BusUnavailable
from sidecar.state.journal.fs import Fs
from sidecar.state.models import AgentId, ResultId, event_id
from sidecar.supervision.profile import Profiles

WAIT_S = 10.0


class ListeningBus(Owner):
    """Keeps what is published, once per idempotency key, like the real one; `fail` makes it refuse."""

    def __init__(self, heard: list[PublishEvent], fail: threading.Event) -> None:
        super().__init__()
        self._heard = heard
        self._fail = fail
        self._answers: dict[str | None, PublishedEvent] = {}

    def handle(self, message: PublishEvent) -> PublishedEvent:
        if self._fail.is_set():
            raise BusUnavailable("not now")
        self._heard.append(message)
        published = PublishedEvent(event_id(len(self._answers) + 1), "coordination", 86400, (), datetime.now(UTC))
        return self._answers.setdefault(message.idempotency_key, published)


class ResultWorld:
    """It can be ended and started again. fs: see ResultStore."""

    def __init__(self, directory: Path, options: ResultOptions | None = None, fs: Fs | None = None) -> None:
        self.directory = directory
        self.options = options or ResultOptions()
        self.heard: list[PublishEvent] = []
        self.bus_fails = threading.Event()
        self.fs = fs
        self.start()

    def start(self) -> None:
        self.timers = Timers()
        self.timers.start()
        self.supervisor = ActorSupervisor(gave_up=lambda name, reason: None)
        bus = self.supervisor.handle("bus", lambda: ListeningBus(self.heard, self.bus_fails))
        self.store: ActorHandle = self.supervisor.handle(
            "results",
            lambda: ResultStore(
                directory=self.directory,
                options=self.options,
                bus=bus,
                profiles=Profiles({}),
                timers=self.timers,
                fs=self.fs,
            ),
        )
        self.supervisor.start()

    def stop(self) -> None:
        self.supervisor.stop()
        self.timers.stop()

    def put(self, n: int = 0, **fields: Any) -> AcceptedResult:
        return ask(self.store, new(n, **fields), timeout_s=WAIT_S)

    def get(self, result_id: str, project_id: str | None = "p") -> Any:
        return ask(self.store, GetResult(result_id=ResultId(result_id), project_id=project_id), timeout_s=WAIT_S)

    def find(self, **fields: Any) -> Any:
        return ask(self.store, FindResults(**{"project_id": "p", **fields}), timeout_s=WAIT_S)


def new(n: int = 0, **fields: Any) -> StoreResult:
    defaults: dict[str, Any] = {
        "project_id": "p",
        "issue_id": f"issue-{n % 3}",
        "agent_id": AgentId("agent-1"),
        "agent_type": "python-specialist",
        "status": "success",
        "result": msgspec.Raw(b'{"status":"success","n":%d}' % n),
    }
    return StoreResult(**{**defaults, **fields})
