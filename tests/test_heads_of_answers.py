"""The head of an answer says what Waitress would say, for every request, status and length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from waitress.adjustments import Adjustments
from waitress.task import Task
from waitress.utilities import build_http_date

from sidecar.http.loop.answers import answer_head, status_line

NOW = 1_767_225_600
IDENT = "sidecar"
STATUSES = [200, 201, 202, 204, 304, 400, 404, 413, 500, 503]


def fields(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The first line, and the fields with small names, sorted."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    return first, sorted((name.lower(), value) for name, value in pairs)


def of_waitress(request: Any, status: int, headers: list[tuple[str, str]], length: int | None, last: bool) -> Any:
    task = Task(SimpleNamespace(server=SimpleNamespace(adj=Adjustments(ident=IDENT))), request)
    task.start_time = NOW
    task.status = status_line(status)
    task.response_headers = list(headers)
    task.content_length = length
    if last:
        task.set_close_on_finish()
    return task.build_response_header(), task.close_on_finish, task.chunked_response


@given(
    version=st.sampled_from(["1.0", "1.1", "0.9", "2.0"]),
    wish=st.sampled_from([None, "close", "keep-alive", "Keep-Alive", "CLOSE", "upgrade"]),
    status=st.sampled_from(STATUSES),
    headers=st.lists(st.sampled_from([("X-A", "1"), ("ETag", '"b"'), ("Set-Cookie", "c=d"), ("Content-Length", "5")])),
    length=st.none() | st.integers(0, 1000),
    last=st.booleans(),
)
def test_it_says_what_waitress_says(
    version: str,
    wish: str | None,
    status: int,
    headers: list[tuple[str, str]],
    length: int | None,
    last: bool,
) -> None:
    request = SimpleNamespace(version=version, command="GET", headers={} if wish is None else {"CONNECTION": wish})
    theirs, closes, is_chunked = of_waitress(request, status, headers, length, last)
    ours = answer_head(request, status, headers, length=length, now=NOW, is_last=last, ident=IDENT)
    # Waitress adds Keep-Alive to an answer for HTTP/1.0 even where it has said that it will close.
    told = [field for field in fields(theirs)[1] if not (closes and field == ("connection", "Keep-Alive"))]
    assert fields(ours.text) == (fields(theirs)[0], told)
    assert (ours.is_last, ours.is_chunked) == (closes, is_chunked)


def test_the_date_is_that_of_the_answer() -> None:
    request = SimpleNamespace(version="1.1", command="GET", headers={})
    for now in (NOW, NOW + 1):
        head = answer_head(request, 200, [], length=0, now=now, is_last=False, ident=IDENT)
        assert ("date", build_http_date(now)) in fields(head.text)[1]


@pytest.mark.parametrize("header", [("X-A", "b\r\nSet-Cookie: c"), ("X-A", "b\nc"), ("X-A\r\nSet-Cookie", "c")])
def test_a_header_that_would_begin_another_is_refused(header: tuple[str, str]) -> None:
    request = SimpleNamespace(version="1.1", command="GET", headers={})
    with pytest.raises(ValueError, match="line break"):
        answer_head(request, 200, [header], length=0, now=NOW, is_last=False, ident=IDENT)
