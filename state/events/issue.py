"""Finds the issue of an event: `issue_id` of its data. Agents write it as text, and sometimes as a number."""

from __future__ import annotations

from typing import Any

import msgspec

from ..models import IDENTIFIER
from ..typed import decode


class _Data(msgspec.Struct):
    issue_id: Any = None


def issue_of(data: msgspec.Raw) -> str | None:
    """The issue that an event's data names; None if it names none. The number 42 is issue "42"."""
    value = _issue_id(data)
    text = _text(value) if _is_number(value) else value
    return text if isinstance(text, str) and IDENTIFIER.fullmatch(text) else None


def misnames_issue(data: msgspec.Raw) -> bool:
    """Whether `issue_id` is a number that is no issue's id, such as -1: filters would match it, triggers would not."""
    if b"issue_id" not in memoryview(data).tobytes():  # most events of some agents; spares the decoding
        return False
    return _is_number(_issue_id(data)) and issue_of(data) is None


def _issue_id(data: msgspec.Raw) -> Any:
    try:
        return decode(data, _Data).issue_id
    except msgspec.DecodeError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
