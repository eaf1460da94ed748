"""Quotes the last lines of an agent's output for events and errors, with secrets redacted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache

_MAX_LINE = 500  # characters of a line
PREPARED_AFTER_S = 0.5  # before an agent is restarted at once, see SETTLED_AFTER_S; the start of a fleet goes first

_needed_now = threading.Event()
_lock = threading.Lock()
_waiting: list[Callable[[], object]] = []
_is_ready = False


def quoted(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines with secrets redacted and long lines cut."""
    if not any(lines):
        return tuple(lines)
    from ..context.secrets.redaction import redact, redact_start  # a start waits for no expressions

    short = (line if len(line) <= _MAX_LINE else redact_start(line, _MAX_LINE)[0] for line in lines)
    # All together: a key has several lines.
    return tuple(line[:_MAX_LINE] for line in redact("\n".join(short))[0].split("\n"))


@cache
def prepare_soon() -> threading.Thread:
    """Have a thread import the modules of `quoted` and build its tables, once per process.

    That takes a tenth of a second, for which the restarts of agents would wait. Returns the thread.
    """
    thread = threading.Thread(target=_prepare, name="quoting", daemon=True)
    thread.start()
    return thread


def is_ready() -> bool:
    """Whether `quoted` answers at once."""
    return _is_ready


def once_ready(act: Callable[[], object]) -> bool:
    """Have `act` called, in another thread, when `quoted` can answer at once. Returns False and does nothing if it
    already can."""
    with _lock:
        if _is_ready:
            return False
        _waiting.append(act)
    _needed_now.set()
    prepare_soon()
    return True


def stop_waiting() -> None:
    """Make the calls that wait for `once_ready` now."""
    with _lock:
        _do_waiting()


def _prepare() -> None:
    global _is_ready
    _needed_now.wait(PREPARED_AFTER_S)
    try:
        from ..context.secrets.redaction import prepare

        prepare()
    finally:
        with _lock:
            _do_waiting()  # first: what comes after it must not overtake it
            _is_ready = True


def _do_waiting() -> None:
    waiting = [*_waiting]
    _waiting.clear()
    for act in waiting:
        act()
