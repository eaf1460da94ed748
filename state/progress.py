"""Reports the progress of long work."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told now and then. done, total: bytes; `done` never falls."""

    def __call__(self, done: int, total: int) -> object: ...


def ignore(done: int, total: int) -> None:
    """Ignores progress."""
