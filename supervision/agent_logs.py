"""AgentLogs: the output of agents, in files that they write themselves; read by offset, limited without losing a
line.

No pipe and no copy: an agent outlives the sidecar and still logs. A file keeps only its newest bytes: a hole is
punched in front of them, which removes nothing that is being written and leaves every offset unchanged.
"""

from __future__ import annotations

import codecs
import ctypes
import errno
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

log = logging.getLogger(__name__)

Stream = Literal["stdout", "stderr"]
_STREAMS: tuple[Stream, ...] = ("stdout", "stderr")

MAX_READ_BYTES = 1 << 20
MAX_LINE_BYTES = 4096  # of a line; the end or start of a longer one is not awaited or searched
_BLOCK = 4096
_TAIL_STEP = 64 << 10
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # fallocate(2)


class Chunk(msgspec.Struct, frozen=True):
    """Bytes of a log from `offset` on. at_end: there were no more."""

    data: bytes
    offset: int
    at_end: bool

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)

    @property
    def has_line(self) -> bool:
        """Whether a line ends in the chunk, or is too long to wait for its end."""
        return b"\n" in self.data or len(self.data) > MAX_LINE_BYTES

    def of_at_most(self, count: int) -> Chunk:
        """Its first `count` bytes."""
        if len(self.data) <= count:
            return self
        return msgspec.structs.replace(self, data=self.data[:count], at_end=False)

    def of_whole_lines(self) -> Chunk:
        """The chunk without an unfinished last line; all of it if no line ends in it."""
        end = self.data.rfind(b"\n") + 1
        if end in (0, len(self.data)):
            return self
        return msgspec.structs.replace(self, data=self.data[:end], at_end=False)

    def of_whole_characters(self) -> Chunk:
        """The chunk without an incomplete UTF-8 character at its end, the rest of which may still come."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self.data[-3:])  # one lacks its end with at most three bytes
        begun, _ = decoder.getstate()
        return msgspec.structs.replace(self, data=self.data.removesuffix(begun))


class AgentLogs:
    """The logs under one directory: two files an agent, named by its serial number. max_bytes: of each stream."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self.max_bytes = max_bytes
        self._can_punch = True
        self._deleted: set[int] = set()
        self._paths: dict[tuple[int, Stream], Path] = {}
        self._written_at: dict[tuple[int, Stream], int] = {}  # when last, at the end of an incarnation; nanoseconds
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, serial: int, stream: Stream) -> Path:
        known = self._paths.get((serial, stream))
        if known is None:
            known = self._paths[serial, stream] = Path(f"{self._directory}/{serial:06d}.{stream}.log")
        return known

    def serial_of(self, pid: int) -> int | None:
        """The serial of the agent whose log is this process's standard output; None if unknown."""
        try:
            path = Path(os.readlink(f"/proc/{pid}/fd/1"))  # noqa: PTH115  # an entry of /proc, not a path of ours
        except OSError:
            return None
        serial = path.name.partition(".")[0]
        return int(serial) if path.parent == self._directory.resolve() and serial.isdigit() else None

    def read(self, serial: int, stream: Stream, offset: int) -> Chunk:
        """Read from `offset` on, at most MAX_READ_BYTES; from a later offset if those bytes are gone. Empty if there
        is nothing.

        From the start if the log is shorter than `offset`, because its writer has cut it.
        """
        with _opened(self.path(serial, stream)) as fd:
            if fd is None:
                return Chunk(b"", offset, True)
            size = os.fstat(fd).st_size
            begin = _first_data(fd, offset if offset <= size else 0, size)
            data = os.pread(fd, MAX_READ_BYTES, begin)
            return Chunk(data, begin, begin + len(data) >= size)

    def line_before(self, serial: int, stream: Stream, offset: int) -> bytes:
        """The beginning of the line that `offset` stands in, its newest MAX_LINE_BYTES; empty where a line begins."""
        with _opened(self.path(serial, stream)) as fd:
            if fd is None or offset <= 0:
                return b""
            begin = max(0, offset - MAX_LINE_BYTES)
            before = os.pread(fd, offset - begin, begin)
            return before[max(before.rfind(b"\n"), before.rfind(b"\0")) + 1 :]  # NUL: given back

    def tail(self, serial: int, stream: Stream, lines: int, *, since: int = 0, until: int | None = None) -> Chunk:
        """The last whole lines from offset `since` on, at most MAX_READ_BYTES of them. A last line without its end
        counts as one. until: the offset before which they end; None: where the log ends now. A log that its writer has
        cut since `since` is taken from its start, and one cut since `until` has nothing left of what stood before."""
        with _opened(self.path(serial, stream)) as fd:
            if fd is None:
                return Chunk(b"", 0, True)
            found = os.fstat(fd)
            end = found.st_size if until is None else until if until <= found.st_size else 0
            if since > end or (until is None and since == end and self._is_written_since_note(serial, stream, found)):
                since = 0
            oldest = max(_first_data(fd, since, end), end - MAX_READ_BYTES)
            data, begin = b"", end
            while begin > oldest and data.rstrip(b"\n").count(b"\n") < lines:
                step = min(_TAIL_STEP, begin - oldest)
                begin -= step
                data = os.pread(fd, step, begin) + data
            # Only \n ends a line: a progress bar draws one line with many \r.
            ended = data.endswith(b"\n")
            first, *others = data.removesuffix(b"\n").split(b"\n")
            # What is before `begin` was given back, or not read: the first is a part of a line. It may be all there is.
            whole = others if begin > since and others else [first, *others]
            kept = b"\n".join(whole[-lines:]) if lines > 0 else b""
            kept += b"\n" if ended and lines > 0 else b""
            return Chunk(kept, end - len(kept), True)

    def last_lines(
        self, serial: int, lines: int, *, since: tuple[int, int], until: tuple[int, int] | None = None
    ) -> tuple[str, ...]:
        """The last lines of an agent: of stderr, or of stdout if stderr is empty. Secrets are not redacted yet.

        since: where an incarnation's stdout and stderr start. until: where those of the next start, if there is one.
        """
        streams: tuple[tuple[Stream, int], ...] = (("stderr", 1), ("stdout", 0))
        for stream, place in streams:
            end = None if until is None else until[place]
            said = self.tail(serial, stream, lines, since=since[place], until=end).data.decode("utf-8", "replace")
            if said.strip():
                return tuple(said.removesuffix("\n").split("\n"))
        return ()

    def note_end(self, serial: int) -> None:
        """Note that an incarnation has ended: later output belongs to the next one."""
        for stream in _STREAMS:
            with suppress(FileNotFoundError):
                self._written_at[serial, stream] = self.path(serial, stream).stat().st_mtime_ns

    def _is_written_since_note(self, serial: int, stream: Stream, found: os.stat_result) -> bool:
        """Then a log that is as long as before was cut: the same complaint at each start, by `> /dev/stderr`."""
        return self._written_at.get((serial, stream), found.st_mtime_ns) != found.st_mtime_ns

    def bound(self, serials: Iterable[int], *, max_bytes: int | None = None) -> None:
        """Free the disk space of everything older than the newest `max_bytes` of each stream."""
        for serial in serials:
            for stream in _STREAMS:
                if self._can_punch:
                    self._bound(self.path(serial, stream), self.max_bytes if max_bytes is None else max_bytes)

    def bound_running(self, serial: int) -> int:
        """Limit the logs of one agent while it writes. Returns the size of both streams on disk before.

        Records a log that was deleted.
        """
        size = 0
        for stream in _STREAMS:
            try:
                # Ten times a second for each agent, and Path.stat costs half as much again.
                size += os.stat(self.path(serial, stream)).st_blocks * 512  # noqa: PTH116
            except FileNotFoundError:
                if serial not in self._deleted:
                    self._deleted.add(serial)
                    log.warning(
                        "log file was deleted, what its agent writes is lost path=%s", self.path(serial, stream)
                    )
        if size > self.max_bytes:
            self.bound([serial])
        return size

    def take_deleted(self, serial: int) -> bool:
        """Whether a log of this running agent was found deleted since it was last opened. The call resets this."""
        if serial not in self._deleted:
            return False
        self._deleted.discard(serial)
        return True

    def remove(self, serial: int) -> bool:
        """Delete an agent's logs. Returns whether there were any."""
        there_were_any = False
        for stream in _STREAMS:
            try:
                self.path(serial, stream).unlink()
                there_were_any = True
            except FileNotFoundError:
                pass  # it was never started, or its logs were deleted when the disk was short of space
            self._paths.pop((serial, stream), None)
            self._written_at.pop((serial, stream), None)
        return there_were_any

    def free_bytes(self) -> int:
        """The free space of the logs' file system."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def _bound(self, path: Path, max_bytes: int) -> None:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return
        # st_blocks are 512 bytes. A quarter over the bound before anything is done: one call per many writes.
        if stat.st_blocks * 512 <= max_bytes * 5 // 4:
            return
        end = (stat.st_size - max_bytes) // _BLOCK * _BLOCK
        if end <= 0:
            return
        try:
            _punch(path, end)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                log.warning("log could not be bounded path=%s: %s", path, error)
                return
            # Cutting under a running writer loses lines (copy-truncate does); a long log is the lesser harm.
            self._can_punch = False
            log.warning("this file system cannot punch holes: logs grow without bound directory=%s", self._directory)


class _opened:  # noqa: N801  # used like a function
    """An open descriptor for reading, or None where there is no file yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> int | None:
        with suppress(FileNotFoundError):
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)


def _first_data(fd: int, offset: int, size: int) -> int:
    """The first offset from there on that was not given back; the end if there is none."""
    if offset >= size:
        return size
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:  # a file system without holes
            return offset
        raise


def _punch(path: Path, end: int) -> None:
    """Free the blocks of [0, end). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate"):
        raise OSError(errno.ENOSYS, "no fallocate")
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(end)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
