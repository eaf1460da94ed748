"""Announcer: gives the bus the lifecycle events of agents, each exactly once and in order, even if either dies.

It is an outbox: an event is kept with the change that it is about, and removed when the bus has it. Its number is the
idempotency key, so an event that is sent twice counts once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from heapq import nsmallest
from typing import Any

import msgspec

from ...state.agent_entries import AgentRecord, Announced, Announcement
from ...state.agent_registry import AgentRegistry
from ...state.errors import SidecarError
from ...state.models import AgentSpec
from ...state.typed import decode
from ..messages import PublishEvent, PublishTogether
from ..replies import PublishedEvent
from ..runtime.asking import Fact, Later, Recipient
from ..runtime.timers import Timers

log = logging.getLogger(__name__)

PUBLISHER = "sidecar"
_AT_ONCE = 128
_RETRY_S = (0.1, 0.5, 2.0, 5.0)  # the bus restarts within milliseconds; a full disk takes longer


class DescribedAgent(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a lifecycle event about its agent; None for missing ones."""

    agent_id: str | None = None
    agent_type: str | None = None
    issue_id: str | None = None
    incarnation: int | None = None
    process_id: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    cause: str | None = None
    restarts: int | None = None


class LifecycleEvent(msgspec.Struct, frozen=True):
    """A change of an agent, of which the bus has an event."""

    event_type: str
    project_id: str
    agent: DescribedAgent


class AnnouncementAnswered(Fact, frozen=True):
    """The bus has answered for the events up to `seq`.

    error: why it did not take them, or None. is_final: another try cannot help.
    """

    seq: int
    error: str | None = None
    is_final: bool = False


class AnnouncementDue(Fact, frozen=True):
    """Time for another try."""


class Announcer:
    """Gives the bus the lifecycle events of agents, and keeps those that it does not have yet.

    Used in the Spawner's thread. What is announced leaves when it has been committed and `send` is called.

    changed: called in the bus's thread with the events that it has taken.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        bus: Recipient,
        timers: Timers,
        me: Recipient,
        changed: Callable[[tuple[LifecycleEvent, ...]], None] | None = None,
    ) -> None:
        self._registry = registry
        self._bus = bus
        self._timers = timers
        self._me = me
        self._is_waiting = False  # for an answer, or for another try
        self._failures = 0
        self._changed = changed
        self._events = {
            seq: LifecycleEvent(left.event_type, left.project_id, decode(left.data, DescribedAgent))
            for seq, left in registry.unsent.items()
        }

    def announce(self, event_type: str, record: AgentRecord, *, topic: str = "system", **data: Any) -> None:
        """Keep an event for the bus. data: fields in addition to those of every lifecycle event."""
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
        if spec.chain:
            about["chain"] = spec.chain
        self.announce_about(spec, event_type, topic=topic, **about)

    def announce_about(self, spec: AgentSpec, event_type: str, *, topic: str, **data: Any) -> None:
        """Keep an event for the bus, about an agent that exists or that was refused."""
        seq = self._registry.next_announcement()
        agent = DescribedAgent(**{name: data.get(name) for name in DescribedAgent.__struct_fields__})
        self._events[seq] = LifecycleEvent(event_type, spec.project_id, agent)
        self._registry.put(
            Announcement(
                seq=seq,
                project_id=spec.project_id,
                event_type=event_type,
                topic=topic,
                data=msgspec.Raw(msgspec.json.encode(data)),
                traceparent=spec.traceparent,
            )
        )

    def send(self) -> None:
        """Give the bus the events it does not have, oldest first, if none are on their way."""
        if self._is_waiting or not self._registry.unsent:
            return
        kept = (seq for seq in self._registry.unsent if seq <= self._registry.announcements_kept_to)
        # After a failure one by one, so that it is known which it is that fails.
        seqs = nsmallest(1 if self._failures else _AT_ONCE, kept)
        if not seqs:
            return
        self._is_waiting = True
        events = tuple(self._event_of(self._registry.unsent[seq]) for seq in seqs)
        later = self._bus.request(PublishTogether(events=events))
        later.add_done_callback(lambda answered: self._answered(seqs, answered))

    def _event_of(self, announcement: Announcement) -> PublishEvent:
        return PublishEvent(
            project_id=announcement.project_id,
            event_type=announcement.event_type,
            publisher=PUBLISHER,
            publisher_type=PUBLISHER,
            data=announcement.data,
            topic=announcement.topic,
            idempotency_key=f"{self._registry.announcer_id}-{announcement.seq}",
            traceparent=announcement.traceparent,
        )

    def handle(self, fact: AnnouncementAnswered | AnnouncementDue) -> None:
        match fact:
            case AnnouncementDue():
                self._is_waiting = False
            case AnnouncementAnswered(seq=seq, error=error, is_final=is_final):
                if error is not None and not is_final:
                    delay_s = _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
                    self._failures += 1
                    log.warning("lifecycle events not taken to_seq=%d retry_in_s=%g: %s", seq, delay_s, error)
                    self._timers.tell_after(delay_s, self._me, AnnouncementDue())
                    return
                if error is not None:
                    log.error("lifecycle event refused for good seq=%d: %s", seq, error)
                    self._events.pop(seq, None)
                self._failures = 0
                self._is_waiting = False
                self._registry.put(Announced(seq=seq))

    def _answered(self, seqs: list[int], later: Later[tuple[PublishedEvent, ...]]) -> None:
        """In the bus's thread."""
        error = None if later.cancelled() else later.exception()
        if error is None:
            self._me.tell(AnnouncementAnswered(seqs[-1]))
            events = tuple(self._events.pop(seq) for seq in seqs)
            if self._changed is not None:
                self._changed(events)
            return
        is_final = (
            len(seqs) == 1
            and isinstance(error, SidecarError)
            and error.code in ("invalid_event", "idempotency_conflict")
        )
        self._me.tell(AnnouncementAnswered(seqs[-1], str(error) or repr(error), is_final))
