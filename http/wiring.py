"""Builds the four actors, and connects them before any of them runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from ..actors.context_builder import ContextBuilder
from ..actors.event_bus import EventBus
from ..actors.result_store import ResultStore
from ..actors.runtime.actor_supervisor import ActorSupervisor
from ..actors.runtime.asking import Recipient
from ..actors.runtime.timers import Timers
from ..actors.runtime.turns import TurnByTurn
from ..actors.spawner import Spawner
from ..state.errors import BusUnavailable
from ..state.identity import Revocations, TokenKey
from ..supervision.sole_instance import SoleInstance
from .config import Config
from .loop.input_read import InputRead
from .observe.observing import Observers
from .routing import Actors
from .storage import LockedStorage

T = TypeVar("T")


class Wiring(msgspec.Struct, frozen=True):
    """The parts that exist before the actors. url: of this sidecar, without `/api`. draining: set when it has to end.

    input_read: calls back when everything that clients had sent is read.
    sole: keeps other sidecars from serving a storage with the same instance name.
    """

    config: Config
    supervisor: ActorSupervisor
    timers: Timers
    key: TokenKey
    revocations: Revocations
    observers: Observers
    url: str
    draining: threading.Event
    input_read: InputRead
    sole: SoleInstance
    storage: LockedStorage

    def actors(self) -> Actors:
        """Handles of the four, which the supervisor starts in this order."""
        handle = self.supervisor.handle
        bus = handle("event_bus", lambda: self._on_storage(lambda: self._event_bus(spawner)), failure=BusUnavailable)
        results = handle("result_store", lambda: self._on_storage(lambda: self._result_store(bus)))
        spawner = handle("spawner", lambda: self._on_storage(lambda: self._spawner(bus)))
        contexts = handle("context_builder", lambda: self._context_builder(spawner, results, bus))
        return Actors(spawner=spawner, bus=TurnByTurn(bus), results=results, contexts=contexts)

    def _on_storage(self, make: Callable[[], T]) -> T:
        """A restarted actor must not begin an empty journal if its own was removed."""
        self.storage.require_the_same()
        return make()

    def _event_bus(self, spawner: Recipient) -> EventBus:
        return EventBus(
            journal_dir=self.config.storage / "events",
            options=self.config.events,
            timers=self.timers,
            spawner=spawner,
            trigger_types=frozenset(trigger.on for trigger in self.config.triggers),
        )

    def _result_store(self, bus: Recipient) -> ResultStore:
        return ResultStore(
            directory=self.config.storage / "results",
            options=self.config.results,
            bus=bus,
            profiles=self.config.profiles,
            timers=self.timers,
        )

    def _spawner(self, bus: Recipient) -> Spawner:
        return Spawner(
            storage=self.config.storage,
            projects=self.config.projects,
            profiles=self.config.profiles,
            options=self.config.agents,
            triggers=self.config.triggers,
            key=self.key,
            revocations=self.revocations,
            bus=bus,
            changed=self.observers.everyone.changed,
            timers=self.timers,
            base_url=self.url,
            draining=self.draining,
            input_read=self.input_read,
            sole=self.sole,
        )

    def _context_builder(self, spawner: Recipient, results: Recipient, bus: Recipient) -> ContextBuilder:
        return ContextBuilder(
            projects=self.config.projects,
            profiles=self.config.profiles,
            options=self.config.context,
            spawner=spawner,
            results=results,
            bus=bus,
            timers=self.timers,
            storage=self.config.storage,
        )
