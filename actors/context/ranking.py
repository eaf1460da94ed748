"""Which files matter for a task, most relevant first. Pure: the same input gives the same order, ties go by path.

Five signals, each scaled to its best file: words of the task in the text (BM25), in the path, names it defines,
past commits with like messages, and how lately it was touched. The weights were found on commits of five public
repositories, half of them held out; see docs/context.md.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import log
from sys import intern
from typing import NamedTuple

from .kinds import Role
from .lexicon import Lexicon
from .roles import role_of
from .words import count_terms, name_terms, names_in, path_terms, quick_look_for, terms_of_run

_TEXT, _PATH, _PATH_SHARE, _DEFINED = 1.0, 0.5, 0.08, 0.6
_SIMILAR, _SIMILAR_NARROW, _RECENT, _PAIRED = 0.36, 0.18, 0.12, 0.09
_SIZE = 0.045  # a long file has to be better by this power of its length
_SIMILAR_COMMITS = 60
_WIDE_COMMIT = 30  # commits that touch more files say little about each
_SEED = 1.0  # files that earlier results of the issue name
_DIRTY = 0.3
_WORTH_PAIRING = 0.1  # of the best score

_WORD = re.compile(r"[A-Za-z_]\w+")
_TICKED = re.compile(r"`([^`\n]+)`")
_TEST_MARK = re.compile(r"^(?:tests?_)|(?:[._-]?(?:tests?|spec))$", re.IGNORECASE)


class Task(NamedTuple):
    """The task as terms with weights. names: terms that can only be code."""

    terms: dict[str, float]
    names: frozenset[str]


def task_of(text: str) -> Task:
    """The task that a text tells: its first line counts twice, a word said again and again counts less each time."""
    counts = Counter(count_terms(text))
    counts.update(count_terms(text.partition("\n")[0]))
    ticked = {name for part in _TICKED.findall(text) for name in _WORD.findall(part)}
    return Task({term: min(times, 4) ** 0.7 for term, times in counts.items()}, frozenset(names_in(text) | ticked))


class Ranked(NamedTuple):
    """A file's score, about 0 to 3, and the signal that gave the most of it."""

    path: str
    score: float
    why: str


class Corpus:
    """The index of one project: texts, paths, definitions, commits. Updated file by file."""

    def __init__(self) -> None:
        self.texts = Lexicon(k1=2.0, terms_of=terms_of_run)
        self.paths = Lexicon(b=0.3)
        self._defining: dict[str, set[str]] = {}
        self._defined: dict[str, tuple[str, ...]] = {}
        self._sizes: dict[str, int] = {}
        self._names: dict[str, _Name] = {}
        self._commits = Lexicon()
        self._files_of_commit: list[tuple[str, ...]] = []
        self._recency: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def put(self, path: str, counts: Mapping[str, int], defined: Iterable[str], size: int) -> None:
        """Add a file, or replace it. counts: of its runs of letters, see `words.count_runs`."""
        self._undefine(path)
        self.texts.put(path, counts)
        if path not in self.paths:
            self.paths.put(path, dict.fromkeys(path_terms(path), 1))
            self._names[path] = _name_of(path)
        # Interned: many files define what others do, and a copy of each name for each file was a quarter of the memory.
        self._defined[path] = names = tuple({intern(name.lower()) for name in defined})
        for name in names:
            self._defining.setdefault(name, set()).add(path)
        self._sizes[path] = size

    def remove(self, path: str) -> None:
        if path not in self._sizes:
            return
        self._undefine(path)
        self.texts.remove(path)
        self.paths.remove(path)
        del self._sizes[path]
        del self._names[path]

    def _undefine(self, path: str) -> None:
        for name in self._defined.pop(path, ()):
            holders = self._defining[name]
            holders.discard(path)
            if not holders:
                del self._defining[name]

    def put_history(self, commits: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Messages and files of past commits, newest first."""
        self._commits = Lexicon()
        self._files_of_commit = [tuple(files) for _, files in commits]
        self._recency = {}
        for place, (message, files) in enumerate(commits):
            if files and len(files) <= _WIDE_COMMIT:
                self._commits.put(str(place), count_terms(message))
            for path in files:
                self._recency.setdefault(path, 1 / (1 + place / 20))

    def rank(
        self, task: Task, *, seeds: Iterable[str] = (), dirty: Iterable[str] = (), limit: int = 100_000
    ) -> list[Ranked]:
        """The files that any signal points at, before any prior, best first, at most `limit`."""
        signals = {
            "text": (_TEXT, _scaled(self.texts.scores(task.terms))),
            "path": (_PATH, _scaled(self.paths.scores(task.terms))),
            "definitions": (_DEFINED, _scaled(self._defining_names(task))),
            "similar commits": (1.0, self._similar(task)),
            "recent": (_RECENT, self._recency if task.terms else _scaled(self._recency)),
            "earlier results": (_SEED, dict.fromkeys(seeds, 1.0)),
            "uncommitted": (_DIRTY, dict.fromkeys(dirty, 1.0)),
        }
        share = self._path_share(task, signals["path"][1])
        totals: dict[str, float] = {}
        reasons: dict[str, tuple[float, str]] = {}
        for why, (weight, scores) in signals.items():
            for path, score in scores.items():
                if path not in self._sizes:
                    continue
                worth = weight * score + (share.get(path, 0.0) if why == "path" else 0.0)
                totals[path] = totals.get(path, 0.0) + worth
                if worth > reasons.get(path, (0.0, ""))[0]:
                    reasons[path] = (worth, why)
        for path, (worth, other) in self._paired(totals).items():
            totals[path] += worth
            if worth > reasons[path][0]:
                reasons[path] = (worth, f"pair of {other}")
        sizes = self._sizes
        found = [(-score / max(sizes[path], 200) ** _SIZE, path) for path, score in totals.items() if score > 0]
        found.sort()
        return [Ranked(path, -score, reasons[path][1]) for score, path in found[:limit]]

    def _path_share(self, task: Task, by_path: Mapping[str, float]) -> dict[str, float]:
        """How much of a file's own name the task says."""
        shares = {}
        for path, score in by_path.items():
            terms = self._names[path].terms
            if terms:
                shares[path] = _PATH_SHARE * score * sum(term in task.terms for term in terms) / len(terms)
        return shares

    def _defining_names(self, task: Task) -> dict[str, float]:
        scores: dict[str, float] = defaultdict(float)
        for name in sorted(task.names):
            holders = self._defining.get(name.lower(), ())
            if holders:
                worth = log(1 + len(self._sizes) / len(holders)) / len(holders) ** 0.5
                for path in holders:
                    scores[path] += worth
        return scores

    def _similar(self, task: Task) -> dict[str, float]:
        """Files of past commits whose messages are like the task."""
        found = self._commits.scores(task.terms)
        nearest = sorted(found.items(), key=lambda pair: (-pair[1], int(pair[0])))[:_SIMILAR_COMMITS]
        wide: dict[str, float] = defaultdict(float)
        narrow: dict[str, float] = defaultdict(float)
        for rank, (place, score) in enumerate(nearest):
            files = [path for path in self._files_of_commit[int(place)] if path in self._sizes]
            likeness = score / nearest[0][1]
            for path in files:
                if rank < _SIMILAR_COMMITS // 2:
                    wide[path] += likeness**2 / (1 + log(len(files)))
                narrow[path] += likeness**3 / len(files) ** 0.5 / (1 + int(place) / 500)
        wide, narrow = _scaled(wide), _scaled(narrow)
        return {path: _SIMILAR * wide.get(path, 0.0) + _SIMILAR_NARROW * narrow[path] for path in narrow}

    def _paired(self, totals: Mapping[str, float]) -> dict[str, tuple[float, str]]:
        """The score that a file gets from its well-placed test, or a test from its file."""
        least = max(totals.values(), default=0.0) * _WORTH_PAIRING
        best: dict[tuple[str, bool], tuple[float, str]] = {}
        for path, score in totals.items():
            if score >= least:
                name = self._names[path]
                key = (name.bare, name.is_test)
                best[key] = max(best.get(key, (0.0, "")), (_PAIRED * score, path))
        gained = {}
        for path in totals:
            name = self._names[path]
            found = best.get((name.bare, not name.is_test))
            if found is not None and len(name.bare) > 2:
                gained[path] = found
        return gained


class _Name(NamedTuple):
    """The name of a file: its terms, and the name that its test or source shares."""

    terms: tuple[str, ...]
    bare: str
    is_test: bool


def _name_of(path: str) -> _Name:
    own = path.rpartition("/")[2].partition(".")[0]
    return _Name(tuple(count_terms(own.replace("-", " "))), _bare_name(path), role_of(path) is Role.TEST)


def _scaled(scores: Mapping[str, float]) -> dict[str, float]:
    best = max(scores.values(), default=0.0)
    return {key: score / best for key, score in scores.items()} if best > 0 else {}


def _bare_name(path: str) -> str:
    """`test_views.py`, `views_test.go` and `views.spec.ts` are all views."""
    return _TEST_MARK.sub("", path.rpartition("/")[2].rpartition(".")[0]).lower()


def by_path(
    paths: Iterable[str], query: str, *, touched: Mapping[str, int], dirty: Collection[str], seeds: Collection[str]
) -> dict[str, float]:
    """Scores from names alone, 0 to about 3: what there is while no index is ready.

    touched: commits since each file was last touched. seeds: paths the issue's earlier results name.
    """
    scores = dict.fromkeys(paths, 0.0)
    asked = frozenset(count_terms(query))
    said = _said_by(scores, asked) if asked else {}
    spread = Counter(word for words in said.values() for word in words)
    weight = {word: log(1 + len(scores) / times) for word, times in spread.items()}
    total = sum(sorted(weight.values())) or 1.0  # sorted: sums of floats depend on their order
    for path, words in said.items():
        scores[path] = sum(sorted(weight[word] for word in words)) / total
    for path in seeds:
        if path in scores:
            scores[path] += 1.5
    if query:
        named = frozenset(seeds)
        for path in scores:
            if path in query and path not in named:
                scores[path] += 1.5
    for path in dirty:
        if path in scores:
            scores[path] += 0.5
    for path, place in touched.items():
        if path in scores:
            scores[path] += 0.3 / (1 + place / 5)
    return scores


def _said_by(paths: Iterable[str], asked: frozenset[str]) -> dict[str, frozenset[str]]:
    """path -> which of the asked terms it says, if any."""
    of_folder: dict[str, frozenset[str]] = {}
    said = {}
    may_say = quick_look_for(asked)  # to cut every name into its terms would take as long as to read a hundred files
    for path in paths:
        folder, _, name = path.rpartition("/")
        if (above := of_folder.get(folder)) is None:
            above = of_folder[folder] = path_terms(folder) & asked
        own = name_terms(name) & asked if may_say(name) else frozenset()
        if above or own:
            said[path] = above | own
    return said


def ordered(scores: Mapping[str, float]) -> list[str]:
    """Best first, ties by depth, then path."""
    return [path for _, _, path in sorted([(-score, path.count("/"), path) for path, score in scores.items()])]
