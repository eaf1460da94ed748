"""Supervision beside its peers: how soon the dead are back, how many start how fast, what it costs, what is left.

The child is a shell that writes a line into a pipe and becomes `sleep`: what is measured is the supervisor. Peers take
turns within a round, so that the machine's noise hits all alike.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.benchmarks.supervision_peers import PEERS, Ours, Peer
from tests.fleet import DoomedSidecar, does

WITHIN_S = 60.0
SETTLED_S = 1.15  # runit pauses for a second when a child lived shorter, and so do we


class Child(NamedTuple):
    """A child that said it runs, and when, in monotonic seconds."""

    number: str
    pid: int
    at: float


class Arena:
    """A directory with the child's script, the pipe it writes to, and a mark by which every process is found."""

    def __init__(self, directory: Path, *, family: bool = False) -> None:
        self.directory = directory
        directory.mkdir()
        self.mark = f"BENCH_RUN={secrets.token_hex(8)}"
        self.pipe = directory / "pipe"
        os.mkfifo(self.pipe)
        # Both ends, so that neither side ever waits for the other to open it.
        self._fd = os.open(self.pipe, os.O_RDWR)
        self.script = directory / "child"
        more = "sleep 100000 &\nsetsid sh -c 'sleep 100000 & exit' \n" if family else ""
        self.script.write_text(f'#!/bin/sh\necho "$1 $$" > {self.pipe}\n{more}exec sleep 100000\n', encoding="utf-8")
        self.script.chmod(0o755)
        self.started: list[Child] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def peer(self, kind: type[Peer], count: int) -> Peer:
        name, _, value = self.mark.partition("=")
        environ = {**os.environ, name: value, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        return kind(self.directory / f"{kind.name}-{count}", self.script, count, environ)

    def wait_for(self, count: int, *, within_s: float = WITHIN_S) -> list[Child]:
        """All that have started, once there are so many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.started) >= count, within_s):
                raise TimeoutError(f"{len(self.started)} of {count} children within {within_s:g} s")
            return list(self.started)

    def processes(self) -> tuple[list[int], list[int]]:
        """Pids of supervisors and of children with all that they started."""
        supervisors, children = [], []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes()
                        mine = command.startswith(b"sleep\0") or str(self.script).encode() in command.split(b"\0")
                        (children if mine else supervisors).append(int(entry.name))
        return supervisors, children

    def kill_everything(self) -> None:
        while pids := [*self.processes()[0], *self.processes()[1]]:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _listen(self) -> None:
        rest = b""
        while True:
            data = os.read(self._fd, 65536)
            at = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            with self._changed:
                for line in lines:
                    number, pid = line.split()
                    self.started.append(Child(number.decode(), int(pid), at))
                self._changed.notify_all()


@contextmanager
def arena(root: Path, name: str, *, family: bool = False) -> Iterator[Arena]:
    made = Arena(root / name, family=family)
    try:
        yield made
    finally:
        made.kill_everything()


def respawn_ms(root: Path, kinds: list[type[Peer]], rounds: int) -> dict[str, list[float]]:
    """From kill -9 to the next child's first line; every child had settled."""
    arenas = {kind.name: Arena(root / f"respawn-{kind.name}") for kind in kinds}
    took: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    try:
        for kind in kinds:
            arenas[kind.name].peer(kind, 1).start()
        for count in range(1, rounds + 1):
            time.sleep(SETTLED_S)
            turn = count % len(kinds)  # the first after the pause finds the CPUs asleep
            for kind in kinds[turn:] + kinds[:turn]:
                name, where = kind.name, arenas[kind.name]
                last = where.wait_for(count)[-1]
                before = time.monotonic()
                os.kill(last.pid, signal.SIGKILL)
                took[name].append((where.wait_for(count + 1)[-1].at - before) * 1000)
    finally:
        for where in arenas.values():
            where.kill_everything()
    return took


def cold_ms(where: Arena, peer: Peer) -> float:
    """From the launch command to the last child's first line."""
    before = time.monotonic()
    peer.start()
    return (where.wait_for(peer.count)[-1].at - before) * 1000


def storm_ms(where: Arena, count: int) -> float:
    """All killed at once, until all are back."""
    time.sleep(SETTLED_S)
    known = where.wait_for(count)
    alive = {child.number: child.pid for child in known}
    before = time.monotonic()
    for pid in alive.values():
        os.kill(pid, signal.SIGKILL)
    return (where.wait_for(len(known) + count)[-1].at - before) * 1000


def cost(where: Arena, settled_s: float, seconds: float) -> tuple[float, float, int]:
    """Idle: percent of one CPU, PSS in MB and number of the supervisor's processes.

    settled_s: how long to let them be first: what is done once after a start is not what idling costs.
    """
    time.sleep(settled_s)
    supervisors, _ = where.processes()
    before = sum(map(_ran_ns, supervisors))
    time.sleep(seconds)
    used_ns = sum(map(_ran_ns, supervisors)) - before
    return used_ns / seconds / 1e7, sum(map(_pss_mb, supervisors)), len(supervisors)


def left_after_stop(root: Path, kind: type[Peer]) -> int:
    """Processes left of three children, each with a child of its own and a daemon, when the supervisor has stopped."""
    with arena(root, f"stop-{kind.name}", family=True) as where:
        peer = where.peer(kind, 3)
        peer.start()
        where.wait_for(3)
        time.sleep(1.0)
        assert len(where.processes()[1]) == 9, "each child has two more processes"
        peer.stop()
        time.sleep(1.0)
        return len(where.processes()[1])


def left_after_crash(root: Path, kind: type[Peer]) -> int:
    """Processes left of a child that was killed, beside those of its successor."""
    with arena(root, f"crash-{kind.name}", family=True) as where:
        where.peer(kind, 1).start()
        time.sleep(SETTLED_S)
        os.kill(where.wait_for(1)[0].pid, signal.SIGKILL)
        where.wait_for(2)
        time.sleep(1.0)
        return len(where.processes()[1]) - 3


def copies_after_kill(root: Path, kind: type[Peer], count: int) -> str:
    """What is there of each child after kill -9 of the supervisor and another start: "one each", or what else."""
    with arena(root, f"kill-{kind.name}") as where:
        peer = where.peer(kind, count)
        peer.start()
        where.wait_for(count)
        time.sleep(1.0)
        peer.kill()
        time.sleep(0.5)
        with suppress(TimeoutError):
            peer.start()
        time.sleep(4.0)
        numbers = {child.pid: child.number for child in where.started}
        copies = Counter(numbers[pid] for pid in where.processes()[1] if pid in numbers)
        lost, doubled = count - len(copies), sum(n > 1 for n in copies.values())
        new = len(where.started) - count
        return f"{lost} lost, {doubled} doubled, {new} new"


def adoption_ms(root: Path, count: int) -> float:
    """How long the next sidecar takes to take over that many agents, of which it is told in its log."""
    with arena(root, "adoption") as where:
        peer = where.peer(Ours, count)
        peer.start()
        where.wait_for(count)
        peer.kill()
        peer.start()
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:  # it listens before its actors have come up
            log = (peer.directory / "log").read_text(encoding="utf-8")
            if (found := re.search(rf"agents adopted count={count} lost=0 took_ms=([0-9.]+)", log)) is not None:
                peer.stop()
                return float(found.group(1))
            time.sleep(0.01)
        raise TimeoutError(f"{count} agents were not taken over within {WITHIN_S:g} s")


BUSY = """
import sys, threading
from sidecar.http.serve import SWITCH_INTERVAL_S
sys.setswitchinterval(SWITCH_INTERVAL_S)
def work():
    while True:
        sum(range(1000))
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
"""


BUSY_AGENTS = 4  # killed in turn: one settles while others die


def busy_respawn_ms(root: Path, rounds: int) -> list[float]:
    """Respawn of ours while four threads of the sidecar's process compute; `rounds` of each agent."""
    where = Arena(root / "busy")
    (root / "busy-storage").mkdir()
    forever = {"restart": "always", "max_restarts": 1_000_000, "restart_window_seconds": 1}
    agents = {f"child-{n}": does(str(where.script), str(n), **forever) for n in range(BUSY_AGENTS)}
    sidecar = DoomedSidecar(root / "busy-storage", tuple(agents), sabotage=BUSY, **agents)
    took = []
    try:
        where.wait_for(BUSY_AGENTS)
        time.sleep(SETTLED_S)
        for count in range(BUSY_AGENTS, (rounds + 1) * BUSY_AGENTS):
            time.sleep(SETTLED_S / (BUSY_AGENTS - 1))
            oldest = where.started[-BUSY_AGENTS]
            before = time.monotonic()
            os.kill(oldest.pid, signal.SIGKILL)
            took.append((where.wait_for(count + 1)[-1].at - before) * 1000)
    finally:
        sidecar.kill()
        for child in where.started[-BUSY_AGENTS:]:
            os.kill(child.pid, signal.SIGKILL)
    return took


def _ran_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def _pss_mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.1f} ({ordered[int(len(ordered) * 0.95)]:.1f})"


def run(quick: bool) -> None:
    """Measure, and print a table."""
    count, rounds, settled_s, idle_s = (10, 5, 1.0, 2.0) if quick else (100, 30, 15.0, 20.0)
    turns, storms_of_each = (1, 1) if quick else (9, 3)  # a cold start is over soon, and what disturbs it is not
    kinds = [kind for kind in PEERS if kind.is_here()]
    console = Console(width=None if sys.stdout.isatty() else 180)
    missing = [kind.name for kind in PEERS if kind not in kinds]
    if missing:
        console.print(f"not installed, not compared: {', '.join(missing)}")
    columns: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-supervision-") as directory:
        root = Path(directory)
        console.print("crash → respawned …")
        for name, took in respawn_ms(root, kinds, rounds).items():
            columns[name] = [_spread(took)]
        starts: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        storms: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        costs: dict[str, tuple[float, float, int]] = {}
        for turn in range(turns):
            # Each turn begins with another: who comes first has what the turn before left to be cleaned up.
            first = turn * len(kinds) // turns
            for kind in (*kinds[first:], *kinds[:first]):
                console.print(f"{count} children, round {turn + 1}: {kind.name} …")
                with arena(root, f"many-{kind.name}-{turn}") as where:
                    starts[kind.name].append(cold_ms(where, where.peer(kind, count)))
                    if turn < storms_of_each:
                        storms[kind.name].append(storm_ms(where, count))
                    if turn == turns - 1:
                        costs[kind.name] = cost(where, settled_s, idle_s)
        for kind in kinds:
            console.print(f"what is left: {kind.name} …")
            percent, pss_mb, processes = costs[kind.name]
            columns[kind.name] += [
                f"{statistics.median(storms[kind.name]):.0f}",
                f"{statistics.median(starts[kind.name]):.0f}",
                f"{percent:.2f}",
                f"{pss_mb:.0f} / {processes}",
                str(left_after_stop(root, kind)),
                str(left_after_crash(root, kind)),
                copies_after_kill(root, kind, 5),
            ]
        busy = busy_respawn_ms(root, rounds)
        adopted = adoption_ms(root, count)
    python = platform.python_version()
    table = Table(title=f"Supervision, {os.cpu_count()} CPUs, Linux {os.uname().release}, Python {python}")
    for title in (
        "",
        "crash → respawned, ms (p95)",
        f"storm of {count}, ms",
        f"{count} from cold, ms",
        f"idle with {count}, % CPU",
        "PSS MB / processes",
        "left after stop, of 9",
        "left after crash, of 2",
        "kill -9 and start again, of 5",
    ):
        table.add_column(title, justify="right" if title else "left")
    for name, cells in columns.items():
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"sidecar, four busy threads in its process: crash → respawned {_spread(busy)} ms (p95)")
    console.print(f"sidecar, {count} agents adopted after kill -9 in {adopted:.0f} ms")
