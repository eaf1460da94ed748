"""ProcessCensus: finds the processes of each agent and their use of resources, including daemons that were
re-parented.

A process is an agent's when its environment carries the agent's marks, when it is in the session of the agent's
running process, or when its parent is the agent's. Once known it stays known, whatever it does to its environment.

See docs/supervision.md, "The processes of an agent".
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from ..state.models import ProcessIdentity
from . import process_table
from .background import BackgroundLoop
from .proc_fs import LOADED_WITHIN_S
from .process_identity import boot_id, send_signal
from .process_row import ProcessRow
from .request_environment import AGENT_ID, INCARNATION, INSTANCE

# A process this young may still be on its way to exec, with its parent's environment.
_MAY_CHANGE_TICKS = 200


class Owned(msgspec.Struct, frozen=True):
    """Whose process it is."""

    agent_id: str
    incarnation: int


class TreeProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process of an agent's tree. cpu_s: used since it started."""

    identity: ProcessIdentity
    incarnation: int
    group: int
    session: int
    cpu_s: float
    rss_bytes: int


Trees = Mapping[str, tuple[TreeProcess, ...]]


class ProcessCensus:
    """Finds the processes of agents among all processes of the machine. Used by one thread; remembers earlier looks."""

    def __init__(self, instance_id: str) -> None:
        self._instance = f"{INSTANCE}={instance_id}".encode()
        self._owners: dict[tuple[int, int], Owned | None] = {}

    def take(self, leaders: Mapping[ProcessIdentity, Owned]) -> Trees:
        """The living processes by agent id, oldest first. leaders: the processes that we started and that still run."""
        loaded_until = time.monotonic() + LOADED_WITHIN_S  # all together: a fork bomb may be loading hundreds
        rows = sorted(process_table.rows(), key=lambda row: row.start_ticks)
        newest = rows[-1].start_ticks if rows else 0
        pids = {row.pid: row for row in rows}
        of_session = {
            identity.pid: owned
            for identity, owned in leaders.items()
            # Checked against this very look: the number of a dead leader may be another session by now.
            if (row := pids.get(identity.pid)) is not None and row.start_ticks == identity.start_ticks
        }
        owners: dict[tuple[int, int], Owned | None] = {}
        trees: dict[str, list[TreeProcess]] = {}
        for row in rows:
            key = (row.pid, row.start_ticks)
            owner = self._owners.get(key) or of_session.get(row.session)
            is_new = key not in self._owners or newest - row.start_ticks < _MAY_CHANGE_TICKS
            if owner is None and is_new and not row.is_zombie:
                owner = self._marked(row.pid, loaded_until)
            if owner is None and (parent := pids.get(row.parent)) is not None:
                owner = owners.get((parent.pid, parent.start_ticks))
            owners[key] = owner
            if owner is not None and not row.is_zombie and row.pid != os.getpid():
                trees.setdefault(owner.agent_id, []).append(_tree_process(row, owner))
        self._owners = owners
        return {agent_id: tuple(processes) for agent_id, processes in trees.items()}

    def _marked(self, pid: int, loaded_until: float) -> Owned | None:
        values = process_table.environ(pid, until=loaded_until)
        if self._instance not in values:
            return None
        found = process_table.variables(values)
        agent_id, incarnation = found.get(AGENT_ID.encode()), found.get(INCARNATION.encode(), b"")
        if agent_id is None or not incarnation.isdigit():
            return None
        return Owned(agent_id.decode("utf-8", "replace"), int(incarnation))


def kill_all(processes: Iterable[TreeProcess]) -> tuple[TreeProcess, ...]:
    """SIGKILL, all of them stopped first, so that none can fork while the others die. Returns those that may not be
    signalled: they have become another user's."""
    doomed = tuple(processes)
    _signal_all(doomed, signal.SIGSTOP)
    return _signal_all(doomed, signal.SIGKILL)


def end_all(processes: Iterable[TreeProcess]) -> None:
    """Send SIGTERM to all, and SIGCONT to stopped processes, which could not act on it otherwise."""
    for process in processes:
        for number in (signal.SIGTERM, signal.SIGCONT):
            _signal_all((process,), number)


def _signal_all(processes: Iterable[TreeProcess], number: int) -> tuple[TreeProcess, ...]:
    """Signal all processes. Returns those that we may not signal."""
    refused = []
    for process in processes:
        try:
            send_signal(process.identity, number)
        except PermissionError:
            refused.append(process)
    return tuple(refused)


class CensusTaker(BackgroundLoop):
    """A thread that takes a census every `every_s` while there are leaders, and at once when asked.

    tell: called in that thread with the trees found, and how many had asked when it began to look.
    """

    def __init__(self, instance_id: str, *, every_s: float, tell: Callable[[Trees, int], None]) -> None:
        super().__init__("census")
        self._census = ProcessCensus(instance_id)
        self._every_s = every_s
        self._tell = tell
        self._leaders: dict[ProcessIdentity, Owned] = {}
        self._asked = 0
        self._served = 0

    def lead(self, identity: ProcessIdentity, owned: Owned) -> None:
        """A process was started: its session is an agent's."""
        with self._changed:
            self._leaders[identity] = owned
            if len(self._leaders) == 1:
                self._changed.notify()

    def ended(self, identity: ProcessIdentity) -> None:
        with self._changed:
            self._leaders.pop(identity, None)

    def ask(self) -> int:
        """Take one now; those who ask while one is taken get the next. Returns how often was asked, this included."""
        with self._changed:
            self._asked += 1
            self._changed.notify()
            return self._asked

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._asked == self._served and not self._stopped:
                    timed_out = not self._changed.wait(self._every_s if self._leaders else None)
                    if timed_out and self._leaders:
                        break
                if self._stopped:
                    return
                self._served = served = self._asked
                leaders = dict(self._leaders)
            self._tell(self._census.take(leaders), served)


def _tree_process(row: ProcessRow, owner: Owned) -> TreeProcess:
    return TreeProcess(
        identity=ProcessIdentity(boot_id(), row.pid, row.start_ticks),
        incarnation=owner.incarnation,
        group=row.group,
        session=row.session,
        cpu_s=row.cpu_s,
        rss_bytes=row.rss_bytes,
    )
