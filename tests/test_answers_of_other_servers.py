"""Answers that no sidecar gives, too long, compressed, dripping or of another shape, end in one clear error, soon."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.cli import terminal
from sidecar.http.cli.main import main
from sidecar.http.cli.sentences import sentence_of
from sidecar.http.client import http_client
from sidecar.http.client.api import Api
from sidecar.http.client.asynchronous import AsyncClient
from sidecar.http.client.blocking_http import BlockingHttp
from sidecar.http.client.steps import AnswerLost, HttpAnswer, HttpRequest
from sidecar.http.sdk import ONE_ATTEMPT, Client, NoServer, UnexpectedAnswer

Act = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(act: Act) -> Iterator[str]:
    """A server that does the same to every request; yields its URL."""
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with suppress(OSError):  # the client has left
                act(self)

        do_POST = do_DELETE = do_GET  # noqa: N815  # the names that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.ending = ending  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        ending.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join(timeout=5)


def answer(handler: BaseHTTPRequestHandler, body: bytes, **headers: str) -> None:
    handler.send_response(200)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def dripping(what: bytes, before: bytes = b"") -> Act:
    """Sends a byte every 10 ms: a client that only bounds each silence reads on for as long as it is sent something."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(before)
        while not handler.server.ending.wait(0.01):  # type: ignore[attr-defined]
            handler.wfile.write(what)

    return act


TOO_LONG: dict[str, Act] = {
    "by its own word": lambda handler: answer(handler, b"", Content_Length=str(1 << 40)),
    "without an end": without_end,
    "compressed": lambda handler: answer(handler, gzip.compress(b"[" * 10_000_000), Content_Encoding="gzip"),
}
DRIPPING: dict[str, Act] = {
    "body": dripping(b" ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
    "head": dripping(b"x", b"HTTP/1.1 200 OK\r\nX-Long: "),
    "status line": dripping(b"", b"HTTP/1.1 200"),
}


def blocking(url: str, timeout_s: float = 20.0) -> Any:
    with Client(url, "t", retries=ONE_ATTEMPT) as client:
        return client.call("GET", "/status", timeout_s=timeout_s)


def awaited(url: str, timeout_s: float = 20.0) -> Any:
    async def work() -> Any:
        async with AsyncClient(url, "t", retries=ONE_ATTEMPT) as client:
            return await client.call("GET", "/status", timeout_s=timeout_s)

    return asyncio.run(work())


@pytest.mark.parametrize("ask", [blocking, awaited])
@pytest.mark.parametrize("act", [pytest.param(act, id=name) for name, act in TOO_LONG.items()])
def test_an_answer_that_is_longer_than_any_of_a_sidecar_is_refused(ask: Callable[..., Any], act: Act) -> None:
    with server(act) as url, pytest.raises(UnexpectedAnswer, match="no sidecar, or one of another version: its answer"):
        ask(url)


@pytest.mark.parametrize("ask", [blocking, awaited])
@pytest.mark.parametrize("act", [pytest.param(act, id=name) for name, act in DRIPPING.items()])
def test_an_answer_that_goes_on_dripping_ends_when_the_time_for_all_of_it_is_up(
    ask: Callable[..., Any], act: Act
) -> None:
    with server(act) as url:
        began = time.monotonic()
        with pytest.raises(NoServer, match=r"no whole answer to GET /status within 0\.5 s"):
            ask(url, timeout_s=0.5)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("ask", [blocking, awaited])
def test_an_answer_as_long_as_the_longest_of_a_sidecar_is_read(ask: Callable[..., Any]) -> None:
    longest = b'"' + b" " * (http_client.MAX_ANSWER_BYTES - 2) + b'"'
    with server(lambda handler: answer(handler, longest)) as url:
        assert len(ask(url)) == len(longest) - 2


def test_a_time_that_was_up_leaves_no_connection_for_the_next_exchange() -> None:
    with server(DRIPPING["body"]) as url:
        http = BlockingHttp(url, check=None)
        first = http.exchange(HttpRequest("GET", "/", {}, None, 0.2))
        second = http.exchange(HttpRequest("GET", "/", {}, None, 0.2))
        assert isinstance(first, AnswerLost)
        assert isinstance(second, AnswerLost)
        http.close()


# --- Other shapes -------------------------------------------------------------------------------------------------

READS = [
    "status",
    "actors",
    "agent list",
    "agent show a",
    "agent restart a",
    "agent kill a",
    "agent contexts a",
    "agent logs a",
    "agent spawn t i",
    "audit list",
    "context get i python-specialist",
    "context refresh i t",
    "context clear i",
    "events list",
    "events mailboxes",
    "events dead-letters",
    "events dead-letters --replay evt-0000000000000001",
    "events publish x",
    "events subscribe --timeout 0",
    "results list",
    "results get r",
    "top",
    "dashboard --print",
]
LISTS = ("agents", "actors", "contexts", "records", "events", "mailboxes", "dead_letters", "results")
OBJECTS = ("context", "checks", "performance", "storage", "status", "data", "path", "next_agents")
SHAPES: list[Any] = [
    *(None, 1, "text", [], [[]], {}),
    dict.fromkeys((*LISTS, *OBJECTS), 1),
    {name: [1, None, []] for name in LISTS},
    {name: [{}] for name in LISTS},
]


@pytest.mark.parametrize("command", READS)
def test_a_command_that_gets_another_shape_says_so_in_one_line(command: str) -> None:
    for shape in SHAPES:
        with server(lambda handler, shape=shape: answer(handler, json.dumps(shape).encode())) as url:  # type: ignore[misc]
            shown = CliRunner().invoke(main, [*command.split(), "--url", url, "--token", "t"])
            said = shown.stderr.strip().splitlines()
            assert shown.exception is None or isinstance(shown.exception, SystemExit), (shape, shown.exc_info)
            if shown.exit_code:
                assert len(said) == 1 or command.startswith("events subscribe"), (shape, shown.stderr)
                assert "Traceback" not in shown.stderr
                assert all(f"what answers at {url} is no sidecar" in line or line.startswith("no ") for line in said)


REFUSALS: list[dict[str, Any]] = [
    {
        "error": "unauthorized",
        "message": "no",
        "code": "X",
        "details": {"message": 1, "self": 2, "expected": [1, None]},
    },
    {"error": "token_expired", "message": "no", "code": "X", "details": {"expected": {"a": []}, "wire_code": [1]}},
    {"error": "no_server", "message": "\x1b]0;title\x07 no", "code": "X"},
    {"error": "config", "message": "no\nno", "code": "", "details": {"request_id": {}}},
    {"error": 1, "message": "no"},
    {"error": "unauthorized", "message": "no", "details": []},
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_with_odd_details_is_shown_in_one_line(refusal: dict[str, Any]) -> None:
    body = json.dumps(refusal).encode()

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with server(act) as url:
        shown = CliRunner().invoke(main, ["agent", "list", "--url", url, "--token", "t"])
    assert isinstance(shown.exception, SystemExit), shown.exc_info
    assert len(shown.stderr.splitlines()) == 1
    assert shown.stderr.rstrip("\n").isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    *("incarnation", "cause", "exit_code", "signal", "process_id", "uptime_seconds", "delay_ms", "reason", "why"),
    *("waiting_for", "path", "files", "agent_type", "decision", "tests", "status", "error"),
)
EVENT_TYPES = (
    *("agent_spawned", "agent_started", "agent_exited", "agent_restarting", "agent_stopped", "agent_failed"),
    *("agent_queued", "agent_blocked", "agent_adopted", "agent_lost", "chain_cut", "implementation_complete"),
    *("testing_complete", "other"),
)
event_data = st.dictionaries(st.sampled_from(FIELDS), json_values) | json_values


@given(st.sampled_from(EVENT_TYPES), st.sampled_from(["sidecar", "a"]), event_data)
def test_every_event_has_a_sentence_whatever_its_data(event_type: str, publisher: str, data: Any) -> None:
    event = {"event_type": event_type, "publisher": publisher, "topic": "system", "data": data}
    assert isinstance(sentence_of(event).text, str)


@given(json_values)
def test_every_value_can_stand_in_a_table(value: Any) -> None:
    for show in (terminal.clock, terminal.seconds, terminal.number(1, " MB"), terminal.state, terminal.as_it_is):
        assert isinstance(show(value), str)


def test_text_that_is_nested_too_deep_is_another_shape() -> None:
    with server(lambda handler: answer(handler, b"[" * 1_000_000)) as url, pytest.raises(UnexpectedAnswer):
        blocking(url)


# --- The core, without a server -----------------------------------------------------------------------------------


def test_a_field_that_the_shape_does_not_name_stays_in_the_answer() -> None:
    steps = Api("http://x", "t").call("GET", "/x", shape=dict[str, int])
    request = next(steps)
    assert isinstance(request, HttpRequest)
    assert request.headers["Accept-Encoding"] == "identity"
    with pytest.raises(StopIteration) as end:
        steps.send(HttpAnswer(200, {}, b'{"a": 1}'))
    assert end.value.value == {"a": 1}
