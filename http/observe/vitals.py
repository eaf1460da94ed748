"""Measures this process's use of the machine, for /health. Asks the system directly, because psutil belongs to
supervision."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path

MB = 1_000_000
_STATM = Path("/proc/self/statm")
MIN_WINDOW_S = 0.5  # CPU time is counted in ticks of 10 ms; a shorter window would be noise


def memory_bytes() -> int:
    """Resident memory now; if the system does not tell, its maximum so far."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def disk_free_bytes(where: Path) -> int:
    """The free space of a directory's file system."""
    found = os.statvfs(where)
    return found.f_bavail * found.f_frsize


class CpuGauge:
    """CPU use since the last look, in percent of one core."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = time.monotonic()
        self._used = time.process_time()
        self._percent = 0.0

    def percent(self) -> float:
        """Calls within MIN_WINDOW_S of each other get the same figure."""
        with self._lock:
            now, used = time.monotonic(), time.process_time()
            if now - self._at >= MIN_WINDOW_S:
                self._percent = (used - self._used) / (now - self._at) * 100
                self._at, self._used = now, used
            return self._percent
