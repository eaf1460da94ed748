"""The shape of an answer: a status, its headers and its body."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[str, str]]
Reply = tuple[int, Headers, bytes]
