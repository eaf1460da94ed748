"""A request that waits holds no thread, keeps its place on its connection, and is answered exactly once."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from sidecar.actors.runtime.asking import Later
from sidecar.http.loop.handling import Handler
from sidecar.http.loop.io_loop import HttpServer, make_server
from sidecar.http.loop.poller import Poller, SelectorPoller, make_poller
from sidecar.http.loop.reply import Reply
from sidecar.http.loop.streaming import Stream
from tests.fleet import wait_until

WITHIN_S = 10.0  # far more than anything here takes; a test that fails waits this long

Headers = list[tuple[str, str]]


def as_text(later: Later[str]) -> tuple[int, Headers, bytes]:
    if later.cancelled():
        return 503, [("Content-Type", "text/plain")], b"gave up"
    return 200, [("Content-Type", "text/plain")], later.result().encode()


class Waits:
    """What handlers parked, by name; a test takes them out as they come in."""

    def __init__(self) -> None:
        self._laters: dict[str, Later[str]] = {}
        self._changed = threading.Condition()

    def add(self, name: str) -> Later[str]:
        later: Later[str] = Later()
        with self._changed:
            self._laters[name] = later
            self._changed.notify_all()
        return later

    def take(self, name: str) -> Later[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: name in self._laters, WITHIN_S), f"nobody waits for {name}"
            return self._laters.pop(name)


@dataclass
class Site:
    """A small application on the server under test."""

    server: HttpServer = field(init=False)
    waits: Waits = field(default_factory=Waits)
    streams: list[Stream] = field(default_factory=list)
    streams_closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stream_opened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    held: threading.Event = field(default_factory=threading.Event)
    served: list[str] = field(default_factory=list)
    is_held: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def client(self) -> Client:
        return Client(self.server.effective_port)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        kind, _, name = environ["PATH_INFO"].strip("/").partition("/")
        self.served.append(kind)
        body = b""
        if kind == "wait":
            deadline_s = float(environ["QUERY_STRING"] or 60)
            environ["sidecar.park"](self.waits.add(name), render=as_text, deadline_s=deadline_s)
        elif kind == "park-and-fail":
            environ["sidecar.park"](self.waits.add(name), render=as_text, deadline_s=60)
            raise RuntimeError("on purpose")
        elif kind == "park-and-refuse":
            environ["sidecar.park"](self.waits.add(name), render=as_text, deadline_s=60)
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"no"]
        elif kind == "bad-render":
            environ["sidecar.park"](self.waits.add(name), render=lambda _: 1 / 0, deadline_s=60)
        elif kind == "bad-header":
            reply = (200, [("X-A", "b\r\nSet-Cookie: c")], b"")
            environ["sidecar.park"](self.waits.add(name), render=lambda _: reply, deadline_s=60)
        elif kind == "no-content":
            environ["sidecar.park"](self.waits.add(name), render=lambda _: (204, [], b""), deadline_s=60)
        elif kind == "stream":
            stream = environ["sidecar.stream"](
                headers=[("Content-Type", "text/event-stream")],
                on_close=self.streams_closed.release,
                max_buffered_bytes=1 << 20,
                heartbeat=b": beat\n\n" if name == "beating" else b"",
                heartbeat_s=0.05,
            )
            self.streams.append(stream)
            self.stream_opened.release()
        elif kind == "hold":  # a worker's thread, until the test lets go
            self.is_held.release()
            assert self.held.wait(WITHIN_S)
            body = b"held"
        elif kind == "echo":
            body = environ["wsgi.input"].read()
        elif kind == "big":
            body = bytes(int(name))
        else:
            body = kind.encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body] if body and environ["REQUEST_METHOD"] != "HEAD" else []

    def answer_quickly(self, environ: dict[str, Any]) -> Reply | None:
        """The same in the I/O thread, without WSGI; None: parked."""
        said: list[tuple[int, list[tuple[str, str]]]] = []
        body = b"".join(
            self({**environ, "REQUEST_METHOD": "GET"}, lambda status, headers: said.append((int(status[:3]), headers)))
        )
        status, headers = said[0]
        parks = environ["PATH_INFO"].startswith(("/wait/", "/bad-", "/no-content", "/stream"))
        return None if parks and status == 200 else (status, headers, body)

    def find_quick(self, method: str, path: str) -> Handler | None:
        is_quick = method != "PUT" and not path.startswith(("/hold", "/big", "/slow"))
        return self.answer_quickly if is_quick else None


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A raw socket, and just enough HTTP to read what comes back."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
        self._input = self.sock.makefile("rb")

    def send(self, *requests: str) -> Client:
        self.sock.sendall("".join(requests).encode())
        return self

    def read_head(self) -> Answer:
        status = self._input.readline().split()
        assert status, "the server closed the connection"
        headers = {}
        while (line := self._input.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return Answer(int(status[1]), headers, b"")

    def read(self, *, has_body: bool = True) -> Answer:
        answer = self.read_head()
        if has_body and "Content-Length" in answer.headers:
            answer.body = self._input.read(int(answer.headers["Content-Length"]))
        return answer

    def read_chunk(self) -> bytes:
        size = int(self._input.readline(), 16)
        chunk = self._input.read(size)
        assert self._input.readline() == b"\r\n"
        return chunk

    def is_closed_by_server(self) -> bool:
        return self._input.read(1) == b""

    def close(self) -> None:
        self._input.close()
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> str:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""])


def post(path: str, body: str, *headers: str) -> str:
    return get(path, f"Content-Length: {len(body)}", *headers, method="POST") + body


@contextmanager
def serving(*, quick: bool = False, **options: Any) -> Iterator[Site]:
    site = Site()
    if quick:
        options["find_quick"] = site.find_quick
    site.server = make_server(site, worker_threads=2, **options)
    thread = threading.Thread(target=site.server.run, name="io")
    thread.start()
    try:
        yield site
    finally:
        site.held.set()
        site.server.close(within_s=5.0)
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def poll_selector() -> Poller:
    return SelectorPoller(selectors.PollSelector())


@pytest.fixture(
    params=[(make_poller, False), (make_poller, True), (poll_selector, True)],
    ids=["workers", "quick", "selectors"],
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    poller, quick = request.param
    with serving(poller=poller(), quick=quick) as site:
        yield site


def test_parked_request_is_answered_when_the_future_is_done(site: Site) -> None:
    client = site.client().send(get("/wait/a"))
    site.waits.take("a").answer("hello")
    answer = client.read()
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/plain", b"hello")


def test_future_that_is_done_before_the_handler_returns_is_answered_too(site: Site) -> None:
    done: Later[str] = Later()
    done.answer("at once")
    site.waits.add = lambda _: done  # type: ignore[method-assign, assignment]
    assert site.client().send(get("/wait/a")).read().body == b"at once"


def test_more_requests_wait_than_there_are_threads(site: Site) -> None:
    clients = [site.client().send(get(f"/wait/{n}")) for n in range(20)]
    laters = [site.waits.take(str(n)) for n in range(20)]
    assert site.client().send(get("/hello")).read().body == b"hello"
    for n, later in reversed(list(enumerate(laters))):
        later.answer(f"answer {n}")
    assert [client.read().body for client in clients] == [f"answer {n}".encode() for n in range(20)]


def test_fan_out_larger_than_a_slice_reaches_everyone(site: Site) -> None:
    one_for_all: Later[str] = Later()
    parked = threading.Semaphore(0)

    def add(_: str) -> Later[str]:
        parked.release()
        return one_for_all

    site.waits.add = add  # type: ignore[method-assign, assignment]
    clients = [site.client().send(get("/wait/all")) for _ in range(300)]
    for _ in clients:
        assert parked.acquire(timeout=WITHIN_S)
    one_for_all.answer("now")
    assert {client.read().body for client in clients} == {b"now"}
    for client in clients:
        client.close()


def test_deadline_cancels_the_future_and_renders_it(site: Site) -> None:
    client = site.client().send(get("/wait/a?0.05"), get("/hello"))
    answer = client.read()
    assert (answer.status, answer.body) == (503, b"gave up")
    assert site.waits.take("a").cancelled()
    assert client.read().body == b"hello"


@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["FIN", "RST"])
def test_client_that_leaves_cancels_its_wait(site: Site, leave: Callable[[Client], None]) -> None:
    cancelled = threading.Semaphore(0)
    clients = [site.client().send(get(f"/wait/{n}")) for n in range(20)]
    for n in range(20):
        site.waits.take(str(n)).add_done_callback(lambda later: cancelled.release() if later.cancelled() else None)
    for client in clients:
        leave(client)
    for _ in clients:
        assert cancelled.acquire(timeout=WITHIN_S)
    assert site.client().send(get("/hello")).read().body == b"hello"


def test_half_closed_connection_counts_as_left(site: Site) -> None:
    client = site.client().send(get("/wait/a"))
    later = site.waits.take("a")
    cancelled = threading.Event()
    later.add_done_callback(lambda _: cancelled.set())
    client.sock.shutdown(socket.SHUT_WR)
    assert cancelled.wait(WITHIN_S)
    assert later.cancelled()
    assert client.is_closed_by_server()


def test_request_that_does_not_wait_is_answered_on_a_half_closed_connection(site: Site) -> None:
    client = site.client().send(get("/hold"))
    assert site.is_held.acquire(timeout=WITHIN_S)
    client.sock.shutdown(socket.SHUT_WR)
    assert site.client().send(get("/hello")).read().body == b"hello"  # the loop has seen the end of input by now
    site.held.set()
    assert client.read().body == b"held"
    assert client.is_closed_by_server()


@pytest.mark.parametrize("poller", [make_poller, poll_selector], ids=["epoll", "selectors"])
def test_wait_that_was_given_up_before_it_was_looked_at_is_not_begun(poller: Callable[[], Poller]) -> None:
    """Begun late, it would pass for its client's newest wait."""
    with serving(poller=poller(), quick=True) as site:
        client = site.client()
        assert client.send(get("/hello")).read().body == b"hello"
        sent = threading.Event()

        def ask_and_leave() -> None:  # in the I/O thread, so that both are seen in one turn
            client.send(get("/wait/a"))
            client.sock.shutdown(socket.SHUT_WR)
            sent.set()

        site.server.post(ask_and_leave)
        assert sent.wait(WITHIN_S)
        assert client.is_closed_by_server()
        assert site.served == ["hello"]


def test_client_that_resets_while_a_worker_serves_it_is_forgotten(site: Site) -> None:
    client = site.client().send(get("/hold"))
    assert site.is_held.acquire(timeout=WITHIN_S)
    (connection,) = site.server.active_channels.values()
    client.reset()
    assert site.client().send(get("/hello")).read().body == b"hello"
    assert connection.socket is not None  # the worker may be about to send
    site.held.set()
    probe = site.client().send(get("/wait/probe"))
    site.waits.take("probe").answer("")
    probe.read()
    assert len(site.server.active_channels) <= 2  # the two that are open


def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    client = site.client().send(get("/wait/a"), get("/one"), get("/wait/b?0.05"), get("/two"), get("/wait/c"))
    site.waits.take("a").answer("a")
    assert [client.read().body for _ in range(4)] == [b"a", b"one", b"gave up", b"two"]
    site.waits.take("c").answer("c")
    assert client.read().body == b"c"
    assert client.send(get("/still-alive")).read().body == b"still-alive"


def test_requests_sent_while_one_waits_are_answered_after_it(site: Site) -> None:
    client = site.client().send(get("/wait/a"))
    later = site.waits.take("a")
    client.send(get("/one"))
    assert site.client().send(get("/hello")).read().body == b"hello"  # a turn has seen the pipelined input
    client.send(get("/two"))
    assert site.client().send(get("/hello")).read().body == b"hello"
    later.answer("a")
    assert [client.read().body for _ in range(3)] == [b"a", b"one", b"two"]


def test_http_1_0_closes_after_the_answer_unless_asked_to_keep_alive(site: Site) -> None:
    client = site.client().send(get("/wait/a", version="1.0"))
    site.waits.take("a").answer("a")
    answer = client.read()
    assert (answer.body, answer.headers["Connection"]) == (b"a", "close")
    assert client.is_closed_by_server()
    client = site.client().send(get("/wait/b", "Connection: keep-alive", version="1.0"))
    site.waits.take("b").answer("b")
    answer = client.read()
    assert (answer.body, answer.headers["Connection"]) == (b"b", "Keep-Alive")
    assert client.send(get("/hello")).read().body == b"hello"


def test_connection_close_is_honoured(site: Site) -> None:
    client = site.client().send(get("/wait/a", "Connection: close"), get("/never"))
    site.waits.take("a").answer("a")
    answer = client.read()
    assert (answer.body, answer.headers["Connection"]) == (b"a", "close")
    assert client.is_closed_by_server()


def test_head_gets_the_head_of_the_answer_and_nothing_more(site: Site) -> None:
    client = site.client().send(get("/wait/a", method="HEAD"))
    site.waits.take("a").answer("12345")
    answer = client.read(has_body=False)
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "5", b"")
    assert client.send(get("/hello")).read().body == b"hello"


def test_answer_without_content_has_no_body_and_keeps_the_connection(site: Site) -> None:
    client = site.client().send(get("/no-content/a"))
    site.waits.take("a").answer("")
    answer = client.read()
    assert (answer.status, "Content-Length" in answer.headers, answer.body) == (204, False, b"")


def test_expect_100_continue_is_answered_before_the_body_comes(site: Site) -> None:
    client = site.client().send(get("/echo", "Expect: 100-continue", "Content-Length: 4", method="POST"))
    assert client.read().status == 100
    assert client.send("body").read().body == b"body"


def test_expect_100_continue_behind_a_parked_request_waits_its_turn(site: Site) -> None:
    client = site.client().send(
        get("/wait/a"), get("/echo", "Expect: 100-continue", "Content-Length: 4", method="POST")
    )
    site.waits.take("a").answer("a")
    assert client.read().body == b"a"
    assert client.read().status == 100
    assert client.send("body").read().body == b"body"


def test_handler_that_fails_after_parking_answers_500_and_cancels(site: Site) -> None:
    client = site.client().send(get("/park-and-fail/a"))
    assert client.read().status == 500
    assert site.waits.take("a").cancelled()


def test_handler_that_answers_after_parking_is_taken_at_its_word(site: Site) -> None:
    client = site.client().send(get("/park-and-refuse/a"))
    answer = client.read()
    assert (answer.status, answer.body) == (403, b"no")
    assert site.waits.take("a").cancelled()


@pytest.mark.parametrize("path", ["/bad-render/a", "/bad-header/a"])
def test_answer_that_cannot_be_rendered_is_a_500(site: Site, path: str) -> None:
    client = site.client().send(get(path))
    site.waits.take("a").answer("a")
    assert client.read().status == 500
    assert site.client().send(get("/hello")).read().body == b"hello"


def test_malformed_request_is_refused_in_the_product_s_words() -> None:
    def render(status: int, reason: str, _: str | None) -> tuple[Headers, bytes]:
        return [("Content-Type", "application/json")], f'{{"status": {status}, "reason": "{reason}"}}'.encode()

    with serving(render_refusal=render, max_body_bytes=100) as site:
        answer = site.client().send("GET / HTTP/1.1\r\nno colon\r\n\r\n").read()
        assert (answer.status, answer.body) == (400, b'{"status": 400, "reason": "Invalid header"}')
        client = site.client().send(post("/echo", "x" * 100_000))
        assert client.read().status == 413  # readable although the body was not read to its end


def test_answer_larger_than_the_socket_s_buffer_arrives_whole(site: Site) -> None:
    client = site.client().send(get("/wait/a"), get("/big/3000000"), get("/wait/b"))
    site.waits.take("a").answer("a" * 3_000_000)
    assert client.read().body == b"a" * 3_000_000
    assert client.read().body == bytes(3_000_000)
    site.waits.take("b").answer("b" * 3_000_000)
    assert client.read().body == b"b" * 3_000_000


def test_client_that_never_reads_holds_no_worker(site: Site) -> None:
    sinks = [site.client().send(get("/big/20000000"), get("/big/20000000"), get("/hello")) for _ in range(4)]
    wait_until(lambda: site.served.count("big") == 4)
    assert site.client().send(get("/slow")).read().body == b"slow"  # by a worker, too
    assert site.served.count("big") == 4  # the next one starts when the one before it was read
    assert [len(sinks[0].read().body) for _ in range(2)] == [20_000_000, 20_000_000]
    assert sinks[0].read().body == b"hello"


def test_slow_and_half_sent_requests_hold_nobody_up(site: Site) -> None:
    slow = [site.client().send("GET /hello HTTP/1.1\r\nHost: ") for _ in range(50)]
    assert site.client().send(get("/hello")).read().body == b"hello"
    for byte in "x\r\n\r\n":
        for client in slow:
            client.send(byte)
    assert {client.read().body for client in slow} == {b"hello"}


def test_request_that_is_never_completed_is_given_up(site: Site) -> None:
    client = site.client().send("GET /hello HTTP/1.1\r\nX-A: ")
    for byte in "slowloris":
        client.send(byte)
    idle = site.client().send(get("/hello"))
    assert idle.read().body == b"hello"
    done = threading.Event()

    def look() -> None:
        for connection in list(site.server.active_channels.values()):
            if connection.is_overdue(connection.last_activity, silent_s=60, request_s=0):
                connection.handle_close()
        done.set()

    site.server.post(look)
    assert done.wait(WITHIN_S)
    assert client.is_closed_by_server()
    assert idle.send(get("/again")).read().body == b"again"


def test_connections_over_the_limit_wait_to_be_accepted() -> None:
    with serving(connection_limit=3) as site:
        first = [site.client().send(get("/hello")) for _ in range(3)]
        assert {client.read().body for client in first} == {b"hello"}
        late = site.client().send(get("/late"))
        first.pop().close()
        assert late.read().body == b"late"


# --- Streams ----------------------------------------------------------------------------------------------------


def open_stream(site: Site, path: str = "/stream/a", **options: Any) -> tuple[Client, Stream]:
    client = site.client().send(get(path, **options))
    assert site.stream_opened.acquire(timeout=WITHIN_S)
    return client, site.streams[-1]


def test_stream_delivers_what_is_sent_until_it_is_closed(site: Site) -> None:
    client, stream = open_stream(site)
    head = client.read_head()
    assert (head.status, head.headers["Transfer-Encoding"]) == (200, "chunked")
    for text in (b"one", b"two"):
        assert stream.send(text)
        assert client.read_chunk() == text
    stream.close()
    assert client.read_chunk() == b""
    assert client.is_closed_by_server()
    assert site.streams_closed.acquire(timeout=WITHIN_S)
    assert not stream.send(b"three")


def test_stream_to_an_http_1_0_client_is_not_chunked(site: Site) -> None:
    client, stream = open_stream(site, version="1.0")
    assert "Transfer-Encoding" not in client.read_head().headers
    stream.send(b"data: 1\n\n")
    assert client._input.readline() == b"data: 1\n"


def test_stream_beats_while_nothing_is_sent(site: Site) -> None:
    client, _ = open_stream(site, "/stream/beating")
    client.read_head()
    assert [client.read_chunk() for _ in range(3)] == [b": beat\n\n"] * 3


@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["FIN", "RST"])
def test_stream_ends_when_its_reader_leaves(site: Site, leave: Callable[[Client], None]) -> None:
    client, stream = open_stream(site)
    client.read_head()
    leave(client)
    assert site.streams_closed.acquire(timeout=WITHIN_S)
    assert stream.is_closed


def test_slow_reader_of_a_stream_is_dropped(site: Site) -> None:
    client, stream = open_stream(site)
    client.read_head()
    sent = 0
    while stream.send(bytes(64 << 10)):
        sent += 1
        assert sent < 10_000
    assert site.streams_closed.acquire(timeout=WITHIN_S)
    assert site.client().send(get("/hello")).read().body == b"hello"


# --- Shutdown ---------------------------------------------------------------------------------------------------


def test_shutdown_answers_everyone_who_waits() -> None:
    with serving() as site:
        clients = [site.client().send(get(f"/wait/{n}")) for n in range(10)]
        laters = [site.waits.take(str(n)) for n in range(10)]
        streaming, _ = open_stream(site)
        streaming.read_head()
        held = site.client().send(get("/hold"))
        assert site.is_held.acquire(timeout=WITHIN_S)
        idle = site.client()

        def answer_waiters() -> None:
            for later in laters[:5]:
                later.answer("time is up")
            site.held.set()

        site.server.close(answer_waiters=answer_waiters, within_s=WITHIN_S)
        answers = [client.read() for client in clients]
        assert [answer.body for answer in answers] == [b"time is up"] * 5 + [b"gave up"] * 5
        assert {answer.headers["Connection"] for answer in answers} == {"close"}
        assert streaming.read_chunk() == b""
        assert held.read().body == b"held"
        assert idle.is_closed_by_server()
        with pytest.raises(ConnectionRefusedError):
            site.client()


def test_shutdown_does_not_wait_for_a_client_that_never_reads() -> None:
    with serving() as site:
        sink = site.client().send(get("/wait/a"))
        site.waits.take("a").answer("a" * 20_000_000)
        site.server.close(within_s=0.2)
        with pytest.raises(ConnectionRefusedError):
            site.client()
        sink.close()


def test_server_that_never_ran_can_be_closed() -> None:
    server = make_server(Site())
    server.close()
    server.run()  # returns at once
    with pytest.raises(ConnectionRefusedError):
        Client(server.effective_port)
