"""W3C trace context: where a piece of work belongs in a trace that spans many programs. Pure.

Source: W3C Trace Context, level 1, section 3.2. A value that does not hold is ignored, as the standard asks: a
broken tracer must not cost anybody an event.
"""

from __future__ import annotations

import re

from .ids import unique_hex

VARIABLE = "TRACEPARENT"  # of an agent's environment
_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?")
_LENGTH = 55  # of version 00; later versions begin the same way


def traceparent(value: str | None) -> str | None:
    """`value` as far as it is understood, if it is a traceparent, else None."""
    if value is None:
        return None
    value = value.strip()
    match = _VALID.fullmatch(value)
    if match is None or (value.startswith("00") and match["more"] is not None):
        return None
    return value[:_LENGTH]


def trace_id(value: str) -> str:
    """The part of a traceparent that everything in the trace has in common."""
    return value.split("-")[1]


def new_traceparent() -> str:
    """The beginning of a trace, to be recorded."""
    return f"00-{unique_hex(32)}-{unique_hex(16)}-01"
