"""What of a file is text: in which encoding, whatever stands in one line, and which names are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors.context.file_text import Text, Unsent, read_text
from tests.context_world import Builds, context_of, omitted_of, repository, write
from tests.secret_samples import TOKENS, some

LONG = "x" * 6000


def test_one_long_line_does_not_hide_a_file(tmp_path: Path) -> None:
    root = repository(tmp_path, {"test_a.py": "def test_alpha():\n    pass\n" * 20 + f"X = '{LONG}'\nlast = 1\n"})
    file = Builds(root).files()["test_a.py"]
    assert file["truncated"]
    assert "def test_alpha" in file["content"]
    assert "last = 1" in file["content"]
    assert "[6,006 characters in this line]" in file["content"]
    assert omitted_of(context_of(root))["test_a.py"] == "cut: long lines"
    assert LONG in Builds(root).files(files=("test_a.py",))["test_a.py"]["content"]


def test_a_secret_in_a_long_line_leaves_no_part_at_the_cut() -> None:
    token = "ey" + "J" + some(300) + ".ey" + "J" + some(300) + "." + some(40)
    found = read_text(("a line\n" * 50 + f"A = '{token} {LONG}'\n").encode())
    assert isinstance(found, Text)
    assert token[:40] not in found.text
    assert found.redacted == 1


def test_a_secret_where_a_file_is_cut_leaves_no_part(tmp_path: Path) -> None:
    token = TOKENS["github-classic"]
    for before in (1960, 1975, 1990, 1999):
        write(tmp_path, {"a.txt": "y" * before + "\n" + token + "\n" + "z\n" * 3000})
        file = Builds(tmp_path, max_file_bytes=2000).files("documentation-expert")["a.txt"]
        assert token[:8] not in file["content"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_notebook_is_its_cells_without_their_outputs(tmp_path: Path, indent: int | None) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "a = 1\nb = 2", "outputs": [{"data": {"image/png": LONG * 200}}]},
    ]
    root = repository(tmp_path, {"a.ipynb": json.dumps({"cells": cells, "nbformat": 4}, indent=indent), "b.py": ""})
    file = Builds(root).files()["a.ipynb"]
    assert file["content"] == "# %% [markdown]\n# # Title\n# words\n\n# %%\na = 1\nb = 2\n"
    assert file["language"] == "python"
    assert omitted_of(context_of(root))["a.ipynb"] == "cut: outputs of cells"


@pytest.mark.parametrize("text", ["{}", "[" * 100_000, '{"cells": 3}', '{"cells": [1]}', "not json", '{"cells": []}'])
def test_what_only_ends_like_a_notebook_is_a_text(text: str) -> None:
    assert isinstance(read_text(text.encode(), path="a.ipynb"), Text | Unsent)


JAPANESE = "# これはテストです。ファイルの内容を読みます。\nprint('こんにちは')\n" * 4
KOREAN = "# 이것은 시험입니다. 파일의 내용을 읽습니다.\nprint('안녕하세요')\n" * 4
RUSSIAN = "# Это проверка. Читаем содержимое файла.\nprint('привет, мир')\n" * 4
ENGLISH = "def wide():\n    return 'text'\n" * 20


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (ENGLISH.encode("utf-16-le"), ENGLISH, "utf-16-le"),
        (ENGLISH.encode("utf-16-be"), ENGLISH, "utf-16-be"),
        (ENGLISH.encode("utf-32-le"), ENGLISH, "utf-32-le"),
        (ENGLISH.encode("utf-32-be"), ENGLISH, "utf-32-be"),
        (ENGLISH.encode("utf-16"), ENGLISH, "utf-16-le"),
        (ENGLISH.encode("utf-32"), ENGLISH, "utf-32-le"),
        (b"\x00\x00\xfe\xff" + ENGLISH.encode("utf-32-be"), ENGLISH, "utf-32-be"),
        (JAPANESE.encode("cp932"), JAPANESE, "shift_jis"),
        (JAPANESE.encode("euc_jp"), JAPANESE, "euc_jp"),
        (KOREAN.encode("euc_kr"), KOREAN, "euc_kr"),
        ("größer café naïve\n".encode("latin-1"), "größer café naïve\n", "latin-1"),
    ],
)
def test_text_without_a_name_of_its_encoding_is_read_right(data: bytes, text: str, encoding: str) -> None:
    found = read_text(data)
    assert isinstance(found, Text)
    assert (found.text, found.encoding) == (text, encoding)


def test_what_cannot_be_told_is_said_to_be_that_and_not_sent_as_something_else() -> None:
    assert read_text(RUSSIAN.encode("koi8_r")) in (Unsent("encoding not known"), Unsent("binary"))
    assert read_text("pass  # это\n".encode("koi8_r") * 3) == Unsent("encoding not known")
    assert read_text(bytes(range(256)) * 20) == Unsent("binary")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "utf-8-sig"])
def test_secrets_are_taken_out_in_every_encoding(encoding: str) -> None:
    token = TOKENS["github-classic"]
    found = read_text((ENGLISH + f"A = '{token}'\n").encode(encoding))
    assert isinstance(found, Text)
    assert token not in found.text
    assert found.redacted == 1


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_cut_anywhere_are_text_or_have_a_reason(data: bytes, max_bytes: int) -> None:
    assert isinstance(read_text(data, max_bytes=max_bytes), Text | Unsent)


def test_a_file_whose_name_holds_a_secret_is_left_out_and_counted(tmp_path: Path) -> None:
    token = TOKENS["github-classic"]
    root = repository(tmp_path, {f"{token}.py": "a = 1\n", f"{token}/b.py": "b = 1\n", "c.py": "c = 1\n"}, "Begin")
    (root / f"new-{token}.py").write_text("d = 1\n")
    answer = Builds(root).answer()
    assert token not in json.dumps(answer)
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["c.py"]
    assert "3 file names hold a secret and are left out" in answer["warnings"]


def test_a_mark_in_front_of_a_gitignore_is_no_part_of_its_first_line(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": b"\xef\xbb\xbfprivate.py\n", "private.py": "a = 1\n", "b.py": "b = 1\n"})
    assert "private.py" not in Builds(tmp_path).files()


@pytest.mark.parametrize("name", ["app/[id]/page.py", "!bang.py", "#hash.py", "~tilde.py", "a,b.py", "sp ace.py"])
def test_a_file_can_be_asked_for_by_its_own_name(tmp_path: Path, name: str) -> None:
    root = repository(tmp_path, {name: "a = 1\n", "main.go": "package main\n"})
    answer = Builds(root).answer("go-specialist", files=(name,))
    assert name in [file["path"] for file in answer["context"]["relevant_files"] if file["why"] == "asked for"]
    assert not [warning for warning in answer["warnings"] if "nothing matches" in warning]
