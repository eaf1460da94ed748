"""The files that a task is about come first: on a generated project whose relations are planted, and on small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors.context.index.client import NearIndex
from sidecar.actors.context.index.messages import Know
from sidecar.actors.context.lexicon import Lexicon
from sidecar.actors.context.words import count_terms, names_in, stem, terms_of
from tests.context_world import Builds, commit, context_of, git, repository, sent_of, write

AREAS = ("basket", "payment", "invoice", "stock", "letter", "profile", "lookup", "report", "export", "audit")
FILLER = "".join(f"def step_{n}(value):\n    return value + {n}\n\n\n" for n in range(12))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred files. Each planted relation points at one of them through one signal alone."""
    root = tmp_path_factory.mktemp("ranking") / "project"
    files = {f"src/{area}/part_{n}.py": f'"""Part {n} of {area}."""\n\n{FILLER}' for area in AREAS for n in range(8)}
    files |= {f"tests/test_{area}.py": f"import {area}\n\n{FILLER}" for area in AREAS}
    files |= {
        "src/stock/warehouse.py": f"# Chooses the pallet for a parcel by its weight.\n{FILLER}",
        "src/letter/templating.py": FILLER,
        "src/audit/ledger.py": f"class JournalOfChanges:\n    pass\n\n\n{FILLER}",
        "src/uses_ledger.py": f"from audit.ledger import JournalOfChanges\n\nentry = JournalOfChanges\n{FILLER}",
        "src/export/odd_one.py": FILLER,
        "src/lookup/tokenizer.py": f"def tokenizer(text):\n    return text.split()\n\n\n{FILLER}",
        "tests/test_tokenizer.py": FILLER,
        "docs/guide.md": "# Guide\n\nHow to sell.\n",
        "pyproject.toml": "[project]\nname = 'planted'\n",
    }
    repository(root, files, "Plant everything")
    commit(root, {"src/export/odd_one.py": FILLER + "# 1\n"}, "Round the currency when a spreadsheet is written")
    for n in range(5):
        commit(root, {f"src/profile/part_{n}.py": FILLER + f"# {n}\n"}, f"Tidy {n}")
    return root


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("The wrong pallet is chosen for heavy parcels", "src/stock/warehouse.py"),  # words in the text
        ("Templating breaks on empty input", "src/letter/templating.py"),  # its name
        ("JournalOfChanges loses entries", "src/audit/ledger.py"),  # what it defines, before where that is used
        ("Rounding of currency in the spreadsheet is off", "src/export/odd_one.py"),  # a past commit like it
    ],
)
def test_the_file_that_a_task_is_about_comes_first(planted: Path, task: str, path: str) -> None:
    context = context_of(planted, query=task, max_bytes=65_536)
    ranked = [file["path"] for file in context["relevant_files"]]
    assert ranked[0] == path, ranked[:5]
    assert context["relevant_files"][0]["score"] >= context["relevant_files"][1]["score"]


def test_the_test_of_a_file_comes_soon_after_it(planted: Path) -> None:
    ranked = sent_of(planted, query="tokenizer drops the last word", max_bytes=65_536)
    assert ranked[0] == "src/lookup/tokenizer.py"
    assert "tests/test_tokenizer.py" in ranked[:3]


def test_where_a_name_is_used_comes_after_where_it_is_defined(planted: Path) -> None:
    ranked = sent_of(planted, query="JournalOfChanges loses entries", max_bytes=65_536)
    assert ranked.index("src/audit/ledger.py") < ranked.index("src/uses_ledger.py") <= 3


def test_files_that_earlier_agents_touched_come_before_the_rest(planted: Path) -> None:
    from sidecar.actors.context.earlier import Earlier

    touched = Earlier((), ("src/report/part_3.py",), "", 0)
    assert sent_of(planted, query="Go on with it", earlier=touched, max_bytes=65_536)[0] == "src/report/part_3.py"


def test_without_a_task_what_is_being_worked_on_comes_first(tmp_path: Path) -> None:
    root = repository(tmp_path, {f"part_{n}.py": FILLER for n in range(20)}, "Sow")
    write(root, {"part_7.py": FILLER + "# changed\n"})
    assert sent_of(root)[0] == "part_7.py"


def test_a_task_brings_in_a_file_that_is_not_of_the_agents_kind(planted: Path) -> None:
    assert "docs/guide.md" not in sent_of(planted, query="pallet for parcels")
    assert "docs/guide.md" in sent_of(planted, query="The guide should say how to sell")


def test_the_index_follows_the_files(tmp_path: Path) -> None:
    root = repository(tmp_path, {f"part_{n}.py": FILLER for n in range(20)})
    builds = Builds(root)
    assert next(iter(builds.files(query="where is the zeppelin"))) != "part_11.py"
    write(root, {"part_11.py": "def zeppelin():\n    pass\n" + FILLER})
    assert next(iter(builds.files(query="where is the zeppelin"))) == "part_11.py"
    write(root, {"part_11.py": FILLER, "new.py": "def zeppelin():\n    pass\n" + FILLER})
    assert next(iter(builds.files(query="where is the zeppelin"))) == "new.py"
    (root / "new.py").unlink()
    assert "new.py" not in builds.files(query="where is the zeppelin")


def test_words_of_code_and_prose_meet() -> None:
    assert {stem(word) for word in ("stream", "streams", "streaming", "streamed")} == {"stream"}
    assert terms_of("parseHTTPRequests") == ("pars", "http", "request", "parsehttprequests")
    assert count_terms("the user_name of UserName")["username"] == 2
    assert names_in("Let StateView and to_json work with Flask 3") == {"StateView", "to_json"}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.text(alphabet="xyz ", max_size=20)), max_size=40))
def test_a_lexicon_that_was_changed_answers_as_one_made_at_once(changes: list[tuple[str, str]]) -> None:
    changed = Lexicon()
    for key, text in changes:
        changed.put(key, count_terms(text.replace("x", "xenon ").replace("y", "yak ")))
        if text.endswith("z"):
            changed.remove(key)
    made = Lexicon()
    for key, text in dict(changes).items():
        if not text.endswith("z"):
            made.put(key, count_terms(text.replace("x", "xenon ").replace("y", "yak ")))
    query = {"xenon": 1.0, "yak": 0.5}
    assert {key: round(score, 9) for key, score in changed.scores(query).items()} == {
        key: round(score, 9) for key, score in made.scores(query).items()
    }


def test_past_commits_are_read_again_when_another_git_directory_has_them(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"a.py": FILLER, "b.py": FILLER})
    commit(root, {"b.py": FILLER + "# 1\n"}, "Inflate the airship")
    index, head = NearIndex(), git(root, "rev-parse", "HEAD").strip()
    reasons = []
    for version, git_dir in enumerate((tmp_path / "missing.git", root / ".git")):
        index.know(Know(str(root), ["a.py", "b.py"], head, 100_000, (str(git_dir), "")), str(version))
        ranking = index.rank(str(root), "airship", [], [], timeout_s=10.0)
        assert ranking is not None
        reasons.append([(path, why) for path, _, why in ranking.files])
    assert reasons == [[], [("b.py", "similar commits"), ("a.py", "recent")]]
