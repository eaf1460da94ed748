"""Contents without secrets are looked through once; what a cut or a notebook leaves out makes them other contents."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors.context.file_text import Text, read_text
from sidecar.actors.context.secrets.clean_contents import CleanContents

_TOKEN = "ghp_" + "a1B2" * 9


def _text(data: bytes, **how: object) -> Text:
    found = read_text(data, **how)  # type: ignore[arg-type]
    assert isinstance(found, Text)
    return found


def test_the_older_half_is_forgotten_when_the_newer_one_is_full() -> None:
    clean = CleanContents(most_in_a_half=2)
    for key in (b"0", b"1", b"2"):
        clean.add(key)
    assert b"0" in clean  # asked for, so it is among the newer ones again
    clean.add(b"3")
    assert [key in clean for key in (b"0", b"1", b"2")] == [True, False, True]
    for number in range(100):
        clean.add(b"%d" % number)
        assert len(clean) <= 4


def test_a_secret_behind_a_clean_start_is_found_when_more_is_sent() -> None:
    start = "clean\n" * 10
    data = f"{start}token = '{_TOKEN}'\n".encode()
    assert _text(data, max_bytes=len(start)).redacted == 0
    whole = _text(data, max_bytes=len(data))
    assert whole.redacted == 1
    assert _TOKEN not in whole.text
    assert _text(data, max_bytes=len(start)).text == start


def test_a_secret_in_the_outputs_of_a_notebook_is_found_when_the_file_is_asked_for() -> None:
    cell = {"cell_type": "code", "source": ["print(1)\n"], "outputs": [{"text": [_TOKEN]}], "metadata": {}}
    data = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
    for _ in range(2):
        assert _text(data, path="a.ipynb").redacted == 0
        assert _text(data, path="a.ipynb", named=True).redacted == 1
        assert _text(data, path="a.json").redacted == 1


@given(st.lists(st.sampled_from(["x = 1\n", "ключ\n", f"t = {_TOKEN}\n", "\n"]), max_size=12), st.integers(0, 80))
def test_a_text_reads_the_same_each_time(lines: list[str], most: int) -> None:
    data = "".join(lines).encode()
    first, again = (read_text(data, max_bytes=most) for _ in range(2))
    assert first == again
    assert not isinstance(first, Text) or _TOKEN not in first.text
