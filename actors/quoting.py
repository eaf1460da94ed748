"""Quotes the last lines of an agent's output for events and errors, without their secrets."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_LINE = 500  # characters of a line


def quoted(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines with their secrets taken out, long ones cut."""
    if not any(lines):
        return tuple(lines)
    from .context.secrets import redact, redact_start  # a start waits for no expressions

    short = (line if len(line) <= _MAX_LINE else redact_start(line, _MAX_LINE)[0] for line in lines)
    # All together: a key has several lines.
    return tuple(line[:_MAX_LINE] for line in redact("\n".join(short))[0].split("\n"))
