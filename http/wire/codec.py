"""JSON in and out. Wire names live here and in its neighbours only; a misspelt field of ours is refused by name.

Payloads that belong to agents (`data` of an event, `result` of a result) pass through as the bytes they came as,
after a check that every reader behind us can decode them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from ...state.errors import InvalidRequest
from ...state.models import identifier
from ...state.nesting import MAX_LEVELS, MAX_PARTS, has_more_parts, is_deeper
from ...state.typed import Decoder, convert
from ..tables import nearest
from .shapes import Moment

T = TypeVar("T")

MAX_QUERY_FIELDS = 64
MAX_QUOTED_CHARS = 200  # of what a client wrote, in an error
USUAL_QUERY_CHARS = 256

_MOMENT = "RFC 3339, such as 2026-01-31T09:00:00Z"


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of requests."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No query fields, or no body."""


NOTHING = Nothing()


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """Base of answers: each has the time of the answer."""

    timestamp: Moment


def read_body(raw: bytes, decoder: Decoder[T], *, place: str = "body") -> T:
    """A body as the decoder's type. Raises InvalidRequest that names the field and what was expected.

    place: what the client calls what it sent.
    """
    if len(raw) > MAX_PARTS:  # a shorter one cannot have so many
        refuse_many_parts(raw, place)
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _refuse(error, decoder.type, place)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", field="body", expected="one JSON object") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the body is not UTF-8: byte {error.start} of a string", field="body", expected="UTF-8"
        ) from None
    except RecursionError:
        raise _too_deep("the body", "body") from None


def refuse_many_parts(json: bytes, place: str) -> None:
    """Refuse JSON that takes too long to decode while others wait. Raises InvalidRequest."""
    if has_more_parts(json):
        raise InvalidRequest(
            f"the {place} has more than {MAX_PARTS:,} strings, commas and brackets",
            field=place,
            expected="larger parts, such as one text for a table of numbers",
        )


def quoted(text: str) -> str:
    """A client's text, short enough for an error."""
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}…"


def read_query(text: str, type_: type[T]) -> tuple[T, str | None]:
    """The query string as a struct, and its `project_id`, which every route takes from operators.

    text: as WSGI has it, bytes in Latin-1 disguise.
    """
    if len(text) > USUAL_QUERY_CHARS:
        return _read_query(text, type_)
    return cast(tuple[T, str | None], _usual_query(text, cast(Hashable, type_)))


def _read_query(text: str, type_: type[T]) -> tuple[T, str | None]:
    try:
        pairs = parse_qsl(
            text.encode("latin-1").decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except UnicodeError:
        raise InvalidRequest("the query is not UTF-8", field="query", expected="UTF-8, percent-encoded") from None
    except ValueError:
        raise InvalidRequest(
            f"the query has more than {MAX_QUERY_FIELDS} fields", field="query", expected=f"at most {MAX_QUERY_FIELDS}"
        ) from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            name = quoted(name)
            raise InvalidRequest(f"{name} is given twice in the query", field=name, expected="one value")
        fields[name] = value
    project_id = fields.pop("project_id", None)
    if project_id is not None:
        identifier(project_id, "project_id")
    try:
        query = convert(fields, type_, strict=False)
    except msgspec.ValidationError as error:
        _refuse(error, type_, "query")
    for name, value in fields.items():
        # msgspec reads `null` as if the field had been left out; its author meant something else.
        if value and getattr(query, name) is None:
            raise InvalidRequest(f"{name} is {quoted(value)}", field=name, expected="a value, or to be left out")
    return query, project_id


# Agents ask the same again and again. What is kept is frozen; what was raised is not kept.
_usual_query = lru_cache(maxsize=1024)(_read_query)

_NAMED = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)


def _refuse(error: msgspec.ValidationError, type_: Any, place: str, *, under: str = "") -> NoReturn:
    what, inside = _split(str(error))
    path = (under + inside).removeprefix(".")
    named = _NAMED.fullmatch(what)
    if named is None:
        expected = _values(type_, inside) if what.startswith("Invalid enum value") else _expected(what)
        what = quoted(what)
        raise InvalidRequest(f"{path or place}: {what[0].lower()}{what[1:]}", field=path or place, expected=expected)
    field = quoted(f"{path}.{named['name']}" if path else named["name"])
    if named["fault"].startswith("missing"):
        raise InvalidRequest(f"{field} is missing from the {place}", field=field, expected="a value")
    # Only our own structs forbid unknown fields, and only the outermost has fields that are worth naming.
    known = list(type_.__struct_encode_fields__) if not path else []
    if place == "query":
        known.append("project_id")
    meant = nearest(named["name"], known)
    hint = f"; did you mean {meant}?" if meant is not None else ""
    raise InvalidRequest(
        f"{field} is not a field of the {place}{hint}",
        field=field,
        expected=sorted(known) if meant is None else meant,
    )


def _split(error: str) -> tuple[str, str]:
    """The fault in msgspec's message, and the path to it. The message may quote megabytes of a client's text."""
    what, _, path = error.rpartition(" - at `$")
    return (what, path[:-1]) if path.endswith("`") and what else (error, "")


_EXPECTED = re.compile(r"Expected (.*?)(?:, got .*)?$", re.DOTALL)


def _expected(what: str) -> str:
    match = _EXPECTED.match(what)
    return match[1].replace("`", "") if match else what


def _values(type_: Any, path: str) -> list[str]:
    """The allowed values at a path of a type, if they are few."""
    found = [msgspec.inspect.type_info(type_)]
    for name in re.findall(r"\.(\w+)", path):
        found = [f.type for each in found for f in getattr(each, "fields", ()) if f.encode_name == name]
        found = [inner for each in found for inner in getattr(each, "types", (each,))]
    return [
        str(value)
        for each in found
        for value in (each.values if isinstance(each, msgspec.inspect.LiteralType) else getattr(each, "cls", ()))
    ]


def read_object(raw: msgspec.Raw, field: str) -> tuple[msgspec.Raw, dict[str, Any]]:
    """`raw` if it is a JSON object that any reader can decode, without the body around it; and the object.

    A Raw field was only skipped over: bad UTF-8 inside a string, numbers out of range and too many levels show up here,
    not at a later reader.
    """
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise _too_deep(field, field) from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{field} is not UTF-8", field=field, expected="UTF-8") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{field} cannot be read: {error}", field=field, expected="a JSON object") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} is not an object", field=field, expected="a JSON object")
    if is_deeper(bytes(raw)):
        raise _too_deep(field, field)
    return raw.copy(), value


def _too_deep(what: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"{what} is nested too deeply", field=field, expected=f"at most {MAX_LEVELS} levels")


def read_part(raw: msgspec.Raw, decoder: Decoder[T], field: str) -> T:
    """Part of a body as the decoder's type; faults are named with `field` in front."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _refuse(error, decoder.type, "body", under=field)


def identifiers(text: str, field: str) -> tuple[str, ...]:
    """A comma list of identifiers; empty for an empty text."""
    return tuple(identifier(part.strip(), field) for part in text.split(",")) if text else ()


def names(text: str) -> tuple[str, ...]:
    """A comma list of any texts; blanks around them and empty parts are dropped. `\\,` is a comma in a text."""
    parts, begun = [], ""
    for part in text.split(","):
        if part.endswith("\\"):
            begun += part[:-1] + ","
        else:
            parts.append(begun + part)
            begun = ""
    return tuple(part.strip() for part in (*parts, begun) if part.strip())


def moment(text: str | None, field: str) -> datetime | None:
    """An RFC 3339 time, as aware UTC. A `+` that a client did not encode came as a blank."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        at = None
    if at is None:
        raise InvalidRequest(f"{field} is not a time", field=field, expected=_MOMENT)
    return in_utc(at, field)


def in_utc(at: datetime, field: str) -> datetime:
    """Raises InvalidRequest for a time without an offset, or that lies before the year 1 or after 9999 in UTC."""
    if at.tzinfo is None:
        raise InvalidRequest(f"{field} has no offset", field=field, expected=_MOMENT)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(f"{field} is not a valid time in UTC", field=field, expected=_MOMENT) from None


def between(value: float, field: str, low: float, high: float) -> None:
    """Raises InvalidRequest unless low <= value <= high; NaN is not."""
    if not low <= value <= high:
        raise InvalidRequest(f"{field} is out of range", field=field, expected=f"{low:g} to {high:g}")


_ENCODER = msgspec.json.Encoder(enc_hook=str)


def encode(value: object) -> bytes:
    """JSON bytes; times become RFC 3339 with Z, sets are not ordered and so have no place here."""
    return _ENCODER.encode(value)
