"""RegistryWriter: writes the registry's changes after each message, and has them synced in the background.

Used in the Spawner's thread. When storage cannot be written it tries again, so that a full disk stops no agent.
"""

from __future__ import annotations

import logging
import time

from ...state.agent_registry import AgentRegistry
from ...state.errors import StorageUnavailable
from ...state.journal.sync import SETTLE_AFTER_S, BackgroundSync
from ..runtime.asking import Fact, Recipient
from ..runtime.timers import Timers

log = logging.getLogger(__name__)

_SAVE_AGAIN_S = 1.0


class SaveDue(Fact, frozen=True):
    """Storage could not be written; try again."""


class SettleDue(Fact, frozen=True):
    """It is time to sync the registry."""


class RegistrySynced(Fact, frozen=True):
    """A sync of the registry has ended, or has failed."""


class RegistryWriter:
    """The commits and syncs of one registry."""

    def __init__(self, registry: AgentRegistry, timers: Timers, me: Recipient) -> None:
        self._registry = registry
        self._timers = timers
        self._me = me
        self._syncs = BackgroundSync((registry.journal,), lambda: me.tell(RegistrySynced()))
        self._is_saving_later = False
        self._settles_later = False

    def save(self) -> StorageUnavailable | None:
        """Write what was put, and sync it soon, or at once if an answer waits for that: see AgentRegistry.

        Returns why some records could not be written; None if all were.
        """
        error = self._commit()
        registry = self._registry
        if registry.must_be_synced > registry.journal.synced_seq:
            self._syncs.look(now=time.monotonic(), at_once=True)
        if self._syncs.is_behind and not self._settles_later:
            self._settles_later = True
            self._timers.tell_after(SETTLE_AFTER_S, self._me, SettleDue())
        return error

    def _commit(self) -> StorageUnavailable | None:
        try:
            self._registry.commit()
        except StorageUnavailable as error:
            if not self._is_saving_later:
                log.error("agents not recorded, trying again in %g s: %s", _SAVE_AGAIN_S, error)
                self._is_saving_later = True
                self._timers.tell_after(_SAVE_AGAIN_S, self._me, SaveDue())
            return error
        return None

    def handle(self, fact: SaveDue | SettleDue | RegistrySynced) -> str | None:
        """Returns why the registry can no longer be synced, so that it must be opened again; None if it can."""
        match fact:
            case SaveDue():
                self._is_saving_later = False  # `save` follows each message
                return None
            case SettleDue():
                self._settles_later = False
                self._syncs.look(now=time.monotonic())
                return None
            case RegistrySynced():
                self._syncs.look(now=time.monotonic())
                return self._syncs.failure

    def close(self) -> None:
        self._syncs.close()
