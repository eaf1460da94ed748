"""Looks at processes with psutil, on machines without /proc. Imported only there, because that takes a while."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

from .process_row import ProcessRow


def boot_id() -> str:
    return f"booted-{psutil.boot_time():.0f}"


def start_ticks(pid: int) -> int | None:
    """When a process started, in hundredths of a second; None when there is none."""
    with suppress(psutil.Error):
        return int(psutil.Process(pid).create_time() * 100)
    return None


def age_s(start_ticks: int) -> float:
    return max(0.0, time.time() - start_ticks / 100)


def is_zombie(pid: int) -> bool:
    """Also True when there is no such process."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def rows() -> list[ProcessRow]:
    """Every process of the machine, zombies among them."""
    found = []
    for process in psutil.process_iter(["pid", "ppid", "create_time", "cpu_times", "memory_info", "status"]):
        with suppress(psutil.Error, OSError, KeyError, AttributeError):  # ended, or not ours to look at
            known = process.info
            found.append(
                ProcessRow(
                    pid=known["pid"],
                    parent=known["ppid"],
                    group=os.getpgid(known["pid"]),
                    session=os.getsid(known["pid"]),
                    start_ticks=int(known["create_time"] * 100),
                    cpu_s=known["cpu_times"].user + known["cpu_times"].system,
                    rss_bytes=known["memory_info"].rss,
                    is_zombie=known["status"] == psutil.STATUS_ZOMBIE,
                )
            )
    return found


def environ(pid: int, *, until: float | None = None) -> list[bytes]:  # noqa: ARG001  # psutil waits for none
    """NAME=value of a process; empty where it is not ours to read."""
    with suppress(psutil.Error, OSError):
        return [os.fsencode(f"{name}={value}") for name, value in psutil.Process(pid).environ().items()]
    return []
