"""Auditor: takes records from any thread, and writes them in a thread of its own.

No request waits for the disk: a record is on disk about twenty milliseconds after the answer, and all records are
before the server ends.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ...actors.agents.announcer import LifecycleEvent
from ...state.audit import Act, AuditRecord, ChainHead, Detail, Folding
from ...state.audit_log import AuditLog
from ...state.clock import utc_now
from ...state.errors import SidecarError, StorageUnavailable
from ...state.identity import Minted
from .observer import ObservedRequest, Observer

log = logging.getLogger(__name__)

SIDECAR = "sidecar"
GATHER_S = 0.02  # records of one burst are written and synced together
LOOK_AGAIN_S = 5.0  # a repeated refusal is recorded this much later than its minute, at most
CLOSE_S = 5.0


class Auditor(Observer):
    """Records acts.

    Made by `auditing`. lost: acts that could not be written; each is in the server's log instead.
    """

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
        """Record an act; returns at once."""
        self.acted(Act(act=act, by=by, project_id=project_id, subject=subject, outcome=outcome, details=details))

    def acted(self, act: Act) -> None:
        """Record an act; returns at once."""
        self._queue.put(act)

    def refused(self, request: ObservedRequest, *, status: int, wire_code: str, code: str) -> None:  # noqa: ARG002
        """Record a request without a valid token or the permission. The same again is counted, not repeated."""
        if status not in (401, 403):
            return
        caller = request.caller
        act = Act(
            act="denied",
            by=caller.agent_id if caller is not None else "",
            project_id=caller.project_id if caller is not None else None,
            subject=request.route,
            outcome=code,
            details={"method": request.method, "address": request.address},
        )
        with self._lock:
            due = self._folding.add(act, now=time.monotonic())
        for each in due:
            self._queue.put(each)

    def minted(self, token: Minted) -> None:
        """Record a new token: its id, never the token itself."""
        self.record(
            "token_minted",
            by=SIDECAR,
            project_id=token.project_id,
            subject=token.agent_id,
            token_id=token.token_id,
            agent_type=token.agent_type,
            expires_at=token.expires_at.isoformat(),
        )

    def changed(self, events: tuple[LifecycleEvent, ...]) -> None:
        """Record lifecycle events of agents."""
        for event in events:
            said = {name: getattr(event.agent, name) for name in _LIFECYCLE}
            self.record(
                event.event_type,
                by=SIDECAR,
                project_id=event.project_id,
                subject=event.agent.agent_id,
                **{name: value for name, value in said.items() if value is not None},
            )

    def restarted(self, actor: str, reason: str) -> None:
        """Record the restart of an actor."""
        self.record("actor_restarted", by=SIDECAR, subject=actor, reason=reason)

    def recent(self) -> tuple[AuditRecord, ...]:
        """The newest records, oldest first."""
        return self._trail.recent()

    @property
    def head(self) -> ChainHead:
        return self._trail.head

    def start(self) -> None:
        self._thread.start()

    def written(self, *, timeout_s: float) -> bool:
        """Wait until all records made before this call are on disk; False if it took too long."""
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


# An agent's output (last_lines) does not belong in the trail: it can be anything.
_LIFECYCLE = ("agent_type", "issue_id", "incarnation", "process_id", "exit_code", "signal", "cause", "restarts")


def code_of(error: BaseException) -> str:
    return error.code if isinstance(error, SidecarError) else "internal"
