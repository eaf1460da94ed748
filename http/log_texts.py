"""LogTexts: makes text without secrets of logs, in one thread of its own.

A log that is all words like `password=` takes a second a megabyte: in the I/O thread it would hold up every
connection, and in the workers, eight at a time, every other request. So it is done piece by piece, and readers take
turns: one with many requests waits for itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from os.path import commonprefix

import msgspec

from ..actors.replies import LogChunk
from ..actors.runtime.asking import Later
from .access.limits import Owner

Read = Callable[[], LogChunk]


class LogExcerpt(msgspec.Struct, frozen=True):
    """A piece of a log as it may be shown."""

    chunk: LogChunk
    text: str


class LogTexts:
    """Makes pieces of logs readable, reader by reader in turn.

    Used by every request thread. The thread lives as long as there is something to do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Owner, deque[tuple[Read, Later[LogExcerpt]]]] = OrderedDict()
        self._is_running = False

    def of(self, reader: Owner, read: Read) -> Later[LogExcerpt]:
        """The text of what `read` returns. It is called at the reader's turn, so no piece waits in memory."""
        later: Later[LogExcerpt] = Later()
        self._put(reader, read, later)
        return later

    def of_later(self, reader: Owner, chunk: Later[LogChunk]) -> Later[LogExcerpt]:
        """The text of a chunk that has not come yet. Cancelling the one cancels the other."""
        later: Later[LogExcerpt] = Later()
        later.add_done_callback(lambda _: chunk.cancel())
        chunk.add_done_callback(lambda done: self._put(reader, done.result, later))
        return later

    def _put(self, reader: Owner, read: Read, later: Later[LogExcerpt]) -> None:
        if later.done():
            return
        with self._lock:
            self._waiting.setdefault(reader, deque()).append((read, later))
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="log-texts", daemon=True).start()

    def _run(self) -> None:
        while (next_ := self._next()) is not None:
            read, later = next_
            if later.done():
                continue
            try:
                chunk = read()
                later.answer(LogExcerpt(chunk, _without_secrets(chunk)))
            except Exception as error:  # noqa: BLE001  # the requester gets it
                later.refuse(error)

    def _next(self) -> tuple[Read, Later[LogExcerpt]] | None:
        """The oldest request of the reader that has waited longest since its last one."""
        with self._lock:
            if not self._waiting:
                self._is_running = False
                return None
            reader, requests = self._waiting.popitem(last=False)
            if len(requests) > 1:
                self._waiting[reader] = requests
            return requests.popleft()


def _without_secrets(chunk: LogChunk) -> str:
    """The log's text with its secrets replaced, also a secret that began before this chunk."""
    from ..actors.context.secrets.redaction import redact  # its rules take longer to make than a start should

    before, text = (data.decode("utf-8", errors="replace") for data in (chunk.line_before, chunk.data))
    if not before:
        return redact(text)[0]
    shown, whole = redact(before)[0], redact(before + text)[0]
    return whole[len(commonprefix([shown, whole])) :]  # noqa: RUF071  # of texts, not of paths
