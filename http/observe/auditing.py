"""Auditor: takes records from any thread, and writes them in a thread of its own.

Nobody waits for the disk because of it: a record is on the disk some twenty milliseconds after the answer, and all of
them are before the server ends.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ...actors.messages import PublishEvent, PublishTogether
from ...actors.runtime.asking import Fact, Later, R, Recipient, Request
from ...state.audit import Act, AuditRecord, Detail, Folding, Head
from ...state.audit_log import AuditLog
from ...state.clock import utc_now
from ...state.errors import SidecarError, StorageUnavailable
from ...state.identity import Caller, Minted

log = logging.getLogger(__name__)

SIDECAR = "sidecar"
GATHER_S = 0.02  # what one burst brings is written and synced together
LOOK_AGAIN_S = 5.0  # a repeated refusal is recorded this much later than its minute, at most
CLOSE_S = 5.0


class Auditor:
    """Made by `auditing`. lost: acts that could not be written; each is in the server's log instead."""

    def __init__(self, trail: AuditLog) -> None:
        self.lost = 0
        self._trail = trail
        self._queue: queue.SimpleQueue[Act | threading.Event | None] = queue.SimpleQueue()
        self._folding = Folding()
        self._lock = threading.Lock()
        self._closes = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def record(
        self,
        act: str,
        *,
        by: str,
        project_id: str | None = None,
        subject: str | None = None,
        outcome: str = "done",
        **details: Detail,
    ) -> None:
        """Put an act on record; returns at once."""
        self._queue.put(Act(act=act, by=by, project_id=project_id, subject=subject, outcome=outcome, details=details))

    def denied(self, *, caller: Caller | None, outcome: str, method: str, route: str, address: str) -> None:
        """A request that was refused for want of a token or a permission; the same again is counted, not repeated."""
        act = Act(
            act="denied",
            by=caller.agent_id if caller is not None else "",
            project_id=caller.project_id if caller is not None else None,
            subject=route,
            outcome=outcome,
            details={"method": method, "address": address},
        )
        with self._lock:
            due = self._folding.add(act, now=time.monotonic())
        for each in due:
            self._queue.put(each)

    def minted(self, minted: Minted) -> None:
        """A token was made; its id goes on record, never the token."""
        self.record(
            "token_minted",
            by=SIDECAR,
            project_id=minted.project_id,
            subject=minted.agent_id,
            token_id=minted.token_id,
            agent_type=minted.agent_type,
            expires_at=minted.expires_at.isoformat(),
        )

    def lifecycle(self, event_type: str, project_id: str, about: Mapping[str, Any]) -> None:
        """Record a lifecycle event of an agent."""
        self.record(
            event_type,
            by=SIDECAR,
            project_id=project_id,
            subject=about.get("agent_id"),
            **{name: about[name] for name in _LIFECYCLE if about.get(name) is not None},
        )

    def actor_restarted(self, name: str, reason: str) -> None:
        self.record("actor_restarted", by=SIDECAR, subject=name, reason=reason)

    def recent(self) -> tuple[AuditRecord, ...]:
        """The newest records, oldest first."""
        return self._trail.recent()

    @property
    def head(self) -> Head:
        return self._trail.head

    def start(self) -> None:
        self._thread.start()

    def written(self, *, timeout_s: float) -> bool:
        """Wait until all that was put on record before this call is on the disk; False if it took too long."""
        mark = threading.Event()
        self._queue.put(mark)
        return mark.wait(timeout_s)

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            for act in self._folding.rest():
                self._queue.put(act)
        self._queue.put(None)
        self._closes.set()
        self._thread.join(timeout=CLOSE_S)

    def _run(self) -> None:
        while True:
            acts = self._next()
            batch = [act for act in acts if isinstance(act, Act)]
            if batch:
                self._write(batch)
            for mark in acts:
                if isinstance(mark, threading.Event):
                    mark.set()
            if None in acts:
                return

    def _next(self) -> list[Act | threading.Event | None]:
        """Wait up to LOOK_AGAIN_S for acts; return them plus folded repeats that are due."""
        acts: list[Act | threading.Event | None] = []
        try:
            acts.append(self._queue.get(timeout=LOOK_AGAIN_S))
            self._closes.wait(GATHER_S)
            while True:
                acts.append(self._queue.get_nowait())
        except queue.Empty:
            pass  # that is all for now
        with self._lock:
            acts += self._folding.due(now=time.monotonic())
        return acts

    def _write(self, batch: list[Act]) -> None:
        try:
            self._trail.append(batch, now=utc_now())
        except StorageUnavailable as error:
            self.lost += len(batch)
            for act in batch:
                log.error("act not on record: %s act=%s", error.message, msgspec.json.encode(act).decode())


@contextmanager
def auditing(storage: Path) -> Iterator[Auditor]:
    """The audit trail of a storage directory, written to until the end. Raises what Journal.open raises."""
    trail = AuditLog.open(storage)
    try:
        auditor = Auditor(trail)
        auditor.start()
        try:
            yield auditor
        finally:
            auditor.close()
    finally:
        trail.close()


class LifecycleWitness:
    """Wraps the event bus and calls the listeners with each lifecycle event that the bus has accepted."""

    def __init__(self, bus: Recipient, *listeners: Callable[[str, str, Mapping[str, Any]], None]) -> None:
        self._bus = bus
        self._listeners = listeners

    @property
    def name(self) -> str:
        return self._bus.name

    def tell(self, fact: Fact) -> None:
        self._bus.tell(fact)

    def request(self, request: Request[R]) -> Later[R]:
        later = self._bus.request(request)
        if isinstance(request, PublishTogether):
            events = request.events
            later.add_done_callback(lambda answered: self._answered(events, answered))
        return later

    def _answered(self, events: tuple[PublishEvent, ...], answered: Later[Any]) -> None:
        if answered.cancelled() or answered.exception() is not None:
            return  # they are announced again
        for event in events:
            about = msgspec.json.decode(event.data)
            for listen in self._listeners:
                listen(event.event_type, event.project_id, about)


# What an agent printed (last_lines) is none of the trail's business: it may be anything.
_LIFECYCLE = ("agent_type", "issue_id", "incarnation", "process_id", "exit_code", "signal", "cause", "restarts")


def code_of(error: BaseException) -> str:
    return error.code if isinstance(error, SidecarError) else "internal"
