"""Ends the sidecar at the first SIGTERM, SIGINT or SIGHUP, and at once at the second SIGTERM or SIGINT.

A terminal that closes may send SIGHUP twice. Where the parent ignored it, as nohup does, it stays ignored.

A Python handler runs in the main thread, when that thread runs: not while it waits for a lock, where the signal came to
another thread or just before the wait. So a thread reads what the interpreter's own handler writes.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)


def watch_stop_signals(end: Callable[[], None], end_at_once: Callable[[int], None]) -> None:
    """Handle the signals from now on. end_at_once: called with the second signal's number. Main thread only."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, _do_nothing)
    threading.Thread(target=_read_signals, args=(read_end, end, end_at_once), name="signals", daemon=True).start()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Python calls the interpreter's own handler only for a signal that has a handler in Python."""


def _read_signals(read_end: int, end: Callable[[], None], end_at_once: Callable[[int], None]) -> None:
    (number,) = os.read(read_end, 1)
    log.info("signal received signal=%s", signal.Signals(number).name)
    end()
    while (number := os.read(read_end, 1)[0]) == signal.SIGHUP:
        pass  # it is ending already
    end_at_once(number)
