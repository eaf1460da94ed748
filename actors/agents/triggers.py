"""Triggers: spawn agents for events, at most once per event, also across restarts, and never for past events.

A trigger ignores events caused by an agent of the type that it spawns, unless it sets `allow_self`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from ...state.agent_entries import TRIGGERS, TriggerKnown, TriggerPlace, trigger_key
from ...state.agent_registry import AgentRegistry
from ...state.errors import ChainTooLong, ConfigError, SidecarError
from ...state.events.filter import EventFilter, compile_filter
from ...state.events.issue import issue_of
from ...state.models import Event, EventId, event_id
from ...supervision.fleet import Trigger, refuse_chain_cut
from ...supervision.profile import Profiles
from ..messages import SpawnAgent
from ..replies import SpawnedAgent
from .chains import Cause

log = logging.getLogger(__name__)


class _Armed(msgspec.Struct, frozen=True):
    trigger: Trigger
    trigger_id: str
    filter: EventFilter


class Triggers:
    """Used in the Spawner's thread. Raises ConfigError for a trigger that could never spawn, InvalidFilter."""

    def __init__(self, triggers: Sequence[Trigger], profiles: Profiles, registry: AgentRegistry) -> None:
        self._registry = registry
        self._armed: list[_Armed] = []
        for trigger in triggers:
            if not profiles.of(trigger.spawn).command:
                raise ConfigError(
                    f"the trigger on {trigger.on} spawns {trigger.spawn}, whose profile has no command",
                    field="triggers.spawn",
                )
            refuse_chain_cut(trigger, "triggers")
            filter_ = compile_filter(trigger.filter)
            trigger_id = hashlib.sha256(msgspec.json.encode((trigger.on, filter_.canonical, trigger.spawn))).hexdigest()
            self._armed.append(_Armed(trigger, trigger_id, filter_))

    @property
    def place(self) -> EventId:
        """The position up to which every event was handled."""
        return self._registry.trigger_place or event_id(0)

    def log_ends_at(self, newest: EventId) -> None:
        """Set where triggers begin: a new trigger ignores every event up to now.

        A place beyond the end of the log is put back to it, so that the next events count.
        """
        if self.place > newest:
            log.warning("triggers put back from=%s to=%s: the event log lost what lay between", self.place, newest)
            self._registry.put(TriggerPlace(event_id=newest))
        for armed in self._armed:
            after = self._registry.triggers.get(armed.trigger_id)
            if after is None or after > newest:
                self._registry.put(TriggerKnown(trigger_id=armed.trigger_id, after=newest))

    def look_at(
        self, event: Event, cause_of: Callable[[Event], Cause], spawn: Callable[[SpawnAgent], SpawnedAgent]
    ) -> None:
        """Spawn the agents for an event. A failure is logged, because the event does not come again."""
        if event.event_id <= self.place:
            return
        for armed in self._armed:
            after = self._registry.triggers.get(armed.trigger_id, event.event_id)
            if armed.trigger.on == event.event_type and event.event_id > after and armed.filter.matches(event):
                try:
                    self._fire(armed, event, cause_of(event), spawn)
                except Exception:  # the event does not come again, and the other triggers have done nothing wrong
                    log.exception(
                        "trigger failed on=%s spawn=%s event_id=%s",
                        armed.trigger.on,
                        armed.trigger.spawn,
                        event.event_id,
                    )
        self._registry.put(TriggerPlace(event_id=event.event_id))

    def _fire(self, armed: _Armed, event: Event, cause: Cause, spawn: Callable[[SpawnAgent], SpawnedAgent]) -> None:
        if cause.agent_type == armed.trigger.spawn and not armed.trigger.allow_self:
            log.debug(
                "trigger ignored an event of the type that it spawns on=%s spawn=%s event_id=%s",
                armed.trigger.on,
                armed.trigger.spawn,
                event.event_id,
            )
            return
        issue_id = issue_of(event.data)
        if issue_id is None:
            log.warning(
                "trigger did not spawn on=%s spawn=%s event_id=%s: its data names no issue_id",
                armed.trigger.on,
                armed.trigger.spawn,
                event.event_id,
            )
            return
        try:
            spawned = spawn(
                SpawnAgent(
                    agent_type=armed.trigger.spawn,
                    issue_id=issue_id,
                    project_id=event.project_id,
                    requested_by=TRIGGERS,
                    idempotency_key=trigger_key(armed.trigger_id[:16], event.event_id),
                    traceparent=event.traceparent,
                    caused_by=cause.chain,
                )
            )
        except ChainTooLong:
            pass  # logged and announced where the chain was cut
        except SidecarError as error:
            log.error(
                "trigger did not spawn on=%s spawn=%s event_id=%s: %s",
                armed.trigger.on,
                armed.trigger.spawn,
                event.event_id,
                error,
            )
        else:
            log.info(
                "trigger fired on=%s event_id=%s agent_id=%s state=%s",
                armed.trigger.on,
                event.event_id,
                spawned.status.agent_id,
                spawned.status.state,
            )
