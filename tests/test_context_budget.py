"""A context never takes more bytes than it may, says what it left out, and is the same for the same input."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.context.definitions import definitions_of
from sidecar.actors.context.emit import encode, excerpt, head_that_fits
from sidecar.actors.context.excerpts import blocks_of, joined_spans
from sidecar.actors.context.file_text import Text, Unsent, lines_of, read_text
from sidecar.actors.context.safe_root import Root, Stamp
from tests.context_world import Builds, commit, omitted_of, order, repository, write


def module(name: str, functions: int, lines: int = 8) -> str:
    """A Python module; each function speaks of one thing that nothing else speaks of."""
    parts = [f'"""The {name} module."""\n']
    for n in range(functions):
        body = "".join(f'    step_{i} = {i}  # "quoted"\ttext\n' for i in range(lines))
        parts.append(f"\n\n# About {name} {n}.\ndef {name}_{n}(value):\n{body}    return value\n")
    return "".join(parts)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 60 modules, one large, with a history."""
    root = repository(tmp_path_factory.mktemp("budget") / "shop", {"README.md": "# Shop\n"})
    names = ["basket", "payment", "invoice", "stock", "mail", "login", "search", "report", "export", "audit"]
    files = {
        f"src/{name}/{part}.py": module(f"{name}_{part}", 8) for name in names for part in ("model", "view", "job")
    }
    files |= {f"tests/test_{name}.py": module(f"test_{name}", 6) for name in names}
    files |= {
        "src/large.py": module("large", 60),
        "pyproject.toml": "[project]\nname = 'shop'\ndependencies = ['flask']\n",
    }
    return commit(root, files, "Sell things " + "x" * 3000)


@pytest.mark.parametrize("max_bytes", [8192, 10_000, 16_384, 20_000, 32_768, 65_536, 131_072, 262_144, 10 << 20])
@pytest.mark.parametrize("agent_type", ["python-specialist", "chief-architect", "security-auditor"])
def test_no_answer_takes_more_than_it_may(shop: Path, max_bytes: int, agent_type: str) -> None:
    raw = Builds(shop).raw(agent_type, "the invoice view totals", max_bytes=max_bytes)
    answer = json.loads(raw)
    assert len(raw) <= max_bytes
    assert answer["context"]["relevant_files"]
    assert answer["file_count"] == len(answer["context"]["relevant_files"])
    assert answer["truncated"] == (answer["truncation_strategy"] != "none")
    if max_bytes > 1 << 20 or max_bytes < 1 << 16:
        assert answer["truncated"] == (max_bytes < 1 << 16)


def test_of_a_large_project_only_files_that_may_fit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer, before anything is indexed; sizes differ, so that the last bytes of the budget tempt."""
    write(tmp_path, {f"src/part_{n}.py": "# text\n" * (100 + n % 50) for n in range(400)})
    read = []
    real = Root.read

    def noted(root: Root, path: str, max_bytes: int) -> tuple[bytes, Stamp]:
        read.append(path)
        return real(root, path, max_bytes)

    monkeypatch.setattr(Root, "read", noted)
    builds = Builds(tmp_path)
    with closing(builds.index):  # it was told of the project, and has a process
        sent = builds.files(query="part", max_bytes=65_536)
    assert len(sent) > 40
    assert len([path for path in read if path.startswith("src/")]) <= len(sent) + 3


def test_small_budgets_are_used(shop: Path) -> None:
    for max_bytes in (16_384, 32_768, 131_072):
        assert len(Builds(shop).raw(query="invoice totals", max_bytes=max_bytes)) > 0.85 * max_bytes


def test_where_the_budget_is_small_the_parts_go_that_fit_the_task(tmp_path: Path) -> None:
    text = module("large", 60).replace("# About large 41.", "# Fills the zeppelin.")
    root = repository(tmp_path, {"large.py": text, "other.py": module("other", 30)})
    (large, *_) = Builds(root).files(query="The zeppelin is not filled", max_bytes=10_000).values()
    assert (large["path"], large["truncated"]) == ("large.py", True)
    assert "# Fills the zeppelin.\ndef large_41(value):" in large["content"]
    assert len(large["content"]) < len(text) / 2
    lines = lines_of(text)
    for span in large["excerpts"]:
        first, last = span["start_line"], span["end_line"]
        assert f"--- lines {first}-{last} of {len(lines)} ---\n" + "".join(lines[first - 1 : last]) in large["content"]


def test_a_part_begins_with_the_comment_of_its_first_definition(shop: Path) -> None:
    text = (shop / "src" / "large.py").read_text()
    lines = lines_of(text)
    starts = [block.start for block in blocks_of(text, "python", {"large": 1.0})]
    assert all(lines[start].startswith("# About") for start in starts[1:])


def test_what_was_left_out_is_told_with_its_reason(shop: Path) -> None:
    context = Builds(shop).answer(query="invoice totals", max_bytes=32_768)["context"]
    reasons = omitted_of(context)
    assert "over budget" in reasons.values()
    assert context["omitted_counts"]["over budget"] >= list(reasons.values()).count("over budget")
    sent = {file["path"]: file for file in context["relevant_files"]}
    for path, reason in reasons.items():
        assert (path in sent) == reason.startswith(("cut", "redacted")), path
    assert all(reasons.get(path, "cut").startswith("cut") for path, file in sent.items() if file["truncated"])
    assert context["omitted_counts"]["cut"] == sum(file["truncated"] for file in sent.values()) > 0


def test_words_that_stand_everywhere_in_a_file_do_not_choose_its_parts() -> None:
    """Of a task about the totals of orders, `order` says nothing of where in the order module to look."""
    plain = "def order_{}(value):\n" + "    value = order(value)\n" * 6 + "\n\n"
    text = "".join(
        "def totals(value):\n" + "    value = 0\n" * 6 + "\n\n" if n == 7 else plain.format(n) for n in range(12)
    )
    blocks = blocks_of(text, "python", {"order": 1.0, "total": 0.5})
    best = max(blocks, key=lambda block: block.score)
    assert "def totals" in "".join(lines_of(text)[best.start : best.end])


def test_the_neighbours_of_what_fits_come_before_what_is_far_from_it() -> None:
    text = module("large", 40).replace("# About large 20.", "# Fills the zeppelin.")
    blocks = blocks_of(text, "python", {"zeppelin": 1.0})
    (best,) = [place for place, block in enumerate(blocks) if block.score == max(block.score for block in blocks)]
    assert blocks[best - 1].score == blocks[best + 1].score > 0
    assert {block.score for block in (*blocks[: best - 1], *blocks[best + 2 :])} == {0.0}


def test_the_start_of_a_file_comes_before_other_parts_that_fit_no_better(tmp_path: Path) -> None:
    root = repository(tmp_path, {"src/zeppelin.py": module("large", 80), "src/other.py": module("other", 40)})
    file = Builds(root).files(query="zeppelin", max_bytes=8192)["src/zeppelin.py"]
    assert file["excerpts"][0]["start_line"] == 1


def test_files_asked_for_come_first_and_whole(shop: Path) -> None:
    files = Builds(shop).files(query="invoice totals", files=("src/mail/*.py", "README.md"), max_bytes=32_768)
    paths = list(files)
    assert paths[:4] == ["README.md", "src/mail/job.py", "src/mail/model.py", "src/mail/view.py"]
    assert not any(files[path]["truncated"] for path in paths[:4])


def test_equal_input_gives_equal_bytes(shop: Path) -> None:
    for max_bytes in (32_768, 131_072, 10 << 20):
        asked = order(query="payment job fails", max_bytes=max_bytes)
        first, second = (Builds(shop).built(asked)[0] for _ in range(2))
        assert first.core == second.core
        assert first.etag == second.etag


def test_a_file_over_its_limit_is_cut_at_the_end_of_a_line(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "x = 'é\t'\n" * 1000, "b.py": "b = 1\n"})
    file = Builds(root, max_file_bytes=2000).files()["a.py"]
    assert file["truncated"]
    assert file["content"].endswith("'\n")
    assert len(encode(file["content"])) <= 2000


def test_one_bad_file_never_fails_a_build(tmp_path: Path) -> None:
    root = repository(
        tmp_path,
        {
            "good.py": "good = 1\n",
            "binary.py": b"\x00\x01\x02",
            "latin.py": "caf\xe9 = 1\n".encode("latin-1"),
            "utf16.py": "wide = 1\n".encode("utf-16"),
            "bom.py": b"\xef\xbb\xbfbom = 1\n",
            "pointer.py": "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n",
            "min.js": "var a=1;" * 5000,
            "noise.py": bytes(range(1, 256)) * 10,
            "empty.py": "",
            "ends.py": "a\r\nb\x0cc\u2028d",
        },
    )
    (root / "unreadable.py").symlink_to("unreadable.py")
    files = Builds(root).files("chief-architect")
    assert set(files) == {"good.py", "latin.py", "utf16.py", "bom.py", "empty.py", "ends.py"}
    assert (files["latin.py"]["content"], files["latin.py"]["encoding"]) == ("café = 1\n", "latin-1")
    assert (files["utf16.py"]["content"], files["bom.py"]["content"]) == ("wide = 1\n", "bom = 1\n")
    context = Builds(root).answer("chief-architect")["context"]
    reasons = omitted_of(context)
    assert reasons["binary.py"] == reasons["noise.py"] == "binary"
    assert (reasons["pointer.py"], reasons["min.js"]) == ("lfs pointer", "minified")
    assert "min.js" in Builds(root).files("chief-architect", files=("min.js",))


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "a = 1\n", "gone.py": "b = 1\n"})
    builds = Builds(tmp_path)
    snapshot = builds.project.snapshot()
    (tmp_path / "gone.py").unlink()
    with builds.project.reading() as reader:
        assert reader.fragment("gone.py") == Unsent("missing")
    assert "gone.py" in snapshot.sizes


@given(st.text(), st.integers(2, 400))
def test_the_start_of_a_text_fits_and_is_a_start(text: str, max_bytes: int) -> None:
    head = head_that_fits(text, max_bytes)
    assert len(encode(head)) <= max_bytes
    assert text.startswith(head)


@given(
    st.text(alphabet="ab \n\r\x0c\u2028#@def(:", max_size=3000), st.sampled_from(["python", "c", "markdown", "yaml"])
)
@settings(max_examples=200)
def test_the_blocks_of_a_text_are_all_of_it_in_order(text: str, language: str) -> None:
    blocks = blocks_of(text, language, {"a": 1.0})
    lines = lines_of(text)
    assert "".join("".join(lines[block.start : block.end]) for block in blocks) == text
    assert [block.start for block in blocks[1:]] == [block.end for block in blocks[:-1]]
    assert all(len(lines) > definition.line for definition in definitions_of(text, language))
    if blocks:
        assert joined_spans(list(blocks)) == [(0, len(lines))]
        assert excerpt(text, [(0, len(lines))]).startswith(f"--- lines 1-{len(lines)} of {len(lines)} ---\n{text}")


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_have_a_reason(data: bytes) -> None:
    found = read_text(data)
    assert isinstance(found, Text | Unsent)
    if isinstance(found, Text):
        encode(found.text)
