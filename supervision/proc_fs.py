"""Looks at processes through /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import eager_calls as eager
from .process_row import ProcessRow

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

LOADED_WITHIN_S = 0.1  # it takes some 0.1 ms, unless the process has to wait for a CPU
_LOOK_AGAIN_S = 0.0005
_LOOKS = 3
# Fields of /proc/PID/stat, from the third on. Source: proc_pid_stat(5).
_STAT_THREADS, STAT_START_TICKS = 20 - 3, 22 - 3


def environ(pid: int, *, until: float | None = None) -> list[bytes]:
    """NAME=value of a process as it was started; empty where it is not ours to read.

    One whose program is just being loaded shows none for a moment, and is waited for.
    until: how long at most, in monotonic seconds; None: for LOADED_WITHIN_S.
    """
    until = time.monotonic() + LOADED_WITHIN_S if until is None else until
    looks = 0
    values = b""
    with suppress(OSError):  # it has ended, or is not ours, or its first thread has ended
        while not (values := _read(f"/proc/{pid}/environ")) and looks < _LOOKS and time.monotonic() < until:
            if _is_being_loaded(pid):
                time.sleep(_LOOK_AGAIN_S)
            else:
                looks += 1  # it has none; or is loaded now, or is already becoming the next program
    with suppress(OSError):
        values = values or _environ_of_thread(pid)
    return values.split(b"\0") if values else []


def _environ_of_thread(pid: int) -> bytes:
    """The environment as another thread shows it, where the first one has ended. Empty where that has not."""
    if fields_of_stat(_read(f"/proc/{pid}/stat"))[0] != b"Z":
        return b""
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # as above
        with suppress(OSError):  # that thread has ended meanwhile
            if values := _read(f"/proc/{pid}/task/{thread}/environ"):
                return values
    return b""


def _is_being_loaded(pid: int) -> bool:
    """In execve(2), when the memory is the new program's, but what it is started with is not in there yet.

    Source: proc_pid_stat(5), vsize and env_end; that env_end is 0 until then was seen on Linux 6.18.
    """
    fields = fields_of_stat(_read(f"/proc/{pid}/stat"))
    return int(fields[23 - 3]) > 0 and int(fields[51 - 3]) == 0


def rows() -> list[ProcessRow]:
    """Every process of the machine, zombies among them."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  # several times faster than Path.iterdir, every two seconds
        if name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                fields = fields_of_stat(_read(f"/proc/{name}/stat"))
                found.append(
                    ProcessRow(
                        pid=int(name),
                        parent=int(fields[1]),
                        group=int(fields[2]),
                        session=int(fields[3]),
                        start_ticks=int(fields[19]),
                        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
                        rss_bytes=int(fields[21]) * _PAGE_BYTES,
                        is_zombie=has_ended(fields),
                    )
                )
    return found


def boot_id() -> str:
    with suppress(OSError):  # a sandbox may hide it
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    for line in Path("/proc/stat").read_bytes().splitlines():
        if line.startswith(b"btime "):
            return f"booted-{int(line.split()[1])}"
    raise RuntimeError("/proc/stat does not say when the machine was booted")


def start_ticks(pid: int) -> int | None:
    """When a process started, also one that is a zombie; None when there is none."""
    fields = stat_of(pid)
    return int(fields[STAT_START_TICKS]) if len(fields) > STAT_START_TICKS else None


def age_s(start_ticks: int) -> float:
    """For how many seconds a process has been there."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / TICKS_PER_S)


def is_zombie(pid: int) -> bool:
    """Also True when there is no such process."""
    fields = stat_of(pid)
    return not fields or has_ended(fields)


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot; 0 where it does not say."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_bytes().splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def stat_of(pid: int) -> list[bytes]:
    """The fields of its stat from the third on; none where there is no such process."""
    return fields_of_stat(eager.read_small(f"/proc/{pid}/stat") or b")")


def has_ended(fields: Sequence[bytes]) -> bool:
    """Whether every thread of a process has ended. fields: of its stat, from the third on.

    One whose first thread alone has ended is shown in state Z, too, and runs on in the others.
    """
    return fields[0] == b"X" or (fields[0] == b"Z" and int(fields[_STAT_THREADS]) <= 1)


def fields_of_stat(stat: bytes) -> list[bytes]:
    """From the third on: the name before them may hold spaces and brackets. Source: proc_pid_stat(5)."""
    return stat[stat.rindex(b")") + 2 :].split()


def _read(path: str) -> bytes:
    """The whole of a small /proc file, without the layers of `open`, which cost more than the kernel does."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 16_384)
        while len(data) % 16_384 == 0 and (more := os.read(fd, 262_144)):
            data += more
        return data
    finally:
        os.close(fd)
