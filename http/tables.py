"""Tables of the configuration file as option types: a wrong, missing or unknown key is an error that names it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ..state import typed
from ..state.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)

LONGEST_NAME = 64  # all of ours are shorter, and to compare a long one takes as long as it is
# Thirty years, a petabyte of megabytes: what is beyond is a slip, and no clock or timer can count it.
_MOST = 1_000_000_000
_MOST_BYTES = 2**53


def read_table(table: object, type_: type[T], where: str) -> T:
    """A table as the option type declared for it. where: its name in the file, such as `events`."""
    checked = require_table(table, where)
    refuse_unknown(checked, type_.__struct_encode_fields__, where)
    return convert(checked, type_, where)


def require_table(table: object, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"[{where}] is not a table", field=where, expected="a table")
    return table


def refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises ConfigError for the first key that is not known, with the nearest that is."""
    names = sorted(known)
    for key in table:
        if key not in names:
            full = f"{where}.{key}" if where else key
            meant = nearest(key, names)
            hint = f"did you mean {meant}?" if meant is not None else f"known here: {', '.join(names)}"
            raise ConfigError(f"unknown setting {full}; {hint}", field=full, expected=names if meant is None else meant)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Which of the names that are known a misspelt one may stand for; None where it is like none."""
    if len(name) > LONGEST_NAME:
        return None
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return found[0] if found else None


_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def convert(table: Mapping[str, Any], type_: type[T], where: str) -> T:
    """Raises ConfigError naming the setting and what was expected; no setting is negative or without bounds."""
    try:
        options = typed.convert(table, type_)
    except msgspec.ValidationError as error:
        match = _AT.match(str(error))
        what, path = (match["what"], match["path"]) if match else (str(error), None)
        full = ".".join(part for part in (where, path) if part)
        unknown = _UNKNOWN.fullmatch(what)
        if unknown is not None:
            raise ConfigError(f"unknown setting {full}.{unknown[1]}", field=f"{full}.{unknown[1]}") from None
        what = what.replace("`", "")
        raise ConfigError(f"setting {full}: {what[0].lower()}{what[1:]}", field=full, expected=what) from None
    _refuse_out_of_bounds(options, where)
    return options


def _refuse_out_of_bounds(value: object, where: str) -> None:
    if isinstance(value, int | float):
        most = _MOST_BYTES if where.endswith("_bytes") else _MOST
        if not 0 <= value <= most:  # NaN is not either
            expected = "0 or more" if value < 0 else f"a number from 0 to {most}"
            raise ConfigError(f"setting {where} is {value}, expected {expected}", field=where, expected=expected)
    elif isinstance(value, msgspec.Struct):
        for name, written in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            _refuse_out_of_bounds(getattr(value, name), f"{where}.{written}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_out_of_bounds(inner, f"{where}.{key}")
