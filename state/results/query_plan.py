"""Which documents a query needs to look at, from the description of itself that a TinyDB query carries.

The description is the query's `_hash`: `("==", ("issue_id",), "x")`, `("one_of", path, values)`, `("and", parts)`,
`("or", parts)`, `("test", ("stored_at",), is_within, (since, until))` and more. A plan's candidates are never too few;
only when it is `exact` are they never too many.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from .table_index import NO_IDS, Ids, TableIndex, intersection, seconds_of, union

# Values that hash and compare alike in a query and in JSON. Others, such as objects with an == of their own, do not.
_PLAIN = (str, int, float, bool, type(None))


class Plan(msgspec.Struct, frozen=True):
    """candidates: ids, ascending; None: every document. exact: every candidate is known to match."""

    candidates: Ids[int] | None
    exact: bool
    uses: str


SCAN = Plan(None, False, "scan")


def is_within(value: Any, since: datetime | None, until: datetime | None) -> bool:
    """Whether a field holds a time, RFC 3339, that is not before `since` and is before `until`; None: no bound."""
    time = seconds_of(value)
    if time is None:
        return False
    return (since is None or time >= since.timestamp()) and (until is None or time < until.timestamp())


def plan(description: Any, index: TableIndex) -> Plan:
    """The best plan for the query that `description` describes; anything unknown is a scan."""
    match description:
        case ("==", (str() as field,), value) if field in index.indexed and type(value) in _PLAIN:
            return _values(index, field, (value,))
        case ("one_of", (str() as field,), tuple() | frozenset() as values) if field in index.indexed and all(
            type(value) in _PLAIN for value in values
        ):
            return _values(index, field, tuple(values))
        case ("test", (str() as field,), test, (since, until)) if test is is_within and field in index.moments:
            bounds = (None if moment is None else moment.timestamp() for moment in (since, until))
            return Plan(index.moments[field].between(*bounds), True, f"time {field}")
        case ("and", frozenset() as parts):
            return _all_of([plan(part, index) for part in parts])
        case ("or", frozenset() as parts):
            return _any_of([plan(part, index) for part in parts])
        case _:
            return SCAN


def is_covered(description: Any, index: TableIndex) -> bool:
    """Whether the query asks for nothing but columns of the index."""
    match description:
        case ("and" | "or", frozenset() as parts):
            return all(is_covered(part, index) for part in parts)
        case ("not", part):
            return is_covered(part, index)
        case (str() as operator, (str() as field,), *_) if operator != "fragment":
            return field in index.columns
        case _:
            return False


def _values(index: TableIndex, field: str, values: tuple[Any, ...]) -> Plan:
    found = index.with_value(field, values[0]) if values else NO_IDS
    for value in values[1:]:
        found = union(found, index.with_value(field, value))
    # A list or an object never equals a plain value, but a query's values may be compared by code we cannot see
    # through, so those documents are looked at.
    odd = index.unhashable(field)
    if odd:
        return Plan(union(found, odd), False, f"index {field}")
    return Plan(found, True, f"index {field}")


def _all_of(parts: list[Plan]) -> Plan:
    usable = sorted((part for part in parts if part.candidates is not None), key=_size)
    if not usable:
        return SCAN
    first = usable[0]
    exact = len(usable) == len(parts) and all(part.exact for part in parts)
    candidates, uses = first.candidates, first.uses
    for part in usable[1:]:
        assert candidates is not None
        assert part.candidates is not None
        candidates = intersection(candidates, part.candidates)
        uses = f"{uses} and {part.uses}"
    return Plan(candidates, exact, uses)


def _any_of(parts: list[Plan]) -> Plan:
    candidates = parts[0].candidates
    for part in parts[1:]:
        if candidates is None or part.candidates is None:
            return SCAN
        candidates = union(candidates, part.candidates)
    if candidates is None:
        return SCAN
    return Plan(candidates, all(part.exact for part in parts), " or ".join(part.uses for part in parts))


def _size(part: Plan) -> int:
    return len(part.candidates) if part.candidates is not None else 0
