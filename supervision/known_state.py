"""Starts the sidecar and each agent with known signals and limits, whatever their parent has set.

Ignored and blocked signals are inherited: with SIGTERM blocked `serve` could not be stopped, and with SIGCHLD
ignored an agent's exit code would be lost.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import eager_calls as eager

# Python ignores these itself, and a sidecar that nohup started outlives its terminal.
_STAY_IGNORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP})

_at_start = resource.getrlimit(resource.RLIMIT_NOFILE)
_MANY_DESCRIPTORS = 65_536
_MARGIN = 8  # descriptors that other threads may open during one start

_raised: tuple[int, int] | None = None
_lock = threading.Lock()
_starting = 0  # processes being started with the lowered limit


def reset_signals() -> None:
    """Unblock all signals, and ignore none that the parent ignored. Call it in the main thread, before other threads
    start."""
    for number in signal.valid_signals() - _STAY_IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def allow_many_descriptors() -> None:
    """Raise the soft limit: each running agent needs three descriptors, and the usual limit of 1024 is for programs
    that use select()."""
    global _raised
    soft, hard = _at_start
    many = _MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_MANY_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < many:
        _raised = (many, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, _raised)


@contextmanager
def limit_of_the_start(*, keeps_gil: bool) -> Iterator[bool]:
    """Give a process that is started within it the limit on descriptors that the sidecar was started with.

    The limit is lowered for the whole sidecar meanwhile: no other thread opens a file while the starter keeps the GIL.
    If another thread could run out of descriptors, it is not lowered: False, and the process must get its limit right
    after its start.
    """
    global _starting
    if _raised is None:
        yield True
        return
    if not (keeps_gil or eager.next_descriptor() + _MARGIN < _at_start[0]):
        yield False
        return
    with _lock:
        _starting += 1
        resource.setrlimit(resource.RLIMIT_NOFILE, _at_start)
    try:
        yield True
    finally:
        with _lock:
            _starting -= 1
            if _starting == 0:
                resource.setrlimit(resource.RLIMIT_NOFILE, _raised)


def give_limit_of_the_start(pid: int) -> None:
    """Set the limit of a process that was started without `limit_of_the_start`."""
    if hasattr(resource, "prlimit"):
        with suppress(OSError):  # it has ended already, or is another user's
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _at_start)
