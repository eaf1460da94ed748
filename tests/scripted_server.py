"""A server that answers what a test tells it to, one answer after the other, and a client of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sidecar.http.sdk import Client, RetryPolicy

Scene = tuple[int, dict[str, str], Any]


class Scripted(BaseHTTPRequestHandler):
    """A server that answers as the test says; `None` breaks the connection instead, a number does so after seconds."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self.rfile.read(size)
        self.server.seen.append((self.command, self.path, dict(self.headers), time.monotonic()))  # type: ignore[attr-defined]
        answer = self.server.answers.pop(0)  # type: ignore[attr-defined]
        if answer is None or isinstance(answer, float):
            self.server.ending.wait(answer or 0.0)  # type: ignore[attr-defined]
            self.close_connection = True
            return
        status, headers, body = answer
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_DELETE = do_GET  # noqa: N815  # the names that http.server looks for

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(*answers: Any, patience_s: float = 5.0) -> Iterator[tuple[Client, list[Any]]]:
    """A client of such a server, and what that has seen: method, path, headers and time of each request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.answers, server.seen = list(answers), []  # type: ignore[attr-defined]
    server.ending = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    client = Client(
        f"http://127.0.0.1:{server.server_port}", "old", retries=RetryPolicy(patience_s=patience_s, max_pause_s=0.05)
    )
    try:
        yield client, server.seen  # type: ignore[attr-defined]
    finally:
        server.ending.set()  # type: ignore[attr-defined]
        client.close()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def refusal(error: str, status: int, **headers: str) -> Scene:
    return status, headers, {"error": error, "message": f"it is {error}", "code": "X", "details": {}, "request_id": "r"}
