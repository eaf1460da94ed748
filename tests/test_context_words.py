"""What is looked at quickly says the same as what is looked at closely: words, names, definitions, minified lines."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.actors.context import lexicon as lexicon_module
from sidecar.actors.context.definitions import definitions_of, names_defined
from sidecar.actors.context.file_text import Unsent, raw_text
from sidecar.actors.context.lexicon import Lexicon
from sidecar.actors.context.words import (
    count_runs,
    count_terms,
    name_terms,
    path_terms,
    quick_look_for,
    terms_of_run,
)

PIECES = st.sampled_from(
    (
        "parse",
        "URL",
        "Policies",
        "streaming",
        "_",
        "__",
        "run",
        "s",
        "9",
        "1234567",
        "é",
        " ",
        ".",
        "-",
        "/",
        "\n",
        "The",
    )
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@given(TEXTS)
@example("123abc 12 1 2x_3")
def test_runs_have_the_terms_that_the_text_has(text: str) -> None:
    counts: Counter[str] = Counter()
    for run, times in count_runs(text).items():
        for term in terms_of_run(run):
            counts[term] += times
    assert counts == count_terms(text)


@given(TEXTS, TEXTS)
def test_no_name_that_says_a_term_is_passed_over(name: str, query: str) -> None:
    asked = frozenset(count_terms(query))
    if asked & name_terms(name):
        assert quick_look_for(asked)(name)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_path_says_what_its_parts_say(parts: list[str]) -> None:
    assert path_terms("/".join(parts)) == frozenset().union(*map(name_terms, "/".join(parts).split("/")))


@given(st.lists(st.tuples(st.integers(0, 3), TEXTS), max_size=8), TEXTS)
def test_names_find_what_their_terms_would(puts: list[tuple[int, str]], query: str) -> None:
    by_name, by_term = Lexicon(terms_of=terms_of_run), Lexicon()
    asked = dict.fromkeys(count_terms(query), 1.0)
    for key, text in puts:
        by_name.put(str(key), count_runs(text))
        by_term.put(str(key), count_terms(text))
        assert by_name.scores(asked) == by_term.scores(asked)
        by_name.remove("0")
        by_term.remove("0")
    assert by_name.scores(asked) == by_term.scores(asked)


def test_names_that_stand_nowhere_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon_module, "_SWEEP_AT", 50)
    lexicon = Lexicon(terms_of=terms_of_run)
    for n in range(500):
        lexicon.put("a", {f"name_{n}": 1, "stays": 1, "_": 1})
        assert set(lexicon.scores({"stay": 1.0, f"name{n}": 1.0})) == {"a"}
        assert lexicon.scores({f"name{n - 1}": 1.0}) == {}
    assert len(lexicon._postings) < 120
    assert len(lexicon._names["name"]) < 120


def test_a_name_counts_as_often_as_it_can_be_told() -> None:
    lexicon = Lexicon()
    lexicon.put("a", {"word": 1 << 20})
    lexicon.put("b", {"word": 1, "other": 1})
    assert lexicon.scores({"word": 1.0})["a"] > lexicon.scores({"word": 1.0})["b"]
    assert set(lexicon.scores({"other": 1.0})) == {"b"}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "def first():\n    pass\n\n    async def second(self):\nclass Third:\nif x:\n"),
        ("rust", "pub(crate) unsafe fn first() {\nimpl<T> Show for Second {\n  static data: u8\n"),
        ("haskell", "data Tree = Leaf\n"),
        ("java", "    public static int first(int a) {\n        return a;\n"),
        ("markdown", "First\n=====\n## Second\ntext\n"),
        ("toml", "[first]\nkey = 1\n"),
    ],
)
def test_names_are_those_of_the_definitions(language: str, text: str) -> None:
    found = definitions_of(text, language)
    assert found
    assert names_defined(text, language) == {at.name for at in found}
    lines = text.split("\n")
    assert all(at.name.split("(")[0] in lines[at.line] for at in found)


@pytest.mark.parametrize(
    ("text", "is_minified"),
    [
        ("x" * 5000 + "\n" + "y" * 5000 + "\n", False),
        ("x" * 5001, True),
        ("// a license\n" * 3 + "x" * 5001 + "\n", True),
        ("short\n" * 100 + "x" * 5001 + "\nend\n", False),  # a picture in a page, a literal in a test
        ("x" * 5001 + "\n" + "a line\n" * 9000, False),  # one long line in much text, as of data in a test
        ("a line\n" * 9000, False),
        ("", False),
    ],
)
def test_text_of_long_lines_is_minified(text: str, is_minified: bool) -> None:
    assert isinstance(raw_text(text.encode()), Unsent) is is_minified
