"""How much of the project its tests cover, in per cent, from a report the project's own tools wrote. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

# Where to look, the first that can be read counts.
_NAMES = (
    "coverage.xml",
    "cobertura.xml",
    "lcov.info",
    "coverage-summary.json",
    "coverage.json",
    "coverage.out",
    "cover.out",
)
_FOLDERS = ("", "coverage/", "reports/", "build/", "target/", "htmlcov/", "test-results/", "coverage/lcov-report/")

_MAX_PATH_CHARS = 200  # of a report's path, which is sent in the little room for metadata
CANDIDATES = tuple(folder + name for name in _NAMES for folder in _FOLDERS)


def candidates(paths: Iterable[str]) -> tuple[str, ...]:
    """Places of reports, also where `.gitignore` hides them: reports are seldom committed. Listed ones first."""
    listed = [
        path
        for path in paths
        if path.rpartition("/")[2] in _NAMES and path not in CANDIDATES and len(path) <= _MAX_PATH_CHARS
    ]
    return (*CANDIDATES, *sorted(listed)[:20])


def percent(path: str, text: str) -> float | None:
    """Lines covered in per cent, or None if the text is no report."""
    try:
        if path.endswith(".xml"):
            return _from_xml(text)
        if path.endswith(".info"):
            return _from_lcov(text)
        if path.endswith(".json"):
            return _from_json(text)
        return _from_go(text)
    except (
        *(
            ParseError,
            DefusedXmlException,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            ArithmeticError,
        ),
    ):
        return None


def _from_xml(text: str) -> float | None:
    # defusedxml: a report may have been written by anyone, entities in it would expand without end.
    top = fromstring(text)
    rate = top.get("line-rate")
    if rate is not None:
        return round(float(rate) * 100, 2)
    counters = [counter for counter in top.findall("counter") if counter.get("type") == "LINE"]  # JaCoCo
    missed, covered = (sum(int(counter.get(key, 0)) for counter in counters) for key in ("missed", "covered"))
    return _share(covered, missed + covered)


def _from_lcov(text: str) -> float | None:
    found = hit = 0
    for line in text.splitlines():
        if line.startswith("LF:"):
            found += int(line[3:])
        elif line.startswith("LH:"):
            hit += int(line[3:])
    return _share(hit, found)


def _from_json(text: str) -> float | None:
    data = json.loads(text)
    if "totals" in data:  # coverage.py
        return round(float(data["totals"]["percent_covered"]), 2)
    return round(float(data["total"]["lines"]["pct"]), 2)  # istanbul


def _from_go(text: str) -> float | None:
    if not text.startswith("mode:"):
        return None
    total = covered = 0
    for line in text.splitlines()[1:]:
        _, statements, count = line.rsplit(" ", 2)
        total += int(statements)
        covered += int(statements) if int(count) else 0
    return _share(covered, total)


def _share(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None
