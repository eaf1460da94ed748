"""No expression of the product takes more than linear time over text that others write, however hostile.

RE2 is linear by construction; what is put together of its matches, of tables and of loops is run here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sidecar.actors.context.requirements import FilePatterns
from sidecar.actors.context.secrets.redaction import redact
from sidecar.actors.context.secrets.rules import RULES, Rule
from sidecar.state.errors import InvalidContextRequest
from sidecar.state.nesting import is_deeper

SOON_S = 0.05  # less tells nothing of how it grows
STEEPEST = 1.6  # the exponent; 2 is quadratic


def _seconds(act: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(2):
        began = time.thread_time()
        act()
        best = min(best, time.thread_time() - began)
    return best


def _grows_linearly(act: Callable[[int], object], most: int) -> bool:
    """Whether four times as much takes less than 4^STEEPEST as long, or no time worth a measurement."""
    for size in (most // 64, most // 16, most // 4, most):
        took = _seconds(lambda size=size: act(size))  # type: ignore[misc]
        if took > SOON_S:
            return _seconds(lambda size=size: act(size * 4)) < took * 4**STEEPEST  # type: ignore[misc]
    return True


HOSTILE = (
    *("sk-", "-eyJ", "eyJ.", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "://", "://a:"),
    *("password=", "password = 'a", "token: ", "host=a;", "login a password ", "a@", "\n", " ", "\t", "/"),
    *("A" * 64 + "\n", "ghp_" + "a" * 30 + " ", "MTAw", "SK00", "s.aaaaaaaaaaaa", "[", "{", "a.", ),
)  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_redaction_takes_linear_time(word: str) -> None:
    redact(word)  # its expressions are made
    assert _grows_linearly(lambda size: redact(word * (size // len(word))), 1 << 18), word


def test_strings_that_do_not_end_are_passed_over_in_linear_time() -> None:
    assert _grows_linearly(lambda size: is_deeper(b"[" * 200 + b'"' + b'\\"' * (size // 2)), 1 << 20)


@pytest.mark.parametrize(
    "pattern", ["*a" * 8 + "*b", "*?" * 14 + "*~", "a/**/" * 8 + "b", "[a-z]" * 60 + "*" * 3, "*" * 20]
)
def test_patterns_of_many_stars_match_at_once(pattern: str) -> None:
    names = ["a" * 255 + str(number) for number in range(2000)] + ["a/" * 2000 + "x"]
    began = time.thread_time()
    patterns = FilePatterns((pattern,))
    patterns.matched(names)
    patterns.unmatched(names)
    assert time.thread_time() - began < 2.0


def test_patterns_with_too_many_stars_are_refused() -> None:
    with pytest.raises(InvalidContextRequest) as caught:
        FilePatterns(("*a" * 21,))
    assert "20" in str(caught.value.details["expected"])
    with pytest.raises(InvalidContextRequest):
        FilePatterns(tuple(f"{'*a' * 20}{number}" for number in range(11)))


def test_every_rule_of_secrets_has_marks_and_an_expression_that_re2_takes() -> None:
    for rule in RULES:
        assert isinstance(rule, Rule)
        assert all(len(mark) > 1 for mark in rule.marks)
        redact(rule.marks[0] + "a" * 50)
