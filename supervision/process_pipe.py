"""A helper process for work that must not block the sidecar's interpreter, with frames in and out through pipes.

It ends when its input ends, so it cannot outlive the sidecar, however that dies.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import IO

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 1024 * 1024
_END_WITHIN_S = 2.0


class PipeClosed(Exception):
    """The other side is gone."""


class PipedProcess:
    """Runs `main` of one of our modules in a separate process. One thread may read; any thread may write.

    module: its dotted name; what it prints goes to the sidecar's own standard error. Raises OSError when the process
    cannot be started.
    """

    def __init__(self, module: str) -> None:
        # -P and absolute entries only: a module lying in the project's folder must never be imported.
        entries = [entry for entry in sys.path if Path(entry).is_absolute()]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {module} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entries)},
            start_new_session=True,  # Ctrl-C is for the sidecar; it closes the pipes when it is done
        )
        self._writing = threading.Lock()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def write(self, frame: bytes) -> None:
        """Raises PipeClosed."""
        stdin = self._process.stdin
        assert stdin is not None
        with self._writing:
            write_frame(stdin, frame)

    def read(self) -> bytes:
        """The next frame, waiting for it. Raises PipeClosed when the process has ended."""
        assert self._process.stdout is not None
        return read_frame(self._process.stdout)

    def close(self) -> None:
        """End the process: close its input, and kill it if it does not exit."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # it died with a frame half written
            self._process.stdin.close()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_WITHIN_S)
        finally:
            self._process.stdout.close()


def write_frame(stream: IO[bytes], frame: bytes) -> None:
    """Raises PipeClosed."""
    try:
        stream.write(_LENGTH.pack(len(frame)) + frame)
        stream.flush()
    except (OSError, ValueError) as error:
        raise PipeClosed from error


def read_frame(stream: IO[bytes] | RawIOBase) -> bytes:
    """Raises PipeClosed at the end of the stream, also in the middle of a frame."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise PipeClosed
    return _exactly(stream, length)


def _exactly(stream: IO[bytes] | RawIOBase, wanted: int) -> bytes:
    parts = []
    while wanted:
        try:
            part = stream.read(wanted)
        except (OSError, ValueError) as error:
            raise PipeClosed from error
        if not part:
            raise PipeClosed
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)
