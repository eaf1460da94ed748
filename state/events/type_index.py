"""TypeIndex: the places of a log's events by type, so that a reader of one type skips all others."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Collection, Iterable, Iterator


class TypeIndex:
    """Places are added in ascending order. Those of dropped events stay until they are forgotten together."""

    def __init__(self) -> None:
        self._places: dict[str, list[int]] = {}

    def add(self, event_type: str, place: int) -> None:
        self._places.setdefault(event_type, []).append(place)

    def after(self, place: int, event_types: Collection[str]) -> Iterable[int]:
        """Places after `place` of events of these types, at least one, ascending."""
        if len(event_types) == 1:
            return self._of(next(iter(event_types)), after=place)
        return heapq.merge(*(self._of(event_type, after=place) for event_type in event_types))

    def forget_to(self, place: int) -> None:
        """Forget the places up to this one."""
        self._places = {
            event_type: kept
            for event_type, places in self._places.items()
            if (kept := places[bisect.bisect_right(places, place) :])
        }

    def _of(self, event_type: str, *, after: int) -> Iterator[int]:
        places = self._places.get(event_type, [])
        # By index: islice would pass over all places before the first, on each publish that somebody waits for.
        for index in range(bisect.bisect_right(places, after), len(places)):
            yield places[index]
