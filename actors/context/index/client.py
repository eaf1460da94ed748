"""The sidecar's side of indexing: sends lists of files to the indexing process, and asks it to rank them.

Small projects are indexed in this process. No context depends on an index: while the indexing process is starting, busy
or dead, it gives no answer, and contexts are built from file names alone.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import SimpleQueue
from typing import Protocol, TypeVar

from ....supervision.process_pipe import PipeClosed, PipedProcess
from .indexer import Indexer
from .messages import (
    Blocks,
    Cut,
    Forget,
    Know,
    Look,
    Rank,
    Ranking,
    ToIndexer,
    decode_answer,
    encode,
)

log = logging.getLogger(__name__)

_MODULE = f"{__package__}.indexer"
START_AGAIN_S = 5.0  # after the process died
A = TypeVar("A", Ranking, Blocks)


class Index(Protocol):
    """The part of an index that a build needs."""

    @property
    def is_starting(self) -> bool: ...
    def knows(self, root: str) -> bool: ...
    def needs(self, root: str, version: str) -> bool: ...
    def know(self, told: Know, version: str) -> None: ...
    def look(self, root: str, files: list[str]) -> None: ...
    def rank(
        self, root: str, query: str, seeds: list[str], dirty: list[str], *, timeout_s: float
    ) -> Ranking | None: ...
    def cut(self, root: str, query: str, files: list[str], *, timeout_s: float) -> Blocks | None: ...


class NearIndex:
    """The index of one small project, in this process: faster than a question to another process. For one thread."""

    is_starting = False

    def __init__(self) -> None:
        self._indexer = Indexer()
        self._version = ""

    def knows(self, root: str) -> bool:  # noqa: ARG002 - it has one root
        return True  # `know` is called before the first question

    def needs(self, root: str, version: str) -> bool:  # noqa: ARG002 - it has one root
        return version != self._version

    def know(self, told: Know, version: str) -> None:
        self._version = version
        self._indexer.answer(told)

    def look(self, root: str, files: list[str]) -> None:
        self._indexer.answer(Look(root, files))

    def rank(self, root: str, query: str, seeds: list[str], dirty: list[str], *, timeout_s: float) -> Ranking | None:
        deadline = time.monotonic() + timeout_s
        while self._indexer.work() and time.monotonic() < deadline:
            continue
        found = self._indexer.answer(Rank(0, root, query, seeds, dirty))
        return found if isinstance(found, Ranking) else None

    def cut(self, root: str, query: str, files: list[str], *, timeout_s: float) -> Blocks | None:  # noqa: ARG002
        found = self._indexer.answer(Cut(0, root, query, files))
        return found if isinstance(found, Blocks) else None


class IndexClient:
    """The connection to the indexing process, for any thread. The first `know` starts the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: PipedProcess | None = None
        self._asked: dict[int, Future[Ranking | Blocks]] = {}
        self._numbers = itertools.count(1)
        self._told: dict[str, str] = {}
        self._not_before = 0.0
        self._closed = False
        self._has_answered = False
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()

    def knows(self, root: str) -> bool:
        """Whether the running process, if there is one, knows a project."""
        return root in self._told

    def needs(self, root: str, version: str) -> bool:
        """Whether this version of a project has still to be sent to the running process, or to the next one."""
        return self._told.get(root) != version

    def know(self, told: Know, version: str) -> None:
        """Send the list of a project's files."""
        with self._lock:
            if self._send(told):
                self._told[told.root] = version

    def look(self, root: str, files: list[str]) -> None:
        """Send the names of files of a known project that may have changed."""
        with self._lock:
            if root in self._told:
                self._send(Look(root, files))

    def forget(self, root: str) -> None:
        with self._lock:
            if self._told.pop(root, None) is not None:
                self._send(Forget(root))

    def rank(self, root: str, query: str, seeds: list[str], dirty: list[str], *, timeout_s: float) -> Ranking | None:
        """The project's files for a task, best first; None if no answer came in time."""
        if root not in self._told:
            return None
        return self._ask(lambda number: Rank(number, root, query, seeds, dirty), Ranking, timeout_s)

    def cut(self, root: str, query: str, files: list[str], *, timeout_s: float) -> Blocks | None:
        """The blocks of files, with how well they fit a task; None if no answer came in time."""
        if root not in self._told:
            return None
        return self._ask(lambda number: Cut(number, root, query, files), Blocks, timeout_s)

    @property
    def is_starting(self) -> bool:
        """Whether the process has not answered yet, but may soon: it is starting, or the next `know` starts it."""
        if self._process is None:
            return not self._closed and time.monotonic() >= self._not_before
        return not self._has_answered

    def close(self) -> None:
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
            self._outbox.put(None)
        if process is not None:
            process.close()

    def process_id(self) -> int | None:
        with self._lock:
            return self._process.process_id if self._process is not None else None

    def _ask(self, question: Callable[[int], Rank | Cut], kind: type[A], timeout_s: float) -> A | None:
        answer: Future[Ranking | Blocks] = Future()
        with self._lock:
            number = next(self._numbers)
            self._asked[number] = answer
            if not self._send(question(number)):
                del self._asked[number]
                return None
        if not self._has_answered:  # the process is starting, which takes longer than a caller should wait
            self._asked.pop(number, None)
            return None
        try:
            found = answer.result(timeout_s)
        except (FutureTimeout, PipeClosed):
            return None
        finally:
            self._asked.pop(number, None)
        return found if isinstance(found, kind) else None

    def _send(self, message: ToIndexer) -> bool:
        """Send a message; called under the lock. False if there is no process."""
        process = self._process or self._start()
        if process is None:
            return False
        self._outbox.put(encode(message))
        return True

    def _start(self) -> PipedProcess | None:
        if self._closed or time.monotonic() < self._not_before:
            return None
        self._not_before = time.monotonic() + START_AGAIN_S
        try:
            self._process = PipedProcess(_MODULE)
        except OSError as error:
            log.error("indexer not started: %s", error)
            return None
        self._told.clear()
        self._has_answered = False
        self._outbox = SimpleQueue()
        # A pipe to a busy process takes 64 KiB at a time: no caller should wait for that.
        threading.Thread(
            target=_write, args=(self._process, self._outbox), name="context-index-out", daemon=True
        ).start()
        threading.Thread(target=self._read, args=(self._process,), name="context-index", daemon=True).start()
        return self._process

    def _read(self, process: PipedProcess) -> None:
        while True:
            try:
                answer = decode_answer(process.read())
            except PipeClosed:
                break
            self._has_answered = True
            waiting = self._asked.get(answer.number)
            if waiting is not None:
                waiting.set_result(answer)
        with self._lock:
            if self._process is not process:
                return
            self._process = None
            self._told.clear()
            self._outbox.put(None)
            held = list(self._asked.values())
            self._asked.clear()
        log.warning("indexer ended process_id=%d", process.process_id)
        for waiting in held:
            waiting.set_exception(PipeClosed())
        process.close()


def _write(process: PipedProcess, outbox: SimpleQueue[bytes | None]) -> None:
    while (frame := outbox.get()) is not None:
        try:
            process.write(frame)
        except PipeClosed:
            return  # the reading thread sees the end too, and lets the next process start
