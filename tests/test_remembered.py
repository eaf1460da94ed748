"""What is kept of texts that others write is bounded in bytes, however many and however long they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors.context import kinds, roles, words
from sidecar.actors.context.secrets import names as secret_names
from sidecar.state.remembered import Remembered

KEPT: dict[str, Callable[[str], object]] = {
    "terms of a name": words.terms_of,
    "stem": words.stem,
    "terms of a path": words.path_terms,
    "terms of a name in a path": words.name_terms,
    "language": kinds.language_of,
    "role": roles.role_of,
    "secret by name": secret_names.is_secret_path,
}


@given(
    texts=st.lists(st.text(max_size=300) | st.text("aB_1", min_size=200, max_size=900), max_size=60),
    bound=st.integers(0, 1 << 19),
)
def test_the_answers_are_those_of_the_function_and_the_bound_holds(texts: list[str], bound: int) -> None:
    def parts(text: str) -> tuple[str, ...]:
        return tuple(text.split("_"))

    kept = Remembered(parts, bound)
    for text in texts * 2:
        assert kept(text) == parts(text)
        assert kept.kept_bytes <= bound


def test_what_was_asked_for_lately_is_not_found_out_again() -> None:
    asked: list[str] = []

    def length(text: str) -> str:
        asked.append(text)
        return str(len(text))

    kept = Remembered(length, 1 << 20)
    for number in range(10_000):
        kept("used again and again")
        kept(f"used once {number}")
    assert asked.count("used again and again") == 1
    assert len(asked) == 10_001


@pytest.mark.parametrize("which", KEPT)
def test_long_texts_are_looked_at_and_not_kept(which: str) -> None:
    function = KEPT[which]
    before = _kept_bytes(function)
    for number in range(50):
        function(f"{number}/" + "aB" * (1 << 14))
    assert _kept_bytes(function) - before < 1 << 16


def _kept_bytes(function: Callable[[str], object]) -> int:
    assert isinstance(function, Remembered), "its cache is not bounded in bytes"
    return function.kept_bytes


def test_words_too_long_to_be_names_have_no_terms() -> None:
    assert words.terms_of("aB" * 1000) == ()
    assert words.terms_of_run("12" + "aB" * 1000) == ()
    assert words.count_runs("short " + "x" * 1000) == {"short": 1}
    assert words.terms_of("test_" + "it_works_" * 20) != ()
