"""Words of code and prose: how texts, paths and commit messages are cut into the terms that are compared. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from ahocorasick_rs import AhoCorasick

from ...state.remembered import remembered

_RUN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]{2,6}")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_RUNS_APART = bytes(code if (chr(code).isalnum() and code < 128) or code == 95 else 32 for code in range(256))
_MAX_RUN = 80  # a longer name is compared by its parts alone
_MAX_NAME = 256  # longer runs are data, not names
_STOP = frozenset(
    [
        *("the", "a", "an", "and", "or", "of", "to", "in", "is", "it", "this", "that", "for", "on"),
        *("with", "as", "be", "by", "at", "from", "are", "was", "were", "not", "we", "if", "but", "can"),
        *("will", "should", "when", "which", "into", "than", "then", "so", "do", "does", "has", "have", "had", "there"),
        *("their", "its", "use", "used", "using", "also", "all", "any", "only", "one", "no"),
    ]
)
_PATH_MARKS = str.maketrans(".-", "  ")
_KEEP_S = ("ss", "us", "is")


def terms_of_run(run: str) -> tuple[str, ...]:
    """The terms of letters, digits and `_` that stand together: a name, or digits and then a name."""
    if len(run) > _MAX_NAME:
        return ()
    if run[0] <= "9":
        return tuple(term for name in _RUN.findall(run) for term in terms_of(name))
    return terms_of(run)


@remembered(32 << 20)
def terms_of(name: str) -> tuple[str, ...]:
    """The terms of one name: its parts, stemmed, and the whole of it where it has several parts.

    `parseURLPaths` gives pars, url, path and parseurlpaths.
    """
    if len(name) > _MAX_NAME:
        return ()
    parts = [stem(part.lower()) for part in _PART.findall(name)]
    found = [part for part in parts if len(part) > 1 and part not in _STOP]
    if len(parts) > 1 and len(name) <= _MAX_RUN:
        found.append(name.lower().replace("_", ""))
    return tuple(found)


@remembered(8 << 20)
def stem(word: str) -> str:
    """A word without its ending, roughly: enough for `streaming`, `streams` and `streamed` to meet."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            word = word[: -len(ending)]
            return word[:-1] if word[-1] == word[-2] and word[-1] not in "lsz" else word.rstrip("e")
    if len(word) > 3 and word.endswith("s") and not word.endswith(_KEEP_S):
        word = word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def runs_of(text: str) -> list[str]:
    """The runs of letters, digits and `_` in a text, in order; three times as fast as an expression."""
    return text.encode("utf-8", "replace").translate(_RUNS_APART).decode("ascii").split()


def count_runs(text: str) -> dict[str, int]:
    """How often each run stands in a text."""
    counts = Counter(runs_of(text))
    for run in [run for run in counts if len(run) > _MAX_NAME]:
        del counts[run]  # an index would keep it
    return counts


def count_terms(text: str) -> dict[str, int]:
    """How often each term stands in a text."""
    counts: dict[str, int] = {}
    for name, times in Counter(_RUN.findall(text)).items():
        for term in terms_of(name):
            counts[term] = counts.get(term, 0) + times
    return counts


class QueryTerms:
    """Some terms that are counted in many texts. What was found out about a run is kept for the next text."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._terms = frozenset(terms)
        self._met: set[str] = set()
        self._said_by: dict[str, list[str]] = {}  # run -> those of the terms that it has

    def count(self, text: str) -> dict[str, int]:
        """How often each of the terms stands in a text, those that do."""
        runs = runs_of(text)
        new = set(runs) - self._met
        self._met |= new
        for run in new:
            if found := [term for term in terms_of_run(run) if term in self._terms]:
                self._said_by[run] = found
        counts: dict[str, int] = {}
        for run in filter(self._said_by.__contains__, runs):
            for term in self._said_by[run]:
                counts[term] = counts.get(term, 0) + 1
        return counts


@remembered(16 << 20)
def path_terms(path: str) -> frozenset[str]:
    """The terms of a path, its folders included."""
    folder, slash, name = path.rpartition("/")
    return name_terms(name) | _folder_terms(folder) if slash else name_terms(name)


@remembered(4 << 20)
def _folder_terms(folder: str) -> frozenset[str]:
    return frozenset().union(*map(name_terms, folder.split("/")))


@remembered(8 << 20)
def name_terms(name: str) -> frozenset[str]:
    """The terms of one name in a path."""
    return frozenset(term for run in _RUN.findall(name.translate(_PATH_MARKS)) for term in terms_of(run))


def quick_look_for(terms: Collection[str]) -> Callable[[str], bool]:
    """A test that a name passes if `name_terms` of it has any of the terms, and seldom otherwise.

    A term is the start of a part of the name, or a run of it without `_`; only the last `y` of a stem may be our own.
    """
    look = AhoCorasick([term.removesuffix("y") or term for term in terms])
    return lambda name: bool(look.find_matches_as_indexes(name.lower().replace("_", "")))


def names_in(text: str) -> set[str]:
    """Names in a text that can only be code: with an underscore, a digit or a capital inside."""
    return {name for name in _RUN.findall(text) if len(name) > 2 and _looks_like_code(name)}


def _looks_like_code(name: str) -> bool:
    inner = name[1:]
    return "_" in inner.strip("_") or any(char.isupper() for char in inner) or any(char.isdigit() for char in inner)
