"""The wall clock. Intervals use time.monotonic; this is for times that people and other programs read."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

# Counting from a plain datetime gives a plain datetime also where a test has put a stand-in for the class:
# msgspec encodes the exact type only.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Of the years 1 and 9999. File systems and git go further.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def utc_now() -> datetime:
    """Now, aware, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return _EPOCH + timedelta(
        0, seconds, nanoseconds // 1000
    )  # of all the microseconds it would take three times as long


def utc_at(seconds: float) -> datetime:
    """The time that is `seconds` after the Unix epoch, aware, in UTC."""
    return _EPOCH + timedelta(seconds=seconds)


def utc_at_clamped(seconds: int) -> datetime:
    """As `utc_at`, for times that anybody may have written; the first or last time that there is, for one beyond."""
    return utc_at(min(max(seconds, _FIRST_SECOND), _LAST_SECOND))
