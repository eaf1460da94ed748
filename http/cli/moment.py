"""Reads the values of `--since` and `--until`: callbacks of options."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import click
import msgspec

from ...state.models import event_seq
from ...state.typed import convert

_TIMES = "a date or time, such as 2026-01-31, 2026-01-31T09:00:00 (in local time) or 2026-01-31T09:00:00Z"


def moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    """As aware UTC: RFC 3339, in local time where it has no offset; a date is its beginning, in local time."""
    return None if value is None else _at(value, expected=_TIMES)


def place(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A place in the log of events, as the server takes it: an event id, earliest, latest, or a time."""
    if value is None or value in ("earliest", "latest") or event_seq(value) is not None:
        return value
    return _at(value, expected=f"earliest, latest, an event id, or {_TIMES}").isoformat()


def _at(text: str, *, expected: str) -> datetime:
    try:
        at = datetime.combine(convert(text, date), time())
    except msgspec.ValidationError:
        try:
            at = convert(text, datetime)
        except msgspec.ValidationError:
            raise click.BadParameter(f"{text!r} cannot be read; expected {expected}") from None
    try:
        return at.astimezone(UTC)
    except (OverflowError, ValueError, OSError):
        raise click.BadParameter(f"{text!r} lies before the year 1 or after 9999 in UTC") from None
