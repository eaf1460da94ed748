"""A head that comes again is not parsed again; nobody can tell, but by the clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from sidecar.http.loop.request_parser import REMEMBERED_HEADS, RequestParser, parser_of

LIMIT = 64
SAME_AS_WAITRESS = (
    "command path query request_uri version headers connection_close content_length chunked expect_continue "
    "url_scheme first_line completed empty headers_finished header_bytes_received body_bytes_received"
)


def new_parser(limit: int = LIMIT) -> type[RequestParser]:
    return parser_of(lambda method, path: limit, lambda method, path: None)


def head(*, path: str = "/a?b=c", body: int = 0, more: tuple[str, ...] = ()) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *more, *([f"Content-Length: {body}"] if body else [])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def fed(parser: Any, pieces: list[bytes]) -> tuple[Any, bytes]:
    """The parser after as much of the pieces as it takes, and what it left."""
    left = b"".join(pieces)
    for piece in pieces:
        while piece and not parser.completed:
            piece = piece[parser.received(piece) :]
        left = piece if parser.completed else b""
        if parser.completed:
            break
    return parser, left


def seen(parser: Any) -> dict[str, Any]:
    about = {name: getattr(parser, name, None) for name in SAME_AS_WAITRESS.split()}
    for name in ("command", "path"):  # of a head that is refused; Waitress's parser has neither
        about[name] = about[name] or None
    about["body"] = parser.get_body_stream().read()
    about["error"] = None if parser.error is None else (parser.error.code, str(parser.error.body))
    return about


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(at)]


HEADERS = st.lists(
    st.sampled_from(
        [
            "Accept: */*",
            "Authorization: Bearer abc",
            "Connection: close",
            "Connection: keep-alive",
            "Expect: 100-continue",
            "Transfer-Encoding: chunked",
            "X-Twice: 1",
            "X-Twice: 2",
            "bad header",
        ]
    ),
    max_size=4,
)


@given(
    more=HEADERS,
    body=st.integers(0, LIMIT),
    path=st.sampled_from(["/", "/a?b=c", "//x", "/%41", "bad path"]),
    places=st.lists(st.integers(0, 300), max_size=4),
    rest=st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n"]),
)
def test_a_remembered_head_reads_as_waitress_reads_it(
    more: list[str], body: int, path: str, places: list[int], rest: bytes
) -> None:
    # What we read in another way than Waitress is in test_framing_of_requests.py.
    assume("Transfer-Encoding: chunked" not in more)
    assume(sum(line.startswith("Connection") for line in more) < 2)
    adjustments = Adjustments()
    data = head(path=path, body=body, more=tuple(more)) + b"b" * body
    parser_class = new_parser(adjustments.max_request_body_size)
    for _ in range(2):
        fed(parser_class(adjustments), [data])  # from now on it is known, if it is one to be remembered
    pieces = cut(data + rest, places)
    theirs, left = fed(HTTPRequestParser(adjustments), pieces)
    ours, ours_left = fed(parser_class(adjustments), pieces)
    assert seen(ours) == seen(theirs)
    assert ours_left == left


def test_it_is_the_same_head_that_is_used_again() -> None:
    parser_class, data = new_parser(), head(body=3)
    once, _ = fed(parser_class(Adjustments()), [data + b"abc"])
    assert once.head is None
    first, _ = fed(parser_class(Adjustments()), [data + b"abc"])
    second, _ = fed(parser_class(Adjustments()), [data + b"xyz"])
    assert second.head is first.head is not None
    assert second.headers is first.headers
    assert (seen(first)["body"], seen(second)["body"]) == (b"abc", b"xyz")


@pytest.mark.parametrize(
    "data",
    [
        head(body=LIMIT + 1) + b"b" * (LIMIT + 1),
        head(more=("Transfer-Encoding: chunked",)) + b"1\r\nb\r\n0\r\n\r\n",
        head(body=1, more=("Expect: 100-continue",)) + b"b",
        head(more=("bad header",)),
        head(more=("X-Long: " + "x" * 5000,)),
    ],
    ids=["too large a body", "chunked", "expects 100", "malformed", "long"],
)
def test_what_is_special_is_parsed_each_time(data: bytes) -> None:
    parser_class = new_parser()
    for _ in range(3):
        parser, _left = fed(parser_class(Adjustments()), [data])
        assert parser.head is None


def test_a_body_over_its_routes_limit_is_refused_each_time() -> None:
    parser_class = new_parser()
    for _ in range(2):
        parser, _left = fed(parser_class(Adjustments()), [head(body=LIMIT + 1) + b"b" * (LIMIT + 1)])
        assert (parser.error.code, parser.error.body) == (413, str(LIMIT))


def test_no_more_heads_are_remembered_than_there_is_room_for() -> None:
    parser_class = new_parser()
    for n in range(REMEMBERED_HEADS + 10):
        for _ in range(2):
            fed(parser_class(Adjustments()), [head(path=f"/{n}")])
    assert parser_class.heads.get(head(path="/0")) is None
    assert parser_class.heads.get(head(path="/10")) is not None
    assert parser_class.heads.get(head(path=f"/{REMEMBERED_HEADS + 9}")) is not None


def test_heads_that_come_once_do_not_push_out_those_that_come_again() -> None:
    parser_class = new_parser()
    for _ in range(2):
        fed(parser_class(Adjustments()), [head(path="/again")])
    for n in range(REMEMBERED_HEADS * 2):
        fed(parser_class(Adjustments()), [head(path=f"/ack-{n}")])
    assert parser_class.heads.get(head(path="/again")) is not None
