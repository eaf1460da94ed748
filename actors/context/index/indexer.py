"""The indexing process: reads and tokenises projects, ranks their files, cuts excerpts. One loop.

It is a process of its own because tokenising 20 MB keeps an interpreter busy for more than a second. It reads a few
files, answers a question if one has come, and reads on.
"""

from __future__ import annotations

import gc
import os
import select
import time
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from ....supervision.process_pipe import PipeClosed, read_frame, write_frame
from ..changes import read_log
from ..definitions import names_defined
from ..excerpts import blocks_of
from ..file_text import Unsent, bytes_to_read, raw_text, read_text
from ..git.git import GitUnavailable
from ..git.repository import History
from ..kinds import is_code, language_of
from ..ranking import Corpus, task_of
from ..safe_root import NotReadable, Root, Stamp
from ..secrets.names import is_secret_path
from ..words import QueryTerms, count_runs
from .messages import (
    MAX_RANKED,
    Blocks,
    Cut,
    FileBlocks,
    Forget,
    Know,
    Look,
    Rank,
    Ranking,
    ToIndexer,
    decode_question,
    encode,
)

HISTORY = 2000  # commits; 160 ms of git in a repository of 35,000
SLICE_S = 0.02  # how long a question may have to wait behind indexing
FEW = 64  # up to this number of files are read before a ranking, instead of after it
MAX_INDEXED = 100_000  # files of all projects together; beyond, the project used longest ago is forgotten


class IndexedProject:
    """One project's corpus, and the list of files that have still to be read."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.corpus = Corpus()
        self.stamps: dict[str, Stamp | None] = {}
        self.unread: deque[str] = deque()
        self._history_of: tuple[str | None, tuple[str, str] | None] = (None, None)
        self._max_file_bytes = 0
        self._history: Future[list[tuple[str, tuple[str, ...]]]] | None = None

    @property
    def size(self) -> int:
        return len(self.stamps)

    def know(self, told: Know) -> None:
        """Forget files that are gone; new and changed files wait to be read."""
        self._max_file_bytes = told.max_file_bytes
        listed = frozenset(told.files)
        for path in [path for path in self.stamps if path not in listed]:
            self.corpus.remove(path)
            del self.stamps[path]
        self.unread = deque(self._changed(told.files))
        if (told.head, told.history) != self._history_of:
            self._history_of = (told.head, told.history)
            self._read_history(told.head, told.history)

    def look(self, files: list[str]) -> None:
        waiting = frozenset(self.unread)
        known = [path for path in files if path in self.stamps and path not in waiting]
        self.unread.extend(self._changed(known))

    def _changed(self, paths: list[str]) -> list[str]:
        new = [path for path in paths if path not in self.stamps]
        known = [path for path in paths if path in self.stamps]
        with Root(Path(self.root)) as root:
            for path, found in zip(known, root.states(known), strict=True):
                if self.stamps[path] != (None if isinstance(found, str) else found):
                    new.append(path)
        return new

    @property
    def is_ready(self) -> bool:
        """Whether so few files are unread that they can be read before a question is answered."""
        return len(self.unread) <= FEW and (self._history is None or self._history.done())

    def _read_history(self, head: str | None, history: tuple[str, str] | None) -> None:
        """Let git look for past commits while files are read."""
        if self._history is not None:
            self._history.cancel()
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="context-history")
        self._history = pool.submit(_past_commits, head, history)
        pool.shutdown(wait=False)  # the thread ends with this

    def wait_for_history(self, timeout_s: float) -> bool:
        """Wait a little for git, if it is still reading the history. Returns whether it was still reading."""
        if self._history is None or self._history.done():
            return False
        wait((self._history,), timeout_s)
        return True

    def _take_history(self) -> None:
        if self._history is not None and self._history.done():
            self.corpus.put_history(self._history.result())
            self._history = None

    def read_some(self, until: float) -> None:
        """Read files that wait, at least one, until monotonic time `until` (seconds)."""
        with Root(Path(self.root)) as root:
            while self.unread:
                self._read(root, self.unread.popleft())
                if time.monotonic() >= until:
                    return

    def _read(self, root: Root, path: str) -> None:
        try:
            if is_secret_path(path):
                raise NotReadable("secret")
            data, stamp = root.read(path, bytes_to_read(path, self._max_file_bytes))
        except NotReadable:
            self.stamps[path] = None
            self.corpus.remove(path)
            return
        self.stamps[path] = stamp
        found = raw_text(data, path=path, max_bytes=self._max_file_bytes)
        if isinstance(found, Unsent):
            self.corpus.put(path, {}, (), stamp.size)  # a task may still mean it by its name
            return
        language = language_of(path)
        text = found.text[: found.length]
        defined = names_defined(text, language) if is_code(language) else ()
        self.corpus.put(path, count_runs(text), defined, stamp.size)

    def rank(self, asked: Rank) -> Ranking:
        if not self.is_ready:
            return Ranking(asked.number, False, [])
        self._take_history()
        self.read_some(time.monotonic() + SLICE_S * 5)
        ranked = self.corpus.rank(task_of(asked.query), seeds=asked.seeds, dirty=asked.dirty, limit=MAX_RANKED)
        return Ranking(asked.number, True, [(one.path, one.score, one.why) for one in ranked])

    def cut(self, asked: Cut) -> Blocks:
        task = task_of(asked.query)
        weights = {term: times * self.corpus.texts.weight_of(term) for term, times in task.terms.items()}
        terms = QueryTerms(weights)
        found = []
        with Root(Path(self.root)) as root:
            for path in asked.files:
                try:
                    data, stamp = root.read(path, bytes_to_read(path, self._max_file_bytes))
                except NotReadable:
                    continue
                text = read_text(data, path=path, max_bytes=self._max_file_bytes)
                if not isinstance(text, Unsent):
                    blocks = blocks_of(text.text, language_of(path), weights, terms)
                    found.append(FileBlocks(path, stamp, list(blocks)))
        return Blocks(asked.number, found)


def _past_commits(head: str | None, history: tuple[str, str] | None) -> list[tuple[str, tuple[str, ...]]]:
    if head is None or history is None:
        return []
    git_dir, prefix = history
    try:
        output = History(Path(git_dir), prefix).log(head, limit=HISTORY, skip_merges=True)
    except GitUnavailable as error:
        output = error.output  # what git could read
    return [(commit.message, commit.files) for commit in read_log(output, prefix)]


class Indexer:
    """All projects of the process, the one used last at the end."""

    def __init__(self) -> None:
        self._projects: OrderedDict[str, IndexedProject] = OrderedDict()

    def answer(self, question: ToIndexer) -> Ranking | Blocks | None:
        """The reply to a question; None for a notice."""
        try:
            return self._answer(question)
        except OSError:  # the project's folder is gone: nothing in it can be ranked
            self._projects.pop(question.root, None)
            return self._answer(question) if isinstance(question, Rank | Cut) else None

    def _answer(self, question: ToIndexer) -> Ranking | Blocks | None:
        match question:
            case Know(root=root):
                project = self._projects.setdefault(root, IndexedProject(root))
                self._projects.move_to_end(root)
                project.know(question)
                self._stay_small()
            case Look(root=root, files=files):
                if root in self._projects:
                    self._projects[root].look(files)
            case Forget(root=root):
                self._projects.pop(root, None)
            case Rank(number=number, root=root):
                if root not in self._projects:
                    return Ranking(number, False, [])
                self._projects.move_to_end(root)
                return self._projects[root].rank(question)
            case Cut(number=number, root=root):
                return self._projects[root].cut(question) if root in self._projects else Blocks(number, [])
        return None

    def work(self) -> bool:
        """Index a little; False when nothing waits. The project asked for last goes first."""
        for project in reversed(list(self._projects.values())):
            if project.unread:
                try:
                    project.read_some(time.monotonic() + SLICE_S)
                except OSError:
                    del self._projects[project.root]
                return True
        return any(project.wait_for_history(SLICE_S) for project in self._projects.values())

    def _stay_small(self) -> None:
        while len(self._projects) > 1 and sum(project.size for project in self._projects.values()) > MAX_INDEXED:
            self._projects.popitem(last=False)


def main() -> None:
    """Answer questions on standard input until it ends."""
    gc.disable()  # no object here is part of a cycle, and the collector would take a tenth of the time
    with suppress(OSError):
        os.nice(5)  # a request in the sidecar goes before the index
    # Only frames go to standard output, whatever a library prints.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Unbuffered: `select` does not see bytes that Python has already read into a buffer.
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    indexer = Indexer()
    has_work = False
    with suppress(PipeClosed):
        while True:
            if not has_work or select.select([source], [], [], 0)[0]:
                answer = indexer.answer(decode_question(read_frame(source)))
                if answer is not None:
                    write_frame(output, encode(answer))
            has_work = indexer.work()
