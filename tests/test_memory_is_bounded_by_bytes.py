"""What clients make the server keep is bounded in bytes: unread answers, unfinished bodies, what they are known by."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sidecar.http.loop.backlog import MAX_INCOMING_BYTES, MAX_UNREAD_BYTES_OF_ONE, STALLED_S, Backlog
from sidecar.http.loop.io_loop import HttpServer, make_server
from sidecar.http.loop.output import Output
from sidecar.http.loop.parking import ACCOUNT
from sidecar.http.loop.reply import Reply
from tests.fleet import wait_until

WITHIN_S = 10.0
MIB = 1 << 20


@given(st.lists(st.one_of(st.binary(max_size=9000), st.integers(1, 20_000)), max_size=60))
def test_output_gives_what_it_was_given_and_keeps_no_more_than_has_to_be_sent(steps: list[bytes | int]) -> None:
    output, model = Output(), b""
    for step in steps:
        if isinstance(step, bytes):
            output.append(step)
            model += step
            continue
        got = bytes(output.get(step))
        assert model.startswith(got)
        assert len(got) <= step
        assert bool(got) == bool(model)
        output.skip(len(got), True)
        model = model[len(got) :]
        assert len(output) == len(model)
        assert len(model) <= output.held_bytes <= len(model) + 9000 + 4096
    while len(output):
        got = bytes(output.get(1000))
        assert model.startswith(got)
        output.skip(len(got))
        model = model[len(got) :]
    assert (model, output.held_bytes) == (b"", 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60), st.sampled_from(["a", "b", None])), max_size=60))
def test_the_ledger_counts_every_byte_and_keeps_its_bounds(steps: list[tuple[int, int, str | None]]) -> None:
    ledger = Backlog(max_bytes=150, max_bytes_of_one=80)
    model: dict[Any, tuple[int, str | None]] = {}
    connections: Any = [object() for _ in range(10)]
    for which, count, account in steps:
        connection = connections[which]
        if count:
            closed = ledger.note(connection, count, account)
            model[connection] = (count, account)
        else:
            ledger.forget(connection)
            model.pop(connection, None)
            closed = []
        for gone in closed:
            del model[gone]
        assert ledger.bytes == sum(count for count, _ in model.values())
        assert ledger.bytes <= 150 or len(model) == 1
        for name in ("a", "b"):
            of_one = [count for count, account in model.values() if account == name]
            assert sum(of_one) <= 80 or len(of_one) == 1


class Site:
    """A server whose path says whose answer it is, and how many megabytes it has."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server

    def asks(self, path: str) -> socket.socket:
        """A client that asks and does not read."""
        client = socket.socket()
        client.settimeout(WITHIN_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel takes megabytes
        client.connect(("127.0.0.1", self.server.effective_port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client

    def unread(self) -> int:
        return self.server.unread.bytes

    def holds_only_unread_answers(self) -> bool:
        """Every client was answered or closed, and some were closed: none that is left waits for its answer."""
        return len(self.server.active_channels) == len(self.server.unread._accounts) < 10

    def in_loop(self, act: Any) -> None:
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self.server.post(run)
        assert done.wait(WITHIN_S)


@contextmanager
def serving(*, is_quick: bool) -> Iterator[Site]:
    def made(environ: dict[str, Any]) -> bytes:
        account, megabytes = environ["PATH_INFO"].strip("/").split("/")
        environ[ACCOUNT] = account
        return bytes(int(megabytes) * MIB)

    def quick(environ: dict[str, Any]) -> Reply:
        return 200, (), made(environ)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = made(environ)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = make_server(app, find_quick=lambda *_: quick if is_quick else None)
    loop = threading.Thread(target=server.run, daemon=True)
    loop.start()
    try:
        yield Site(server)
    finally:
        server.close(within_s=1.0)
        loop.join(WITHIN_S)


@pytest.fixture(params=["in the I/O thread", "by a worker"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with serving(is_quick=request.param == "in the I/O thread") as site:
        yield site


def received(client: socket.socket) -> int:
    """How many bytes come until the server closes."""
    count = 0
    try:
        while more := client.recv(1 << 20):
            count += len(more)
    except ConnectionResetError:
        pass
    return count


def test_unread_answers_of_one_account_are_bounded_and_the_oldest_is_closed(site: Site) -> None:
    with ExitStack() as stack:
        others = stack.enter_context(site.asks("/honest/9"))
        wait_until(lambda: site.unread() > 4 * MIB)
        clients = [stack.enter_context(site.asks("/hoarder/9")) for _ in range(12)]
        wait_until(site.holds_only_unread_answers)  # how many fit depends on what the kernel takes of each
        assert site.unread() <= MAX_UNREAD_BYTES_OF_ONE + 10 * MIB
        assert received(clients[0]) < 9 * MIB
        others.shutdown(socket.SHUT_WR)
        assert received(others) > 9 * MIB


def test_an_answer_that_is_read_takes_no_memory_any_more(site: Site) -> None:
    with site.asks("/reader/9") as client:
        for _ in itertools.repeat(None, 3):
            head = client.recv(4096)
            body = len(head.partition(b"\r\n\r\n")[2])
            while body < 9 * MIB:
                body += len(client.recv(1 << 20))
            wait_until(lambda: site.unread() == 0)
            (connection,) = site.server.active_channels.values()
            assert connection.output.held_bytes == 0
            client.sendall(b"GET /reader/9 HTTP/1.1\r\nHost: x\r\n\r\n")


def test_a_client_that_stops_reading_is_closed_and_one_that_waits_is_not(site: Site) -> None:
    with site.asks("/stalled/9") as stalled, site.asks("/small/0") as idle:
        assert idle.recv(4096)
        wait_until(lambda: site.unread() > 0)
        (connection,) = site.server.unread._accounts
        site.in_loop(lambda: site.server.maintenance(connection.last_activity + STALLED_S - 1))
        assert site.unread() > 0
        site.in_loop(lambda: site.server.maintenance(connection.last_activity + STALLED_S + 1))
        assert site.unread() == 0
        assert received(stalled) < 9 * MIB
        idle.sendall(b"GET /small/0 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(4096)


def test_bodies_that_never_end_are_bounded_in_all() -> None:
    """Nobody has shown a token yet: 16,000 connections with 10 MiB each would be 160 GB."""
    part, count = 4 * MIB, MAX_INCOMING_BYTES // (4 * MIB) + 4
    with serving(is_quick=False) as site, ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", site.server.effective_port), timeout=WITHIN_S)
            clients.append(stack.enter_context(client))
            client.sendall(
                f"POST /x/0 HTTP/1.1\r\nHost: x\r\nContent-Length: {part + 10}\r\n\r\n".encode() + bytes(part)
            )
        wait_until(lambda: len(site.server.active_channels) < count)
        assert site.server.incoming.bytes <= MAX_INCOMING_BYTES
        assert received(clients[0]) == 0
        last = clients[-1]
        last.sendall(bytes(10))
        assert last.recv(4096).startswith(b"HTTP/1.1 200")
