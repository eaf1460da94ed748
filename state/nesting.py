"""Counts the parts and the depth of a JSON text without decoding it.

Decoders recurse, and the depth that they can reach depends on their caller: stored JSON must be shallow enough for
every reader. And ten megabytes of empty lists become gigabytes of objects; no other thread runs while they are decoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate

MAX_LEVELS = 128
MAX_PARTS = 200_000  # strings, commas and opening brackets; they take 20 MB and 100 ms to decode, or less

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level down, one up, as signed bytes
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def has_more_parts(json: bytes, most: int = MAX_PARTS) -> bool:
    """Whether a text has more than `most` strings, commas and opening brackets. json: of any length, valid or not."""
    if len(json) <= most or _parts(json) + json.count(b'"') // 2 <= most:  # those inside strings counted too
        return False
    count = 0
    for between in _between_strings(json):
        count += 1 + _parts(between)
        if count > most:
            return True
    return False


def is_deeper(json: bytes, levels: int = MAX_LEVELS) -> bool:
    """Whether arrays and objects lie in each other more than `levels` deep. json: valid, of at most MAX_PARTS parts."""
    if json.count(b"{") + json.count(b"[") <= levels:
        return False
    steps = b"".join(between.translate(_STEPS, _ALL_BUT_BRACKETS) for between in _between_strings(json))
    return max(accumulate(array("b", steps)), default=0) > levels


def _parts(json: bytes) -> int:
    return json.count(b",") + json.count(b"[") + json.count(b"{")


def _between_strings(json: bytes) -> Iterator[bytes]:
    """What stands before, between and after the strings of a JSON text.

    Not one expression for the whole text: that would hold up all other threads until it is through.
    """
    unescaped = json.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in json else json
    at = 0
    while True:
        begin = unescaped.find(b'"', at)
        if begin < 0:
            yield unescaped[at:]
            return
        yield unescaped[at:begin]
        end = unescaped.find(b'"', begin + 1)
        if end < 0:
            return
        at = end + 1
