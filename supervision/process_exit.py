"""Finds how a process ended: a child of ours, or one that another parent reaps."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import msgspec

from ..state.models import ProcessIdentity
from . import eager_calls as eager
from .proc_fs import STAT_START_TICKS, stat_of

_GET_INFO = 0xC040FF0B  # ioctl PIDFD_GET_INFO with a struct of 64 bytes, Linux 6.13
_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_EXIT_CODE_AT = 60  # offset of exit_code in struct pidfd_info
_STAT_EXIT_CODE = 52 - 3  # a field of /proc/PID/stat, from the third on


class ExitStatus(msgspec.Struct, frozen=True):
    """How a process ended: an exit code or a signal; neither if nobody could see it."""

    exit_code: int | None = None
    signal: int | None = None


def reap(pid: int) -> ExitStatus | None:
    """Reap our own child and return how it ended; None if it still runs. Raises ChildProcessError if it is not our
    child, or if it was reaped elsewhere."""
    status = eager.waited(pid)
    return None if status is None else _status_of(status)


def end_of_child(pid: int) -> ExitStatus | None:
    """Like `reap`, but without reaping, which takes as long again and can wait."""
    end = eager.end_of_child(pid)
    if end is None:
        return None
    code, status = end
    return ExitStatus(exit_code=status) if code == os.CLD_EXITED else ExitStatus(signal=status)


def exit_of_stranger(identity: ProcessIdentity, pidfd: int) -> ExitStatus:
    """How a process that is not our child ended. Empty if nobody can see it, or only after its parent reaps it."""
    return _exit_of_zombie(identity) or _exit_of_reaped(pidfd) or ExitStatus()


def _exit_of_zombie(identity: ProcessIdentity) -> ExitStatus | None:
    """The exit of a process that is not reaped yet; an init may take seconds to reap it."""
    fields = stat_of(identity.pid)
    if len(fields) <= _STAT_EXIT_CODE or fields[0] != b"Z" or int(fields[STAT_START_TICKS]) != identity.start_ticks:
        return None
    try:
        # The kernel shows the status only to processes that may read this link; to others it shows 0.
        Path(f"/proc/{identity.pid}/ns/user").readlink()
    except OSError:
        return None
    return _status_of(int(fields[_STAT_EXIT_CODE]))


def _exit_of_reaped(pidfd: int) -> ExitStatus | None:
    """Linux 6.15."""
    info = bytearray(64)
    struct.pack_into("Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    (mask,) = struct.unpack_from("Q", info, 0)
    (status,) = struct.unpack_from("i", info, _EXIT_CODE_AT)
    return _status_of(status) if mask & _INFO_EXIT else None


def _status_of(status: int) -> ExitStatus:
    if os.WIFSIGNALED(status):
        return ExitStatus(signal=os.WTERMSIG(status))
    return ExitStatus(exit_code=os.WEXITSTATUS(status))
