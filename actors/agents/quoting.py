"""Quotes the last lines of an agent's output for events and errors, without their secrets."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache

_MAX_LINE = 500  # characters of a line
PREPARED_AFTER_S = 0.5  # before an agent is restarted at once, see SETTLED_AFTER_S; the start of a fleet goes first


def quoted(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines with their secrets taken out, long ones cut."""
    if not any(lines):
        return tuple(lines)
    from ..context.secrets.redaction import redact, redact_start  # a start waits for no expressions

    short = (line if len(line) <= _MAX_LINE else redact_start(line, _MAX_LINE)[0] for line in lines)
    # All together: a key has several lines.
    return tuple(line[:_MAX_LINE] for line in redact("\n".join(short))[0].split("\n"))


@cache
def prepare_soon() -> threading.Timer:
    """Have a thread import what `quoted` needs and make its tables, once in a process.

    That takes a tenth of a second, for which the restarts of agents would wait. Returns the thread.
    """
    thread = threading.Timer(PREPARED_AFTER_S, _prepare)
    thread.name = "quoting"
    thread.daemon = True
    thread.start()
    return thread


def _prepare() -> None:
    from ..context.secrets.redaction import prepare

    prepare()
