"""How deeply JSON is nested. Decoders recurse, and how far they come depends on who calls: what is kept must be shallow
enough for all of them."""

from __future__ import annotations

import re

MAX_LEVELS = 128

# Without the closing mark too: else each mark of one that does not end would be tried to the end of the text.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"[]", b"{}")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_deeper(json: bytes, levels: int = MAX_LEVELS) -> bool:
    """Whether arrays and objects lie in each other more than `levels` deep. json: valid.

    All is done by the library's own loops: each round takes away what is innermost.
    """
    if json.count(b"{") + json.count(b"[") <= levels:
        return False
    brackets = _STRINGS.sub(b"", json).translate(_ONE_KIND, _ALL_BUT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)
