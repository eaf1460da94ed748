"""A body of ten megabytes can be gigabytes of objects, or one name to compare with all of ours. Neither is read."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.tables import LONGEST_NAME, nearest
from sidecar.http.wire.codec import MAX_QUOTED_CHARS
from sidecar.state.nesting import MAX_PARTS, has_more_parts, is_deeper
from tests.conftest import LiveSidecar

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a\\",[]{}:é', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='b\\",{[', max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


def parts(value: Any) -> int:
    """Strings, commas and opening brackets, and one more for each stretch between strings, as they are counted."""
    match value:
        case str():
            return 1
        case dict():
            return 1 + max(0, len(value) - 1) + sum(1 + parts(inner) for inner in value.values())
        case list():
            return 1 + max(0, len(value) - 1) + sum(map(parts, value))
        case _:
            return 0


@settings(deadline=None)  # a busy machine
@given(value=VALUES, levels=st.integers(0, 5), ascii_only=st.booleans())
def test_levels_are_counted_without_decoding(value: Any, levels: int, ascii_only: bool) -> None:
    assert is_deeper(json.dumps(value, ensure_ascii=ascii_only).encode(), levels) == (depth(value) > levels)


@settings(deadline=None)  # a busy machine
@given(value=VALUES, most=st.integers(0, 30))
def test_parts_are_counted_without_decoding(value: Any, most: int) -> None:
    text = json.dumps(value).encode()
    if has_more_parts(text, most):
        assert parts(value) + 1 > most
    else:
        assert parts(value) <= most or len(text) <= most


@pytest.mark.parametrize(
    "text", [b'"' * 1000, b'"' + b'\\"' * 1000, b'"\\', b"[" * 1000, b'{"a":"' * 300, b"\\\\\\" * 99]
)
def test_what_is_no_json_is_counted_too(text: bytes) -> None:
    assert isinstance(has_more_parts(text, 10), bool)


def result_of(inside: str) -> bytes:
    sent = {"agent_id": "worker", "agent_type": "python-specialist", "issue_id": "i", "project_id": "default"}
    return json.dumps({**sent, "result": {"status": "success", "x": 0}}).replace('"x": 0', f'"x": {inside}').encode()


JSON = {"Content-Type": "application/json"}


def test_a_result_of_very_many_parts_is_refused(sidecar: LiveSidecar) -> None:
    agent = sidecar.agent("python-specialist", "worker")
    for inside in ("{}", "[]", '""', "1", "[[[[]]]]"):
        many = "[" + ",".join([inside] * MAX_PARTS) + ",0]"
        answer = agent.post("/api/results", content=result_of(many), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (400, "REQ_001")
        assert f"{MAX_PARTS:,}" in answer.json()["message"]


def test_a_result_of_many_parts_is_stored_and_so_is_one_of_much_text(sidecar: LiveSidecar) -> None:
    agent = sidecar.agent("python-specialist", "worker")
    for inside in ("[" + ",".join(["1"] * (MAX_PARTS - 100)) + "]", json.dumps('[{"a,":1}],' * MAX_PARTS)):
        answer = agent.post("/api/results", content=result_of(inside), headers=JSON)
        assert answer.status_code == 201, answer.text


def called(agent: httpx.Client, name: str, arguments: str) -> httpx.Response:
    body = (
        f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {{"name": {name}, "arguments": {arguments}}}}}'
    )
    return agent.post("/mcp", content=body.encode(), headers=JSON)


def test_a_tool_takes_no_more_parts_either_in_whatever_form(sidecar: LiveSidecar) -> None:
    agent = sidecar.agent("python-specialist", "worker")
    many = '{"status": "success", "x": [' + ",".join(["[]"] * MAX_PARTS) + "]}"
    for written in (many, json.dumps(many)):
        answer = called(agent, '"store_result"', f'{{"result": {written}}}')
        assert f"{MAX_PARTS:,}" in answer.text


def test_a_long_name_is_quoted_in_short(sidecar: LiveSidecar) -> None:
    agent = sidecar.agent("python-specialist", "worker")
    name = "result" * 100_000
    for answer in (
        agent.post("/api/results", content=json.dumps({name: 1}).encode(), headers=JSON),
        agent.post("/api/results", content=result_of("0").replace(b"success", name.encode()), headers=JSON),
        called(agent, json.dumps(name), "{}"),
    ):
        assert len(answer.content) < 4 * MAX_QUOTED_CHARS + 2000
        assert "result" in answer.text


def test_only_names_that_can_be_meant_are_compared() -> None:
    assert nearest("resutl", ["result"]) == "result"
    assert nearest("result" * LONGEST_NAME, ["result" * LONGEST_NAME]) is None
