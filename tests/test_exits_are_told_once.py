"""Several threads wait for the ends of processes: each end is told once, and none is taken for another's."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.supervision.launch import Launch
from sidecar.supervision.process import LogFiles, Prepared, StartedProcess
from sidecar.supervision.process_exit import ExitStatus
from sidecar.supervision.process_exits import Exited, ExitWatcher
from sidecar.supervision.process_identity import is_alive
from tests.fleet import WITHIN_S, wait_until


@contextmanager
def watching(watcher: ExitWatcher) -> Iterator[ExitWatcher]:
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()


def start(directory: Path, script: str) -> StartedProcess:
    logs = LogFiles(directory / "out", directory / "err")
    try:
        return Prepared(Launch(argv=("sh", "-c", script), env=dict(os.environ), cwd=str(directory)), logs).start()
    finally:
        logs.close()


def test_every_end_is_told_once_with_its_own_status(tmp_path: Path) -> None:
    """Each process is followed by another as soon as its end is told, so that descriptors and pids come again."""
    chains, lives = 6, 40
    exits: list[Exited] = []

    def follow(exited: Exited) -> None:
        exits.append(exited)
        if exited.incarnation < lives:
            begin(exited.agent_id, exited.incarnation + 1)

    def begin(chain: str, life: int) -> None:
        watcher.watch(chain, life, start(tmp_path, f"exit {life}"))

    with watching(ExitWatcher(follow)) as watcher:
        for number in range(chains):
            begin(str(number), 1)
        wait_until(lambda: len(exits) >= chains * lives)
    told = sorted((exited.agent_id, exited.incarnation, exited.status) for exited in exits)
    assert told == [(str(n), life, ExitStatus(exit_code=life)) for n in range(chains) for life in range(1, lives + 1)]


class OneIsLate(ExitWatcher):
    """All of its threads wake for an end before any of them may look; one may only when it is let."""

    def __init__(self, on_exit: Callable[[Exited], None]) -> None:
        super().__init__(on_exit)
        self.let_it = threading.Event()
        self.has_woken = threading.Event()

    def _wait(self, untold: list[object]) -> list[tuple[int, int]]:  # type: ignore[override]
        ready = super()._wait(untold)  # type: ignore[arg-type]
        if ready and not self.let_it.is_set():
            if threading.current_thread() is self._threads[0]:
                self.has_woken.set()
                self.let_it.wait(WITHIN_S)
            else:
                self.has_woken.wait(WITHIN_S)
        return ready


def test_a_thread_that_is_late_does_not_take_another_process_for_the_one_that_ended(tmp_path: Path) -> None:
    """It would kill it: the group of an agent that ended is killed."""
    exits: list[Exited] = []
    watcher = OneIsLate(exits.append)
    with watching(watcher):
        ended = start(tmp_path, "exit 3")
        watcher.watch("first", 1, ended)
        wait_until(lambda: exits)
        fifo = tmp_path / "tell"
        os.mkfifo(fifo)
        heir = start(tmp_path, f"read told < {fifo}; exit 7")
        assert heir.pidfd == ended.pidfd, "the descriptor's number is not used again"
        watcher.watch("second", 1, heir)
        watcher.let_it.set()
        subprocess.run(["sh", "-c", f"echo now > {fifo}"], check=True, timeout=WITHIN_S)
        wait_until(lambda: len(exits) == 2)
    assert [(e.agent_id, e.status) for e in exits] == [
        ("first", ExitStatus(exit_code=3)),
        ("second", ExitStatus(exit_code=7)),
    ]


def test_what_ended_just_before_the_watcher_stops_is_told(tmp_path: Path) -> None:
    """Its successor runs already, and would be nobody's."""

    class Heir:
        def restart(self, status: ExitStatus, at: float) -> str:
            succeeded.set()
            return f"a successor of {status} at {at > 0}"

        def close(self) -> None:
            pass

    exits: list[Exited[str]] = []
    succeeded = threading.Event()
    watcher = ExitWatcher(exits.append)
    with watching(watcher):
        fifo = tmp_path / "tell"
        os.mkfifo(fifo)
        process = start(tmp_path, f"read told < {fifo}; exit 1")
        watcher.watch("agent", 1, process)
        watcher.prepare(process, Heir())
        subprocess.run(["sh", "-c", f"echo now > {fifo}"], check=True, timeout=WITHIN_S)
        assert succeeded.wait(WITHIN_S)
    assert [exited.restart for exited in exits] == [f"a successor of {ExitStatus(exit_code=1)} at True"]


def test_a_watcher_that_stops_leaves_what_it_watched_running(tmp_path: Path) -> None:
    with watching(ExitWatcher(lambda exited: pytest.fail(f"told of {exited}"))) as watcher:
        process = start(tmp_path, "exec sleep 600")
        watcher.watch("agent", 1, process)
    assert is_alive(process.identity)
    os.kill(process.identity.pid, 9)
    os.waitpid(process.identity.pid, 0)
