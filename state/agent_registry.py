"""AgentRegistry: what the Spawner must still know after its death: agents, revoked tokens, triggers, unsent events.

A ledger: the last entry of a key counts. Nothing here decides; the Spawner puts entries and commits them. An
entry that could not be written stays pending and goes out with the next commit, so that a full disk stops no agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from .agent_entries import (
    AgentRecord,
    Announced,
    Announcement,
    Departed,
    Entry,
    Forgotten,
    GroupDeaths,
    GroupRestart,
    Instance,
    Revoked,
    SpawnKey,
    Tally,
    Together,
    TriggerKnown,
    TriggerPlace,
)
from .errors import StorageUnavailable
from .ids import unique_hex
from .journal.fs import RealFs
from .journal.ledger import Ledger
from .journal.recovery import find
from .models import AgentId, AgentState, EventId, ExitCause
from .typed import LateDecoder


class AgentRegistry:
    """All entries, in memory and in the journal under `directory`. Used by one thread.

    instance_id, announcer_id: see Instance.
    announcements_kept_to: those up to this number may be sent; a later one's could be given again after a crash.
    journal: for background syncs.
    is_new: the storage has just been named, so that no process can have it in its environment.

    Raises what Journal.open raises. What is committed survives the death of the sidecar; that of the machine only when
    it is synced, some seconds later: no agent survives the machine either. A revocation is different, for a token does
    survive it: nothing that follows from one may be answered or announced before it is synced, see `must_be_synced`.
    """

    def __init__(self, directory: Path) -> None:
        self.agents: dict[AgentId, AgentRecord] = {}
        self._spawned: dict[SpawnKey, AgentId] = {}
        self._departed: dict[SpawnKey, AgentRecord] = {}
        self.revoked: dict[str, Revoked] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.unsent: dict[int, Announcement] = {}
        self.group_restarts: dict[Together, GroupRestart] = {}
        self.group_deaths: dict[Together, GroupDeaths] = {}
        self.trigger_place: EventId | None = None
        self.triggers: dict[str, EventId] = {}
        self.instance_id = self.announcer_id = ""
        self._announced_to = 0
        self._last_announcement = 0
        self.announcements_kept_to = 0
        self._last_serial = 0
        self._pending: list[Entry] = []
        self._must_be_synced = 0
        self._unsynced: deque[tuple[int, int]] = deque()  # a record, and the announcement that waits for its sync
        self._ledger: Ledger[Entry] = Ledger(directory, Entry)
        self.journal = self._ledger.journal
        for entry in self._ledger.entries():
            self._remember(entry)
        self.announcements_kept_to = self._last_announcement
        self.is_new = not self.instance_id
        if self.is_new:
            self.put(Instance(instance_id=unique_hex(16)))
            self.commit()
            # Processes have it in their environment: without it none of them would be found again.
            self.journal.make_durable()

    def put(self, entry: Entry) -> None:
        """Remember now; on the disk with the next commit."""
        self._remember(entry)
        self._pending.append(entry)

    def commit(self) -> None:
        """Write the pending entries. Raises StorageUnavailable; then they stay pending."""
        if not self._pending:
            return
        self._write_pending_and()
        self._ledger.rewrite_if_long(self._live_entries(), self._snapshot)

    def put_now(self, *entries: Entry) -> None:
        """Remember what is on the disk when this returns. Raises StorageUnavailable; then it is not remembered."""
        self._write_pending_and(*entries)
        for entry in entries:
            self._remember(entry)

    def _write_pending_and(self, *entries: Entry) -> None:
        """All as one transaction."""
        together = [*self._pending, *entries]
        self._ledger.write(together)
        self._pending.clear()
        if any(isinstance(entry, Revoked) for entry in together):
            self._must_be_synced = self.journal.last_seq
        self._unsynced.append((self._must_be_synced, self._last_announcement))
        self.note_synced()

    @property
    def must_be_synced(self) -> int:
        """The newest record with a revocation. Wait for `journal.synced_seq` to reach it before announcing."""
        return self._must_be_synced

    def note_synced(self) -> None:
        """Release the announcements that waited for this sync of the journal."""
        while self._unsynced and self._unsynced[0][0] <= self.journal.synced_seq:
            _, self.announcements_kept_to = self._unsynced.popleft()

    def become_copy(self, *, now: datetime) -> None:
        """Be a storage of its own, of which no process is an agent: those that had not ended are stopped. On the disk.

        What is announced goes on under the old name: the bus that was copied along may have some of it already.
        """
        self.put(Instance(instance_id=unique_hex(16), announcer_id=self.announcer_id))
        for record in self.agents.copy().values():
            if not record.state.has_ended:
                self.put(
                    msgspec.structs.replace(
                        record,
                        state=AgentState.STOPPED,
                        cause=ExitCause.KILLED,
                        last_error="it was left behind when the storage was copied",
                        process=None,
                        ending=None,
                        then="",
                        ending_note="",
                        tokens=(),
                        ended_at=now,
                    )
                )
        for where in tuple(self.group_restarts):
            self.put(GroupRestart(where))
        self.commit()

    def forget_departed(self, *, created_before: datetime) -> None:
        """They leave the disk with the next snapshot."""
        for key in [key for key, record in self._departed.items() if record.created_at < created_before]:
            del self._departed[key]

    def forget_revoked(self, *, expired_before: datetime) -> None:
        """Drop revocations of tokens that are refused anyhow; they leave the disk with the next snapshot."""
        for token_id in [n for n, entry in self.revoked.items() if entry.expires_at < expired_before]:
            del self.revoked[token_id]

    def spawned_with(self, key: SpawnKey) -> AgentRecord | None:
        """The agent that was spawned with this key, even if it was removed from the list within the last day."""
        agent_id = self._spawned.get(key)
        return self.agents[agent_id] if agent_id is not None else self._departed.get(key)

    def next_serial(self) -> int:
        """A number no agent has had; it is used up by putting a record with it."""
        return self._last_serial + 1

    def next_announcement(self) -> int:
        return self._last_announcement + 1

    def close(self) -> None:
        self._ledger.close()

    def _remember(self, entry: Entry) -> None:
        match entry:
            case AgentRecord():
                self.agents[entry.spec.agent_id] = entry
                if entry.spawn_key is not None:
                    self._spawned[entry.spawn_key] = entry.spec.agent_id
                self._last_serial = max(self._last_serial, entry.serial)
            case Forgotten(agent_id=agent_id):
                gone = self.agents.pop(agent_id, None)
                if gone is not None and gone.spawn_key is not None:
                    self._spawned.pop(gone.spawn_key, None)
            case Departed(record=record):
                if record.spawn_key is not None:
                    self._departed[record.spawn_key] = record
            case Revoked():
                self.revoked[entry.token_id] = entry
            case Tally():
                self.tallies[entry.project_id, entry.agent_type] = entry
            case Announcement():
                self.unsent[entry.seq] = entry
                self._last_announcement = max(self._last_announcement, entry.seq)
            case Announced(seq=seq):
                self._announced_to = seq
                self._last_announcement = max(self._last_announcement, seq)
                for sent in [n for n in self.unsent if n <= seq]:
                    del self.unsent[sent]
            case TriggerPlace(event_id=event_id):
                self.trigger_place = event_id
            case TriggerKnown():
                self.triggers[entry.trigger_id] = entry.after
            case GroupRestart(where=where, to_start=()):
                self.group_restarts.pop(where, None)
            case GroupRestart(where=where):
                self.group_restarts[where] = entry
            case GroupDeaths(where=where, deaths=()):
                self.group_deaths.pop(where, None)
            case GroupDeaths(where=where):
                self.group_deaths[where] = entry
            case Instance(instance_id=instance_id, announcer_id=announcer_id, last_serial=serial):
                self.instance_id = instance_id
                self.announcer_id = announcer_id or instance_id
                self._last_serial = max(self._last_serial, serial)

    def _snapshot(self) -> Iterable[Entry]:
        yield Instance(instance_id=self.instance_id, announcer_id=self.announcer_id, last_serial=self._last_serial)
        yield Announced(seq=self._announced_to)
        yield from self.unsent.values()
        yield from self.agents.values()
        yield from (Departed(record=record) for record in self._departed.values())
        yield from self.revoked.values()
        yield from self.tallies.values()
        yield from self.group_restarts.values()
        yield from self.group_deaths.values()
        if self.trigger_place is not None:
            yield TriggerPlace(event_id=self.trigger_place)
        for trigger_id, after in self.triggers.items():
            yield TriggerKnown(trigger_id=trigger_id, after=after)

    def _live_entries(self) -> int:
        of_agents = len(self.agents) + len(self._departed) + len(self.revoked) + len(self.tallies)
        return of_agents + len(self.unsent) + len(self.triggers) + 3


def instance_of(directory: Path) -> str | None:
    """The name of the storage whose registry lies there, without changing anything; None if it has none yet.

    Raises StorageDamaged, StorageTooNew, StorageUnavailable.
    """
    if not directory.is_dir():
        return None
    reader: LateDecoder[Entry] = LateDecoder(Entry)
    name: str | None = None
    try:
        for kept in find(RealFs(), directory).entries:
            entry = reader.decode(kept.record)
            if isinstance(entry, Instance):
                name = entry.instance_id
    except OSError as error:
        raise StorageUnavailable(f"{directory} cannot be read: {error.strerror or error}") from error
    return name
