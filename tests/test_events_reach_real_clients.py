"""Clients that time out, hang up, are killed or read half an answer, over real sockets: nothing is lost or given twice.

Every client has a mailbox of its own and counts an event as received when it has read the whole answer. Publishing
goes on around them, timed so that their time-outs of 3 to 20 ms fall into the moments of the answers.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from sidecar.http.access.minting import mint_operator_token
from sidecar.http.config import Flags, load
from sidecar.http.serve import running

CLIENTS = 3
PATIENCE_S = 30.0  # for one event to reach everyone; a run that hangs fails after this


class Feed:
    """What was published and what each client has received, and a condition for both."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.published: list[str] = []
        self.received: list[list[str]] = [[] for _ in range(CLIENTS)]
        self.outcomes: Counter[str] = Counter()
        self.has_ended = False
        self.victims: list[subprocess.Popen[bytes]] = []
        self.changed = threading.Condition()

    def receive(self, client: int, answer: dict[str, object], how: str) -> None:
        events = answer["events"]
        assert isinstance(events, list)
        with self.changed:
            self.outcomes[how] += 1
            self.outcomes["redelivered"] += sum(event.get("redelivered", False) for event in events)
            self.received[client] += [event["event_id"] for event in events]
            self.changed.notify_all()

    def note(self, outcome: str) -> None:
        with self.changed:
            self.outcomes[outcome] += 1

    def everyone_is_caught_up(self) -> bool:
        return all(len(received) >= len(self.published) for received in self.received)


class Client:
    """One agent that waits in many ways. The server's address and its token are all it knows."""

    def __init__(self, number: int, port: int, token: str, feed: Feed, seed: int) -> None:
        self.number = number
        self.port = port
        self.path = f"/api/events/wait/news?timeout=2000&consumer=client-{number}"
        self.headers = {"Authorization": f"Bearer {token}"}
        self.feed = feed
        self.random = random.Random(seed)
        self.sock: socket.socket | None = None

    def run(self) -> None:
        ways = [self.wait_with_requests, self.wait_on_one_connection, self.wait_on_one_connection, self.leave_half_read]
        ways += [self.reset_unread, self.leave_elsewhere]
        while not self.feed.has_ended:
            if self.random.random() < 0.01:
                self.be_killed_while_reading()
            else:
                self.random.choice(ways)()
        self.hang_up()

    def client_timeout_s(self) -> float:
        return self.random.uniform(0.003, 0.02)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def request(self) -> str:
        lines = [f"GET {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines) + "\r\n\r\n"

    def ask(self, sock: socket.socket) -> None:
        sock.sendall(self.request().encode())

    def hang_up(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    # Ways to wait

    def wait_with_requests(self) -> None:
        """The guide's own way: a connection per call, a time-out of the client's."""
        url = f"http://127.0.0.1:{self.port}{self.path}"
        try:
            answer = requests.get(url, headers=self.headers, timeout=self.client_timeout_s())
        except requests.RequestException:
            self.feed.note("gave up, requests")
        else:
            self.feed.receive(self.number, answer.json(), "requests")

    def wait_on_one_connection(self) -> None:
        """Keep-alive; after a time-out a new connection."""
        self.sock = self.sock or self.connect()
        self.ask(self.sock)
        self.sock.settimeout(self.client_timeout_s())
        try:
            answer = read_answer(self.sock)
        except TimeoutError:
            self.feed.note("gave up, keep-alive")
            self.hang_up()
        else:
            self.sock.settimeout(PATIENCE_S)
            self.feed.receive(self.number, answer, "keep-alive")

    def leave_elsewhere(self) -> None:
        """Read an answer and keep its connection open, idle, while the next wait goes over another one."""
        with self.connect() as other:
            self.ask(other)
            other.settimeout(self.client_timeout_s())
            try:
                answer = read_answer(other)
            except TimeoutError:
                self.feed.note("gave up, other connection")
                return
            self.feed.receive(self.number, answer, "other connection")
            self.wait_on_one_connection()

    def leave_half_read(self) -> None:
        with self.connect() as sock:
            self.ask(sock)
            self.read_half(sock, "half read")

    def reset_unread(self) -> None:
        with self.connect() as sock:
            self.ask(sock)
            self.read_half(sock, "reset")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def read_half(self, sock: socket.socket, outcome: str) -> None:
        sock.settimeout(self.client_timeout_s())
        try:
            sock.recv(self.random.randint(1, 300))
        except TimeoutError:
            self.feed.note("gave up, half reader")
        else:
            self.feed.note(outcome)

    def be_killed_while_reading(self) -> None:
        with self.feed.changed:
            victim = self.feed.victims.pop() if self.feed.victims else None
        if victim is None:
            return
        assert victim.stdin is not None
        assert victim.stdout is not None
        victim.stdin.write(json.dumps([self.port, self.request()]).encode() + b"\n")
        victim.stdin.flush()
        outcome = victim.stdout.readline().decode().strip()
        victim.kill()
        victim.communicate(timeout=PATIENCE_S)
        self.feed.note(f"killed, {outcome}")


VICTIM = """
import json, socket, sys
port, request = json.loads(sys.stdin.readline())
sock = socket.create_connection(("127.0.0.1", port))
sock.sendall(request.encode())
sock.settimeout(0.05)
try:
    sock.recv(100)
    print("half read", flush=True)
except TimeoutError:
    print("waiting", flush=True)
sys.stdin.read()
"""


@contextmanager
def victims(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are there before the clients begin: a fork would keep the sockets open that clients close."""
    argv = [sys.executable, "-S", "-c", VICTIM]
    started = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        yield list(started)
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=PATIENCE_S)


def read_answer(sock: socket.socket) -> dict[str, object]:
    """One whole answer. Raises TimeoutError, with part of it read or none."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += read_some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += read_some(sock)
    answer = json.loads(body)
    assert isinstance(answer, dict)
    return answer


def read_some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    assert data, "the server closed the connection"
    return data


def publish(feed: Feed, port: int, token: str, count: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for number in range(count):
        data = {"number": number, "text": "x" * feed.random.choice([10, 100, 5000])}
        connection.request("POST", "/api/events/news", json.dumps({"data": data}), headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 202, body
        with feed.changed:
            feed.published.append(body["event_id"])
            # Go on when everyone has it, or a little before: then several wait for a client that comes back.
            feed.changed.wait_for(feed.everyone_is_caught_up, feed.random.choice([0.0, 0.005, 0.02, 0.1]))
    connection.close()


def assert_everyone_gets_everything(tmp_path: Path, *, count: int, seed: int) -> Counter[str]:
    (tmp_path / "project").mkdir()
    flags = Flags(port=0, storage=tmp_path / "storage", project_root=tmp_path / "project", log_level="error")
    feed = Feed(seed)
    failures: list[BaseException] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)
            raise

    with victims(count // 50) as feed.victims, running(load(flags, {}, working_dir=tmp_path)) as server:
        token = mint_operator_token(tmp_path / "storage", {}).text
        clients = [Client(n, server.port, token, feed, seed + n) for n in range(CLIENTS)]
        threads = [threading.Thread(target=guarded, args=(client.run,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            publish(feed, server.port, token, count)
            with feed.changed:
                feed.changed.wait_for(feed.everyone_is_caught_up, PATIENCE_S)
        finally:
            feed.has_ended = True
            for thread in threads:
                thread.join(PATIENCE_S)
    assert failures == []
    assert len(set(feed.published)) == count
    for received in feed.received:
        assert len(received) == len(set(received)), "given twice"
        assert received == feed.published
    return feed.outcomes


WAYS = ("requests", "keep-alive", "other connection", "half read", "reset")


@pytest.mark.parametrize("seed", [1, 2])
def test_every_event_reaches_every_client_once_and_in_order(tmp_path: Path, seed: int) -> None:
    outcomes = assert_everyone_gets_everything(tmp_path, count=150, seed=seed)
    assert all(outcomes[way] for way in (*WAYS, "redelivered")), outcomes


@pytest.mark.soak
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_five_thousand_events_reach_every_client_once_and_in_order(tmp_path: Path, seed: int) -> None:
    outcomes = assert_everyone_gets_everything(tmp_path, count=5_000, seed=seed)
    assert all(outcomes[way] > 50 for way in (*WAYS, "redelivered")), outcomes
    assert outcomes["killed, half read"]
