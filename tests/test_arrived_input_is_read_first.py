"""Whoever asks is told only when everything that had arrived by then is read: signs of life must not be overlooked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sidecar.http.loop.accepting import ACCEPTS_A_TURN
from sidecar.http.loop.input_read import InputRead
from sidecar.http.loop.io_loop import HttpServer, make_server
from sidecar.http.loop.poller import SelectorPoller, make_poller
from sidecar.http.loop.reply import Reply

WITHIN_S = 10.0


class Site:
    """A server whose quick route notes who asked, and whose loop a test can hold up, as a pause of the process does."""

    def __init__(self, server: HttpServer, seen: list[str]) -> None:
        self.server = server
        self.seen = seen
        self.input_read = InputRead()
        self.input_read.watch(server)

    @contextmanager
    def paused(self) -> Iterator[None]:
        is_held, goes_on = threading.Event(), threading.Event()

        def hold() -> None:
            is_held.set()
            goes_on.wait(WITHIN_S)

        self.server.post(hold)
        assert is_held.wait(WITHIN_S)
        try:
            yield
        finally:
            goes_on.set()

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.effective_port), timeout=WITHIN_S)


@pytest.fixture(params=["epoll", "selectors"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    seen: list[str] = []

    def quick(environ: dict[str, object]) -> Reply:
        seen.append(str(environ["PATH_INFO"]))
        return 200, (), b"noted"

    server = make_server(
        lambda environ, start_response: [],
        find_quick=lambda method, path: quick,
        poller=make_poller() if request.param == "epoll" else SelectorPoller(),
    )
    loop = threading.Thread(target=server.run, daemon=True)
    loop.start()
    try:
        yield Site(server, seen)
    finally:
        server.close()
        loop.join(WITHIN_S)


def ask(connection: socket.socket, path: str) -> None:
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())


def test_requests_that_came_during_a_pause_are_handled_before_anyone_judges(site: Site) -> None:
    old, new = 40, 2 * ACCEPTS_A_TURN + 10  # more callers than one turn accepts
    judged_after: list[int] = []
    is_judged = threading.Event()

    def judge() -> None:
        judged_after.append(len(site.seen))
        is_judged.set()

    with ExitStack() as stack:
        connections = [stack.enter_context(site.connected()) for _ in range(old)]
        for number, connection in enumerate(connections):
            ask(connection, f"/hello/{number}")
            assert connection.recv(4096)
        site.seen.clear()
        with site.paused():
            for number, connection in enumerate(connections):
                ask(connection, f"/old/{number}")
            for number in range(new):
                caller = stack.enter_context(site.connected())
                ask(caller, f"/new/{number}")
            site.input_read(judge)
        assert is_judged.wait(WITHIN_S)
    assert judged_after == [old + new]


def test_a_client_that_gave_up_during_a_pause_has_been_heard_all_the_same(site: Site) -> None:
    judged_after: list[int] = []
    is_judged = threading.Event()

    def judge() -> None:
        judged_after.append(len(site.seen))
        is_judged.set()

    with site.paused():
        with site.connected() as caller:
            ask(caller, "/gone")
        site.input_read(judge)
    assert is_judged.wait(WITHIN_S)
    assert judged_after == [1]


def test_nobody_waits_for_a_server_that_does_not_run() -> None:
    judged = threading.Event()
    InputRead()(judged.set)
    assert judged.is_set()


def test_whoever_asked_is_told_when_the_server_ends(site: Site) -> None:
    judged = threading.Event()
    with site.paused():
        site.input_read(judged.set)
    site.server.close()
    assert judged.wait(WITHIN_S)
