"""Finds the issue of an event: `issue_id` of its data. Agents write it as text, and sometimes as a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..models import IDENTIFIER
from ..typed import decode


class _Data(msgspec.Struct):
    issue_id: Any = None


def issue_of(data: msgspec.Raw) -> str | None:
    """The issue that an event's data names; None if it names none. The number 42 is issue "42"."""
    try:
        return _issue_in(decode(data, _Data).issue_id)
    except msgspec.DecodeError:
        return None


def _issue_in(value: Any) -> str | None:
    text = _text(value) if _is_number(value) else value
    return text if isinstance(text, str) and IDENTIFIER.fullmatch(text) else None


def misnames_issue(data: Mapping[str, Any]) -> bool:
    """Whether `issue_id` is a number that is no issue's id, such as -1: filters would match it, triggers would not.

    data: of an event, decoded.
    """
    value = data.get("issue_id")
    return _is_number(value) and _issue_in(value) is None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
