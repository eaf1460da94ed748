"""Durations: how long something took, counted in buckets, for monitoring from outside."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

# From a message between threads to a disk that has lost its way.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Durations:
    """A histogram of how long something took.

    Fed by one thread, read by any: a reader may see the newest duration in one number and not yet in another.
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, took_s: float) -> None:
        self._counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.total_s += took_s

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound in seconds, the last infinite, with how many took no longer than it."""
        so_far = 0
        for bound, count in zip((*BOUNDS_S, float("inf")), self._counts, strict=True):
            so_far += count
            yield bound, so_far


class Syncs:
    """How long it took to get data onto the disk, for each journal by its directory's name."""

    def __init__(self) -> None:
        self._of: dict[str, Durations] = {}

    def add(self, journal: str, took_s: float) -> None:
        self._of.setdefault(journal, Durations()).add(took_s)

    def snapshot(self) -> dict[str, Durations]:
        return dict(self._of)


# One for the process, as there is one disk: a journal is opened by its owner, and none of them would
# otherwise know of metrics.
SYNCS = Syncs()
