"""Announcer: gives the bus the lifecycle events of agents, each exactly once and in order, however often either dies.

An outbox: an event is kept with the change it tells of, and leaves when the bus has it; its number is the
idempotency key, so one that is sent twice counts once.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from ..state.agent_registry import AgentRecord, AgentRegistry, Announced, Announcement
from ..state.errors import SidecarError
from .asking import Fact, Later, Recipient
from .messages import PublishEvent
from .replies import Published
from .timers import Timers

log = logging.getLogger(__name__)

PUBLISHER = "sidecar"
_RETRY_S = (0.1, 0.5, 2.0, 5.0)  # the bus restarts within milliseconds; a full disk takes longer


class AnnouncementAnswered(Fact, frozen=True):
    """error: why the bus did not take it, or None. is_final: another try cannot help."""

    seq: int
    error: str | None = None
    is_final: bool = False


class AnnouncementDue(Fact, frozen=True):
    """Time for another try."""


class Announcer:
    """Used in the Spawner's thread. `send` after what was announced is committed."""

    def __init__(self, registry: AgentRegistry, bus: Recipient, timers: Timers, me: Recipient) -> None:
        self._registry = registry
        self._bus = bus
        self._timers = timers
        self._me = me
        self._in_flight: int | None = None
        self._failures = 0

    def announce(self, event_type: str, record: AgentRecord, *, topic: str = "system", **data: Any) -> None:
        """Keep an event for the bus. data: beside what every lifecycle event says of its agent."""
        spec = record.spec
        about = {
            "agent_id": spec.agent_id,
            "agent_type": spec.agent_type,
            "issue_id": spec.issue_id,
            "incarnation": record.incarnation,
            "process_id": record.process.pid if record.process is not None else None,
            "restarts": record.restarts,
            **data,
        }
        self._registry.put(
            Announcement(
                seq=self._registry.next_announcement(),
                project_id=spec.project_id,
                event_type=event_type,
                topic=topic,
                data=msgspec.Raw(msgspec.json.encode(about)),
                traceparent=spec.traceparent,
            )
        )

    def send(self) -> None:
        """Give the bus the oldest event it does not have, if none is on its way."""
        if self._in_flight is not None or not self._registry.unsent:
            return
        announcement = self._registry.unsent[min(self._registry.unsent)]
        self._in_flight = announcement.seq
        later = self._bus.request(
            PublishEvent(
                project_id=announcement.project_id,
                event_type=announcement.event_type,
                publisher=PUBLISHER,
                publisher_type=PUBLISHER,
                data=announcement.data,
                topic=announcement.topic,
                idempotency_key=f"{self._registry.instance_id}-{announcement.seq}",
                traceparent=announcement.traceparent,
            )
        )
        later.add_done_callback(lambda answered: self._answered(announcement.seq, answered))

    def handle(self, fact: AnnouncementAnswered | AnnouncementDue) -> None:
        match fact:
            case AnnouncementDue():
                self._in_flight = None
            case AnnouncementAnswered(seq=seq, error=error, is_final=is_final):
                if error is not None and not is_final:
                    delay_s = _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
                    self._failures += 1
                    log.warning("lifecycle event not taken seq=%d retry_in_s=%g: %s", seq, delay_s, error)
                    self._timers.tell_after(delay_s, self._me, AnnouncementDue())
                    return
                if error is not None:
                    log.error("lifecycle event refused for good seq=%d: %s", seq, error)
                self._failures = 0
                self._in_flight = None
                self._registry.put(Announced(seq=seq))

    def _answered(self, seq: int, later: Later[Published]) -> None:
        """In the bus's thread."""
        error = None if later.cancelled() else later.exception()
        if error is None:
            self._me.tell(AnnouncementAnswered(seq))
            return
        is_final = isinstance(error, SidecarError) and error.code in ("invalid_event", "idempotency_conflict")
        self._me.tell(AnnouncementAnswered(seq, str(error) or repr(error), is_final))
