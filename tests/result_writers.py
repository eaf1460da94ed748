"""A process that stores results with sixteen writers while it compacts, until it is killed; it prints what was
acknowledged: `python tests/result_writers.py DIRECTORY FIRST_NUMBER`.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from pathlib import Path

import msgspec

from sidecar.actors.event_bus import EventBus, EventOptions
from sidecar.actors.messages import StoreResult
from sidecar.actors.replies import AcceptedResult
from sidecar.actors.result_store import ResultOptions, ResultStore
from sidecar.actors.results import compaction as result_compaction
from sidecar.actors.results import outbox as result_outbox
from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import ask
from sidecar.actors.runtime.timers import Timers
from sidecar.state.models import AgentId
from sidecar.state.results.document_store import DocumentStore
from sidecar.supervision.profile import Profiles

WRITERS = 16
EVERY_EVENT = EventOptions(max_events=10_000_000)


def body(n: int) -> bytes:
    """A result that shows when half of it is missing, or when it is another's."""
    return b'{"status":"success","first":%d,"text":"%b","last":%d}' % (n, b"z" * (n * 37 % 1900), n)


def world(directory: Path, timers: Timers) -> tuple[ActorSupervisor, ActorHandle, ActorHandle]:
    """Bus and store on `directory`, not started yet."""

    def gave_up(name: str, reason: str) -> None:
        os.write(2, f"{name} gave up: {reason}\n".encode())

    supervisor = ActorSupervisor(gave_up=gave_up)
    bus = supervisor.handle(
        "bus", lambda: EventBus(journal_dir=directory / "events", options=EVERY_EVENT, timers=timers)
    )
    store = supervisor.handle(
        "results",
        lambda: ResultStore(
            directory=directory / "results", options=ResultOptions(), bus=bus, profiles=Profiles({}), timers=timers
        ),
    )
    return supervisor, bus, store


def store_one(store: ActorHandle, n: int) -> AcceptedResult:
    """Store the result of number n, and wait for the answer."""
    request = StoreResult(
        project_id="p",
        issue_id=f"issue-{n % 10}",
        agent_id=AgentId(f"agent-{n % 16}"),
        agent_type="python-specialist",
        status="success",
        result=msgspec.Raw(body(n)),
        idempotency_key=f"key-{n}" if n % 2 else None,
    )
    return ask(store, request, timeout_s=30)


def write(store: ActorHandle, numbers: count[int]) -> None:
    while True:
        n = next(numbers)
        stored = store_one(store, n)
        os.write(1, f"{n} {stored.result_id} {stored.event_id}\n".encode())  # short: the pipe takes it as a whole


def main() -> None:
    DocumentStore.is_worth_compacting = lambda self: self.stats().last_seq > 0  # type: ignore[method-assign]
    result_compaction.AGAIN_AFTER_S = 0.03
    result_compaction.PAUSE_S = 0.0005
    result_outbox.LET_GO_AFTER_S = 0.02
    timers = Timers()
    timers.start()
    supervisor, _, store = world(Path(sys.argv[1]), timers)
    supervisor.start()
    numbers = count(int(sys.argv[2]))
    for _ in range(WRITERS):
        threading.Thread(target=write, args=(store, numbers), daemon=True).start()
    threading.Event().wait(60)


if __name__ == "__main__":
    main()
