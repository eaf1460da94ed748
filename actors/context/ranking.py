"""Which files matter for a task, most relevant first. Pure: the same input gives the same order, ties go by path."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import log

_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def words_of(text: str) -> list[str]:
    """Lower-case parts of identifiers and words, of two characters or more: `parseURLPath` is parse, url, path."""
    found = []
    for run in _WORD.findall(text):
        parts = _CAMEL.findall(run) if run.isalpha() else [run]
        found += [part.lower() for part in parts if len(part) > 1]
    return found


def by_path(
    paths: Iterable[str], query: str, *, touched: Mapping[str, int], dirty: Iterable[str], seeds: Iterable[str]
) -> dict[str, float]:
    """Scores from names alone, 0 to about 3: what there is while no index is ready.

    touched: commits since each file was last touched. seeds: paths the issue's earlier results name.
    """
    listed = list(paths)
    words = {path: set(words_of(path)) for path in listed}
    spread = Counter(word for found in words.values() for word in found)
    asked = Counter(words_of(query))
    weight = {word: log(1 + len(listed) / spread[word]) for word in asked if word in spread}
    total = sum(weight.values()) or 1.0
    changed, named = frozenset(dirty), frozenset(seeds)
    scores = {}
    for path in listed:
        score = sum(weight[word] for word in words[path] if word in weight) / total
        if path in named or path in query:
            score += 1.5
        if path in changed:
            score += 0.5
        if path in touched:
            score += 0.3 / (1 + touched[path] / 5)
        scores[path] = score
    return scores


def ordered(scores: Mapping[str, float]) -> list[str]:
    """Best first, ties by depth, then path."""
    return sorted(scores, key=lambda path: (-scores[path], path.count("/"), path))
