"""Identifies one process forever, by boot, pid and start time, and signals exactly that one.

Signals go through a pidfd where there are such, so they never reach a process that got the same pid. Nothing here
decides.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from functools import cache

from ..state.models import ProcessIdentity
from . import process_table


def _knows_pidfds() -> bool:
    """Linux before 5.3 has the call in the library only, and a sandbox may refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux"


HAS_PIDFD = _knows_pidfds()

_SIGNAL_WHOLE_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9


@cache
def boot_id() -> str:
    """Names this boot of the machine; pids and monotonic times of another one mean nothing."""
    return process_table.boot_id()


def identity_of(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now; None when there is none, or only a zombie."""
    ticks = process_table.start_ticks(pid)
    return ProcessIdentity(boot_id(), pid, ticks) if ticks is not None and not process_table.is_zombie(pid) else None


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly this process, zombie or not; None when it is gone or the platform has none."""
    if not HAS_PIDFD or identity.boot_id != boot_id():
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    # Checked after opening: from here on the descriptor means one process whatever becomes of the pid.
    if process_table.start_ticks(identity.pid) == identity.start_ticks:
        return pidfd
    os.close(pidfd)
    return None


def age_s(identity: ProcessIdentity) -> float:
    """For how many seconds it has been there."""
    return process_table.age_s(identity.start_ticks)


def is_alive(identity: ProcessIdentity) -> bool:
    return identity_of(identity.pid) == identity


def send_signal(identity: ProcessIdentity, number: int) -> bool:
    """Signal exactly this process; False when it is gone. Raises PermissionError when it is another user's."""
    if not HAS_PIDFD:
        if not is_alive(identity):
            return False
        with suppress(ProcessLookupError):
            os.kill(identity.pid, number)
            return True
        return False
    pidfd = open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)  # type: ignore[attr-defined,unused-ignore]  # Linux only
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def signal_group(pidfd: int | None, pid: int, number: int) -> None:
    """Signal the process group that `pid` leads. Only while the leader is not reaped: that pins the number."""
    try:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, number, None, _SIGNAL_WHOLE_GROUP)  # type: ignore[attr-defined,unused-ignore]
            return
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a kernel before 6.9 knows no such flag
            return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
