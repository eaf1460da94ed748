"""System calls that keep the GIL. They return at once. `os` would release the GIL, and in a busy process it takes
milliseconds to get it back, between an agent's death and its next start.
"""

from __future__ import annotations

import ctypes
import os

# PyDLL, unlike CDLL, does not release the GIL around a call.
library = ctypes.PyDLL(None)
library.lseek.restype = ctypes.c_int64
library.lseek.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int)
library.open.argtypes = (ctypes.c_char_p, ctypes.c_int)
library.read.restype = ctypes.c_ssize_t
library.read.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
library.write.restype = ctypes.c_ssize_t
library.write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)

_EPOLL_CTL_DEL = 2
_SMALL_BYTES = 1024  # /proc/PID/stat has about 300


def end_of(fd: int) -> int:
    """The length of the file."""
    return int(library.lseek(fd, 0, os.SEEK_END))


def next_descriptor() -> int:
    """Roughly the descriptor number of the next opened file."""
    fd = int(library.dup(0))
    library.close(fd)
    return fd


class _Child(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_int), ("uid", ctypes.c_uint), ("status", ctypes.c_int))


class _SigInfo(ctypes.Structure):
    """siginfo_t of Linux for SIGCHLD; what is of a child begins where a pointer might."""

    _fields_ = (
        *(("signo", ctypes.c_int), ("errno", ctypes.c_int), ("code", ctypes.c_int)),
        *(("aligned", ctypes.c_void_p * 0), ("child", _Child), ("rest", ctypes.c_byte * 128)),
    )


def end_of_child(pid: int) -> tuple[int, int] | None:
    """si_code and si_status of a child of ours that has ended and stays a zombie; None while it runs. Linux only.

    Raises ChildProcessError when it is not our child, or when someone else reaped it.
    """
    info = _SigInfo()
    if library.waitid(os.P_PID, pid, ctypes.byref(info), os.WEXITED | os.WNOHANG | os.WNOWAIT) < 0:
        raise ChildProcessError(f"process {pid} is not our child")
    return (info.code, info.child.status) if info.child.pid else None


def waited(pid: int) -> int | None:
    """The status of a child of ours that has ended, which the kernel then forgets; None while it runs.

    Raises ChildProcessError when it is not our child, or when someone else reaped it.
    """
    status = ctypes.c_int()
    done = library.waitpid(pid, ctypes.byref(status), os.WNOHANG)
    if done < 0:
        raise ChildProcessError(f"process {pid} is not our child")
    return None if done == 0 else status.value


def watch_no_more(epoll: int, fd: int) -> None:
    """Take a descriptor out of an epoll set."""
    library.epoll_ctl(epoll, _EPOLL_CTL_DEL, fd, None)


def read_small(path: str) -> bytes | None:
    """The first 1 KiB of a file of /proc, which the kernel makes in memory; None if it cannot be read."""
    fd = library.open(path.encode(), os.O_RDONLY | os.O_CLOEXEC)
    if fd < 0:
        return None
    data = ctypes.create_string_buffer(_SMALL_BYTES)
    length = library.read(fd, data, _SMALL_BYTES)
    library.close(fd)
    return bytes(memoryview(data)[:length]) if length >= 0 else None


def write_small(path: str, data: bytes) -> bool:
    """Write to a file of /proc. Returns whether that worked."""
    fd = library.open(path.encode(), os.O_WRONLY | os.O_CLOEXEC)
    if fd < 0:
        return False
    written = library.write(fd, data, len(data))
    library.close(fd)
    return bool(written == len(data))
