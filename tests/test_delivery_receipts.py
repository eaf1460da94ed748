"""What the server may believe of an answer: taken, lost, or nothing yet; told by what the socket shows, told once."""

from __future__ import annotations

import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidecar.actors.runtime.asking import Later
from sidecar.http.loop.delivery import AnswerDelivery, Evidence
from sidecar.http.loop.io_loop import HttpServer, make_server

WITHIN_S = 10.0
BODY = b"an event"
LARGE = 20_000_000  # more than the socket buffers of both sides hold


class Post:
    """An application whose every GET waits; what becomes of the answers arrives in `verdicts`."""

    def __init__(self) -> None:
        self.server: HttpServer = make_server(self, worker_threads=2)
        self.verdicts: queue.Queue[bool] = queue.Queue()
        self.waiting: queue.Queue[Later[bytes]] = queue.Queue()
        self.receipt: Callable[[bool], None] = self.verdicts.put

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            later: Later[bytes] = Later()
            environ["sidecar.park"](later, render=_render, deadline_s=60, receipt=lambda taken: self.receipt(taken))
            self.waiting.put(later)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.effective_port), timeout=WITHIN_S)

    def in_io_thread(self, act: Callable[[], None]) -> None:
        """Have `act` called between two looks at the sockets, and wait until it was."""
        done = threading.Event()

        def act_and_say() -> None:
            act()
            done.set()

        self.server.post(act_and_say)
        assert done.wait(WITHIN_S)

    def verdict(self) -> bool:
        return self.verdicts.get(timeout=WITHIN_S)

    def has_no_verdict(self) -> bool:
        """After everything that has happened on any connection so far was seen."""
        with self.connect() as sock:
            ask(sock, path="/")
            read_answer(sock)
        return self.verdicts.empty()


def _render(later: Later[bytes]) -> tuple[int, list[tuple[str, str]], bytes]:
    if later.cancelled():
        return 503, [], b""
    return 200, [("Content-Type", "text/plain")], later.result()


def ask(sock: socket.socket, *headers: str, path: str = "/wait", method: str = "GET", version: str = "1.1") -> None:
    sock.sendall("\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]).encode())


def read_answer(sock: socket.socket) -> bytes:
    """One whole answer and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    fields = head.lower().split(b"content-length: ")
    length = int(fields[1].split(b"\r\n")[0]) if len(fields) > 1 else 0
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return body


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_until_readable(sock: socket.socket) -> None:
    assert sock.recv(1, socket.MSG_PEEK)


@pytest.fixture
def office() -> Iterator[Post]:
    office = Post()
    thread = threading.Thread(target=office.server.run, name="io")
    thread.start()
    yield office
    office.server.close(within_s=2.0)
    thread.join(WITHIN_S)


def answered(office: Post, *headers: str, body: bytes = BODY, **options: str) -> socket.socket:
    """A connection whose wait was answered; not a byte of it is read yet."""
    sock = office.connect()
    ask(sock, *headers, **options)
    office.waiting.get(timeout=WITHIN_S).answer(body)
    wait_until_readable(sock)
    return sock


# --- Taken ------------------------------------------------------------------------------------------------------


def test_answer_is_taken_when_the_client_has_read_it_and_closes(office: Post) -> None:
    sock = answered(office)
    assert read_answer(sock) == BODY
    assert office.has_no_verdict()
    sock.close()
    assert office.verdict() is True


def test_answer_is_taken_when_the_client_asks_again_and_before_that_is_handled(office: Post) -> None:
    sock = answered(office)
    read_answer(sock)
    ask(sock)
    later = office.waiting.get(timeout=WITHIN_S)
    assert office.verdicts.get_nowait() is True
    later.answer(BODY)
    assert read_answer(sock) == BODY
    sock.close()
    assert office.verdict() is True
    assert office.verdicts.empty()


def test_large_answer_is_taken_once_it_was_read_to_its_end(office: Post) -> None:
    sock = answered(office, body=bytes(LARGE))
    assert office.has_no_verdict()
    assert len(read_answer(sock)) == LARGE
    sock.close()
    assert office.verdict() is True


@pytest.mark.parametrize("how", [("1.1", "Connection: close"), ("1.0", "X-Nothing: 1")])
def test_answer_that_ends_its_connection_is_taken_when_the_client_closes_too(
    office: Post, how: tuple[str, str]
) -> None:
    version, header = how
    sock = answered(office, header, version=version)
    assert read_answer(sock) == BODY
    assert sock.recv(1) == b""
    assert office.has_no_verdict()
    sock.close()
    assert office.verdict() is True


READER = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"GET /wait HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
if sys.argv[2] == "reads":
    while not sock.recv(65536).endswith(b"an event"):
        pass
else:
    sock.recv(1, socket.MSG_PEEK)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("reads", "taken"), [("reads", True), ("does not read", False)])
def test_what_a_killed_process_had_read_counts(office: Post, reads: str, taken: bool) -> None:
    argv = [sys.executable, "-c", READER, str(office.server.effective_port), reads]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        office.waiting.get(timeout=WITHIN_S).answer(BODY)
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert office.verdict() is taken


# --- Lost -------------------------------------------------------------------------------------------------------


def test_answer_is_lost_when_the_client_closes_without_reading_it(office: Post) -> None:
    answered(office).close()
    assert office.verdict() is False


def test_answer_is_lost_when_the_client_reads_only_part_of_it(office: Post) -> None:
    sock = answered(office)
    sock.recv(20)
    sock.close()
    assert office.verdict() is False


def test_answer_is_lost_when_the_connection_ends_before_its_last_byte_was_sent(office: Post) -> None:
    sock = answered(office, body=bytes(LARGE))
    sock.recv(1_000_000, socket.MSG_WAITALL)
    sock.close()
    assert office.verdict() is False


def test_answer_is_lost_when_the_connection_is_reset(office: Post) -> None:
    sock = answered(office)
    read_answer(sock)
    reset(sock)
    assert office.verdict() is False


def test_answer_is_lost_when_its_connection_closes_after_it_and_is_reset(office: Post) -> None:
    sock = answered(office, "Connection: close")
    sock.close()
    assert office.verdict() is False


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
def test_answer_written_after_the_client_left_is_lost(office: Post, leave: Callable[[socket.socket], None]) -> None:
    """The trap: the bytes are accepted by the kernel, and the FIN is found afterwards as if they had been read."""
    sock = office.connect()
    ask(sock)
    later = office.waiting.get(timeout=WITHIN_S)

    def leave_unnoticed_and_answer() -> None:
        leave(sock)
        later.answer(BODY)

    office.in_io_thread(leave_unnoticed_and_answer)
    assert office.verdict() is False


def test_answer_known_in_the_moment_the_client_left_is_lost(office: Post) -> None:
    sock = office.connect()
    ask(sock)
    later = office.waiting.get(timeout=WITHIN_S)

    def answer_and_leave() -> None:
        for connection in list(office.server.active_channels.values()):
            if connection.pending is not None and connection.pending.later is later:
                later.answer(BODY)  # queued behind this call
                connection.handle_close()

    office.in_io_thread(answer_and_leave)
    assert office.verdict() is False
    sock.close()


def test_head_takes_nothing(office: Post) -> None:
    sock = answered(office, method="HEAD")
    assert office.verdict() is False
    sock.close()
    assert office.has_no_verdict()


def test_answer_that_could_not_be_rendered_is_lost(office: Post) -> None:
    sock = answered(office, body=None)  # type: ignore[arg-type]
    assert office.verdict() is False
    sock.close()


# --- Not known, or nothing to know ------------------------------------------------------------------------------


def test_pipelined_request_says_nothing_about_the_answer_before_it(office: Post) -> None:
    sock = office.connect()
    ask(sock)
    first = office.waiting.get(timeout=WITHIN_S)
    ask(sock)
    first.answer(BODY)
    second = office.waiting.get(timeout=WITHIN_S)
    assert office.has_no_verdict()
    second.answer(BODY)
    wait_until_readable(sock)
    assert office.has_no_verdict()
    assert [read_answer(sock), read_answer(sock)] == [BODY, BODY]
    sock.close()
    assert [office.verdict(), office.verdict()] == [True, True]


def test_request_sent_before_the_end_of_the_answer_says_nothing_about_it(office: Post) -> None:
    sock = answered(office, body=bytes(LARGE))
    ask(sock)
    assert office.has_no_verdict()
    assert len(read_answer(sock)) == LARGE
    office.waiting.get(timeout=WITHIN_S)
    assert office.has_no_verdict()
    sock.close()
    assert office.verdict() is True


def test_client_that_gave_up_was_handed_nothing(office: Post) -> None:
    cancelled = threading.Event()
    sock = office.connect()
    ask(sock)
    later = office.waiting.get(timeout=WITHIN_S)
    later.add_done_callback(lambda _: cancelled.set())
    sock.close()
    assert cancelled.wait(WITHIN_S)
    assert later.cancelled()
    assert office.has_no_verdict()


def test_error_is_nothing_to_take(office: Post) -> None:
    sock = office.connect()
    ask(sock)
    office.waiting.get(timeout=WITHIN_S).refuse(ValueError("refused"))
    wait_until_readable(sock)
    reset(sock)
    assert office.has_no_verdict()


def test_connection_that_the_server_closes_leaves_the_verdict_open(office: Post) -> None:
    sock = answered(office)
    read_answer(sock)

    def close_silent() -> None:
        for connection in list(office.server.active_channels.values()):
            if connection.is_overdue(connection.last_activity + 1, silent_s=0, request_s=60):
                connection.handle_close()

    office.in_io_thread(close_silent)
    assert sock.recv(1) == b""
    assert office.has_no_verdict()
    sock.close()


def test_receipt_that_fails_harms_nobody(office: Post) -> None:
    failed = threading.Event()

    def receipt(taken: bool) -> None:
        failed.set()
        raise RuntimeError(f"on purpose, {taken}")

    office.receipt = receipt
    answered(office).close()
    assert failed.wait(WITHIN_S)
    office.receipt = office.verdicts.put
    sock = answered(office)
    read_answer(sock)
    sock.close()
    assert office.verdict() is True


@pytest.mark.parametrize(
    ("evidence", "sent", "unacknowledged", "received", "verdict"),
    [
        (Evidence.RESET, 100, 0, 50, False),
        (Evidence.END, 100, 0, 50, True),
        (Evidence.END, 99, 0, 50, False),  # the last byte was not sent
        (Evidence.END, 100, 1, 50, False),  # it had not arrived when the client closed
        (Evidence.NEXT_REQUEST, 100, 0, 51, True),
        (Evidence.NEXT_REQUEST, 100, 1, 51, True),  # acknowledgements may travel behind data
        (Evidence.NEXT_REQUEST, 100, 0, 50, None),  # pipelined
        (Evidence.NEXT_REQUEST, 99, 0, 51, None),
    ],
)
def test_verdict_follows_the_evidence(
    evidence: Evidence, sent: int, unacknowledged: int, received: int, verdict: bool | None
) -> None:
    delivery = AnswerDelivery(lambda taken: None, end=100, read_until=50)
    assert delivery.verdict(evidence, sent=sent, unacknowledged=unacknowledged, received=received) is verdict
