"""The load of the event benchmarks: many connections from one process of its own, with nothing but raw sockets.

`python http_load.py` reads one JSON job a line from stdin and writes one JSON result a line. It stands outside of the
server's process and interpreter, and knows of HTTP only that an answer has a Content-Length.
"""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
PATIENCE_S = 60.0


class Connection:
    """A keep-alive connection with at most one request on the way."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.last_answer = b""
        self._data = b""

    def ask(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.sock.sendall(request)

    def has_answer(self) -> bool:
        """Read what is there; True when the answer is complete. Raises for any status but 2xx."""
        received = self.sock.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection")
        self._data = data = self._data + received if self._data else received
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return False
        match = LENGTH.search(data, 0, head + 2)
        if data[9:10] != b"2" or match is None:
            raise ValueError(data[:500].decode("latin-1"))
        if len(data) < head + 4 + int(match[1]):
            return False
        self._data, self.last_answer = b"", data
        return True

    def answer(self) -> None:
        while not self.has_answer():
            pass


def publish(port: int, requests: list[str], connections: int, seconds: float) -> dict[str, float]:
    """Publishes a second over so many connections, and how long one took."""
    request = requests[0].encode()
    clients = {client.sock.fileno(): client for client in (Connection(port) for _ in range(connections))}
    took: list[float] = []
    with select.epoll() as ready:
        for fd, client in clients.items():
            ready.register(fd, select.EPOLLIN)
            client.ask(request)
        begun = time.perf_counter()
        end = begun + seconds
        while (now := time.perf_counter()) < end:
            for fd, _ in ready.poll(1.0):
                client = clients[fd]
                if client.has_answer():
                    took.append(time.perf_counter() - client.sent_at)
                    client.ask(request)
    took.sort()
    return {
        "per_s": len(took) / (now - begun),
        "p50_us": took[len(took) // 2] * 1e6,
        "p99_us": took[int(len(took) * 0.99)] * 1e6,
    }


def wake(port: int, requests: list[str], samples: int, settle_s: float) -> dict[str, float]:
    """From the moment a publish is sent until the one who waits has its whole answer."""
    wait, event = (request.encode() for request in requests)
    waiter, publisher = Connection(port), Connection(port)
    took = []
    for _ in range(samples):
        waiter.ask(wait)
        time.sleep(settle_s)
        publisher.ask(event)
        waiter.answer()
        took.append(time.perf_counter() - publisher.sent_at)
        publisher.answer()
    took.sort()
    return {"p50_us": took[len(took) // 2] * 1e6, "p99_us": took[int(len(took) * 0.99)] * 1e6}


class Crowd:
    """Connections that wait, one request each; the last of `requests` publishes what they wait for."""

    def __init__(self, port: int, requests: list[str]) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        *waits, event = requests
        self._event = event.encode()
        self._publisher = Connection(port)
        self._waits = [wait.encode() for wait in waits]
        self._ready = select.epoll()
        self._clients: dict[int, Connection] = {}
        for _ in waits:
            client = Connection(port)
            self._clients[client.sock.fileno()] = client
            self._ready.register(client.sock.fileno(), select.EPOLLIN)
        self.wait()

    def wait(self) -> None:
        for client, wait in zip(self._clients.values(), self._waits, strict=True):
            client.ask(wait)

    def wake(self) -> float:
        """Seconds from a publish until the last one has its answer."""
        self._publisher.ask(self._event)
        self._hear_all()
        took = time.perf_counter() - self._publisher.sent_at
        self._publisher.answer()
        return took

    def _hear_all(self) -> None:
        waiting = set(self._clients)
        while waiting:
            events = self._ready.poll(PATIENCE_S)
            if not events:
                raise TimeoutError(f"{len(waiting)} of {len(self._clients)} got no answer")
            for fd, _ in events:
                if fd in waiting and self._clients[fd].has_answer():
                    waiting.discard(fd)
                    self._ready.modify(fd, 0)
        for fd in self._clients:
            self._ready.modify(fd, select.EPOLLIN)

    def timed_out(self) -> int:
        """Hear everyone out without a publish; how many were told that their time is up."""
        self._hear_all()
        return sum(b'"timeout":true' in client.last_answer for client in self._clients.values())

    def close(self) -> None:
        for client in self._clients.values():
            client.sock.close()
        self._publisher.sock.close()
        self._ready.close()


def fan_out(port: int, requests: list[str], rounds: int, settle_s: float) -> dict[str, float]:
    crowd = Crowd(port, requests)
    took = []
    for _ in range(rounds):
        time.sleep(settle_s)
        took.append(crowd.wake())
        crowd.wait()
    crowd.close()
    took.sort()
    return {"ms": took[len(took) // 2] * 1e3}


crowds: list[Crowd] = []


def park(port: int, requests: list[str], settle_s: float) -> dict[str, float]:
    """Leave a crowd waiting, for the jobs that follow; `unpark` wakes it."""
    crowds.append(Crowd(port, requests))
    time.sleep(settle_s)
    return {}


def unpark() -> dict[str, float]:
    crowd = crowds.pop()
    took = crowd.wake()
    crowd.close()
    return {"ms": took * 1e3}


def hear_out() -> dict[str, float]:
    """Wait until the server has answered everyone who is parked, by itself."""
    crowd = crowds.pop()
    timed_out = crowd.timed_out()
    crowd.close()
    return {"timed_out": timed_out}


JOBS: dict[str, Callable[..., dict[str, float]]] = {
    job.__name__: job for job in (publish, wake, fan_out, park, unpark, hear_out)
}


def main() -> None:
    for line in sys.stdin:
        arguments: dict[str, Any] = json.loads(line)
        print(json.dumps(JOBS[arguments.pop("job")](**arguments)), flush=True)


if __name__ == "__main__":
    main()
