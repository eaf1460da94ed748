"""The wall clock. Intervals use time.monotonic; this is for times that people and other programs read."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)
