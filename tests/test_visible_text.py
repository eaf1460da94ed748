"""Nothing an agent wrote steers a terminal, a spreadsheet or a reader: the rules, and each command that shows text."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import category

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.cli.main import main
from sidecar.http.cli.terminal import csv_line
from sidecar.http.logs import JsonLines, TextLines
from sidecar.http.visible import LogText, cell, json_text, lines, one_field, one_line
from tests.fleet import wait_until

STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
HOSTILE = [
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]8;;http://evil\x1b\\",
        "\x9b31m",
        "\x9d0;x\x9c",
        "\x90q",
        "\x7f",
        "\b",
        "\x00",
    ),
    *("\u202e", "\u2066", "\u200b", "\u200d", "\u2060", "\ufeff", "\u2028", "\u2029", "\u061c", "\u180e", "\U000e0041"),
    *("\u3164", "\u115f", "\r", "\r\n", "\x85", "\x0e", "\x0f", "\u034f", "\ufffb"),
]
texts = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=20).map("".join)
printable = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Co", "Cn"])).filter(
    lambda text: not set(text) & set("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
)


def steers(text: str, *, allowed: str = "") -> bool:
    return any(category(c) in STEERING and c not in allowed for c in text)


class TestText:
    @given(texts)
    def test_in_one_line_holds_nothing_that_steers(self, text: str) -> None:
        assert not steers(one_line(text))
        assert not steers(one_field(text))
        assert one_line(text).splitlines() == ([one_line(text)] if text else [])

    @given(texts)
    def test_of_lines_holds_line_feeds_and_tabs_and_nothing_else_that_steers(self, text: str) -> None:
        assert not steers(lines(text), allowed="\n\t")
        assert lines(text).count("\n") == text.count("\n")

    @given(printable)
    def test_that_can_be_printed_stays_as_it_is(self, text: str) -> None:
        assert one_line(text) == one_field(text) == lines(text) == LogText().add(text, is_last=True) == text

    def test_with_ideographic_spaces_accents_and_emoji_stays_as_it_is(self) -> None:
        for text in ("日本\u3000語", "e\u0301", "❤\ufe0f", "a\u00a0b", "\ue0b0"):
            assert one_line(text) == text

    @given(
        st.recursive(texts | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner))
    )
    def test_as_json_means_the_same_and_holds_nothing_that_steers(self, value: Any) -> None:
        try:
            encoded = msgspec.json.encode(value).decode()
        except UnicodeEncodeError:  # a lone surrogate, which no JSON of the server holds
            return
        for only_ascii in (False, True):
            written = json_text(encoded, only_ascii=only_ascii)
            assert json.loads(written) == json.loads(encoded)
            assert not steers(written, allowed="\n")
            assert written.isascii() or not only_ascii

    @given(
        texts
        | st.sampled_from("=+-@").map(lambda c: f"{c}cmd|' /C calc'!A0")
        | st.sampled_from(["\t=1", " =1", "\r=1", "＝1"])
    )
    def test_in_a_cell_begins_no_formula(self, text: str) -> None:
        (row,) = csv.reader(io.StringIO(csv_line([text, 5]), newline=""))
        shown = row[0]
        assert shown == cell(text)
        assert shown.lstrip()[:1] not in set("=+-@＝＋－＠")
        assert shown[:1] not in ("\t", "\r", "\n")
        assert not steers(shown, allowed="\n\t")
        assert row[1] == "5"

    def test_in_a_cell_that_is_a_number_stays_one(self) -> None:
        assert csv_line([-5, -0.5, True, None, "a"]) == "-5,-0.5,true,,a"


class TestALogForATerminal:
    @given(st.lists(texts, max_size=5))
    def test_holds_nothing_that_steers_in_whatever_parts_it_comes(self, parts: list[str]) -> None:
        log = LogText()
        shown = "".join(log.add(part) for part in parts) + log.add("", is_last=True)
        assert not steers(shown, allowed="\n\t")
        assert shown == LogText().add("".join(parts), is_last=True)

    def test_loses_its_colours_and_keeps_its_lines(self) -> None:
        shown = LogText().add("\x1b[1;31mred\x1b[0m\x1b[K\r\n10 %\r20 %\n\x1b[2J\x1b]0;x\x07", is_last=True)
        assert shown == "red\n10 %\n20 %\n\\x1b[2J\\x1b]0;x\\x07"


class TestTheLogOfTheServer:
    def record(self, said: str) -> logging.LogRecord:
        try:
            raise ValueError(said)
        except ValueError:
            return logging.LogRecord("sidecar.x", logging.INFO, "x.py", 1, "said=%s", (said,), sys.exc_info())

    @given(texts)
    def test_holds_nothing_that_steers(self, said: str) -> None:
        shown = TextLines().format(self.record(said))
        assert not steers(shown, allowed="\n\t")
        try:
            said.encode()
        except UnicodeEncodeError:
            return
        line = JsonLines().format(self.record(said))
        assert not steers(line)
        assert json.loads(line)["said"] == said


Run = Callable[..., Result]


@pytest.fixture
def run(sidecar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    env = {"SIDECAR_URL": sidecar.url, "SIDECAR_STORAGE": str(sidecar.storage), "JWT_TOKEN": None}

    def invoke(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main, arguments, env=env, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return invoke


EVIL = "=cmd \x1b]0;pwned\x07\x1b[2J\x9b5m\u202egnp\u200b\x7f end"
SHOWS = [
    ("events", "list"),
    ("events", "subscribe", "tick", "--since", "earliest"),
    ("events", "publish", "tick", "--data", json.dumps({"text": EVIL})),
    ("results", "list"),
    ("agent", "list"),
    ("agent", "contexts", "AGENT"),
    ("agent", "show", "AGENT"),
    ("audit", "list"),
    ("events", "mailboxes"),
    ("context", "get", "issue-1", "go-specialist"),
]


@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_no_command_shows_what_would_steer(run: Run, sidecar: Any, project: Path, format_: str) -> None:
    (project / f"a{EVIL.replace('/', '')[:40]}.py").write_text(f"# {EVIL}\n")
    agent_id = sidecar.spawn("go-specialist", task=EVIL.replace("\x00", ""))["agent_id"]
    sidecar.operator.post("/api/events/tick", json={"data": {"text": EVIL, EVIL: 1}})
    run("results", "store", "issue-1", json.dumps({"status": "success", "decisions": [EVIL]}))
    sidecar.client(sidecar.operator_token()).get("/api/context/issue-1/go-specialist", params={"q": EVIL})
    for command in SHOWS:
        done = run(*(part.replace("AGENT", agent_id) for part in command), "--format", format_)
        assert not steers(done.stdout, allowed="\n"), command
        assert not steers(done.stderr, allowed="\n"), command
        if format_ == "json" and command[:2] != ("events", "subscribe"):
            json.loads(done.stdout)
        if format_ == "csv":
            fields = [field for row in csv.reader(io.StringIO(done.stdout, newline="")) for field in row]
            assert not [field for field in fields if field[:1] in "=+@" and field]
    shown = run("top").stdout
    assert not steers(shown, allowed="\n")
    (result,) = sidecar.operator.get("/api/results").json()["results"]
    got = run("results", "get", result["id"]).stdout
    assert not steers(got, allowed="\n")
    assert json.loads(got)["result"]["decisions"] == [EVIL]
    error = run("agent", "show", f"nobody{EVIL}".replace("/", ""), code=1).stderr
    assert not steers(error, allowed="\n")


def test_logs_are_shown_without_what_would_steer_and_raw_on_demand(run: Run, sidecar: Any) -> None:
    agent_id = sidecar.spawn("go-specialist")["agent_id"]
    wait_until(lambda: run("agent", "logs", agent_id).stdout == "ready\n")
    log = sidecar.operator.get(f"/api/agents/{agent_id}/logs").json()
    assert log["data"] == "ready\n"
    (path,) = [path for path in (sidecar.storage / "logs").rglob("*") if path.is_file() and path.stat().st_size]
    with path.open("a") as file:
        file.write(f"\x1b[31mred\x1b[0m {EVIL}\n")
    shown = run("agent", "logs", agent_id).stdout
    assert shown.startswith("ready\nred =cmd \\x1b]0;pwned\\x07\\x1b[2J\\x9b5m\\u202egnp\\u200b\\x7f end")
    assert EVIL in run("agent", "logs", agent_id, "--raw").stdout


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_output_that_takes_other_characters_is_escaped_and_json_stays_json(sidecar: Any, encoding: str) -> None:
    sidecar.operator.post("/api/events/tick", json={"data": {"text": "日本 é 👍"}})
    agent_id = sidecar.spawn("go-specialist", task="日本")["agent_id"]
    env = os.environ | {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token(), "PYTHONIOENCODING": encoding}

    def shown(*arguments: str) -> str:
        argv = [sys.executable, "-m", "sidecar.http.cli.main", *arguments]
        done = subprocess.run(argv, env=env, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode(encoding)

    listed = json.loads(shown("events", "list", "--type", "tick", "--format", "json"))
    assert listed["events"][0]["data"]["text"] == "日本 é 👍"
    assert ("日本" if encoding == "utf-8" else "\\u65e5\\u672c") in shown("agent", "show", agent_id)
