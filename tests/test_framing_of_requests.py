"""Where a request ends is never a matter of opinion: what two readers could take for different lengths is refused."""

from __future__ import annotations

import json
import logging
import re
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from sidecar.http.loop.request_parser import (
    MAX_CHUNK_LINE_BYTES,
    MAX_FIELD_LINES,
    MAX_TRAILER_BYTES,
    RequestParser,
    parser_of,
)

WITHIN_S = 10.0
NEXT = "GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"


def answers(sidecar: Any, text: str) -> tuple[list[int], bytes]:
    """The statuses of all that a connection is answered, until it is closed."""
    host = f"127.0.0.1:{sidecar.sidecar.port}"
    with socket.create_connection(("127.0.0.1", sidecar.sidecar.port), timeout=WITHIN_S) as connection:
        connection.sendall(text.replace("{host}", host).encode("latin-1"))
        said = b""
        while more := connection.recv(65536):
            said += more
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", said)], said


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1\r\nHost: {host}\r\ncontent-length: 0\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        "HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: Chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(sidecar: Any, head: str) -> None:
    statuses, _ = answers(sidecar, f"POST /api/events/x {head}0\r\n\r\n{NEXT}")
    assert statuses == [400]


@pytest.mark.parametrize("field", ["Transfer-Encoding:\r\n chunked", "X-Any: a\r\n\tb", "Content-Length:\r\n 5"])
def test_a_field_that_goes_on_in_the_next_line_is_refused(sidecar: Any, field: str) -> None:
    statuses, said = answers(
        sidecar, f"POST /api/events/x HTTP/1.1\r\nHost: {{host}}\r\n{field}\r\n\r\n0\r\n\r\n{NEXT}"
    )
    assert statuses == [400]
    assert b"goes on in the next line" in said


def test_a_head_of_very_many_lines_is_refused_unread(sidecar: Any) -> None:
    for lines, expected in ((MAX_FIELD_LINES - 10, 200), (MAX_FIELD_LINES + 1, 400)):
        fields = "".join(f"X-{at}: a\r\n" for at in range(lines))
        head = f"GET /health HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n{fields}\r\n"
        assert answers(sidecar, head)[0] == [expected]


@pytest.mark.parametrize("digits", [20, 4299, 4301, 30_000])
def test_a_length_of_any_number_of_digits_is_answered(
    sidecar: Any, digits: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        statuses, said = answers(sidecar, f"POST /api/results HTTP/1.1\r\nContent-Length: {'1' * digits}\r\n\r\n")
    assert statuses in ([400], [413])
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] in ("REQ_001", "REQ_413")
    assert not caplog.records


@pytest.mark.parametrize(
    "option", ["TE, close", "Upgrade,close", "close, TE", "keep-alive , Close", "CLOSE\t,\tx", "close"]
)
def test_close_is_found_in_the_list_of_connection_options(sidecar: Any, option: str) -> None:
    statuses, said = answers(sidecar, f"GET /health HTTP/1.1\r\nHost: {{host}}\r\nConnection: {option}\r\n\r\n{NEXT}")
    assert statuses == [200]
    assert b"connection: close" in said.lower()


def test_keep_alive_is_found_in_the_list_of_an_http_1_0_client(sidecar: Any) -> None:
    first = "GET /health HTTP/1.0\r\nHost: {host}\r\nConnection: TE, keep-alive\r\n\r\n"
    statuses, _ = answers(sidecar, first + "GET /health HTTP/1.0\r\nHost: {host}\r\n\r\n")
    assert statuses == [200, 200]


def test_a_list_without_close_keeps_the_connection(sidecar: Any) -> None:
    first = "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: TE, closed\r\n\r\n"
    last = "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert answers(sidecar, first + last)[0] == [200, 200]


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x-unknown"])
def test_a_compressed_body_is_415_and_says_so(sidecar: Any, encoding: str) -> None:
    answer = sidecar.agent().post(
        "/api/events/step",
        content=b'{"data": {}}',
        headers={"Content-Type": "application/json", "Content-Encoding": encoding},
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "REQ_415")
    assert answer.json()["details"]["field"] == "Content-Encoding"
    assert "compressed" in answer.json()["message"]


def test_a_body_that_says_it_is_not_encoded_is_taken(sidecar: Any) -> None:
    answer = sidecar.agent().post("/api/events/step", json={"data": {}}, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 202


def test_an_event_stream_asks_proxies_not_to_keep_it_back(sidecar: Any) -> None:
    with sidecar.operator.stream("GET", "/api/events/stream") as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"


# --- The parser by itself -----------------------------------------------------------------------------------------

_PARSER = parser_of(lambda method, path: 1 << 20, lambda method, path: None)
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def parsed(data: bytes, *, step: int = 8192) -> RequestParser:
    """What the parser makes of a connection's first request."""
    parser = _PARSER(Adjustments(host="127.0.0.1", port=1))
    while data and not parser.completed:
        taken = parser.received(data[:step])
        data = data[taken:]
        assert taken > 0 or parser.completed
    return parser


@pytest.mark.parametrize(
    ("after", "most"), [(b"", MAX_CHUNK_LINE_BYTES), (b"1;", MAX_CHUNK_LINE_BYTES), (b"0\r\na: ", MAX_TRAILER_BYTES)]
)
def test_a_line_between_chunks_that_never_ends_is_given_up(after: bytes, most: int) -> None:
    parser = parsed(CHUNKED + after + b"1" * (most + 20_000), step=512)
    assert parser.completed
    assert parser.error is not None
    assert parser.body_bytes_received <= most + 1024


HEADS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Length", "Transfer-Encoding", "Connection", "Expect", "Host", "A"]),
        st.one_of(
            st.sampled_from(
                ["0", "5", "1" * 5000, "5, 5", "+5", "0x5", "chunked", "Chunked, chunked", "gzip", "close"]
            ),
            st.text(st.characters(max_codepoint=255), max_size=20),
        ),
    ),
    max_size=5,
)


@settings(deadline=None)  # a busy machine
@given(
    start=st.one_of(
        st.sampled_from(["GET / HTTP/1.1", "POST /a HTTP/1.0", "GET http://[ HTTP/1.1"]), st.text(max_size=30)
    ),
    head=HEADS,
    body=st.binary(max_size=200),
    step=st.integers(1, 300),
)
def test_whatever_comes_is_parsed_or_refused_but_never_fails(
    start: str, head: list[tuple[str, str]], body: bytes, step: int
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in head)
    parser = parsed(f"{start}\r\n{lines}\r\n".encode("latin-1", "replace") + body, step=step)
    if parser.completed and not parser.empty and parser.error is None:
        assert isinstance(parser.command, str)
