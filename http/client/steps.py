"""The steps of a call, without I/O: what to send and how long to pause, and what came of it.

A call of the API is a generator. It yields an `HttpRequest` and is sent its `Outcome`, or yields a `Pause` and is sent
None; what it returns is the answer of the call. `connections.py` carries the steps out with blocking sockets,
`asynchronous.py` with asyncio, so that every rule of retries, tokens and waits is written once and tested without a
server.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


class HttpRequest(NamedTuple):
    """One HTTP request. target: path and query. timeout_s: for all of it, from connecting to the answer's last byte."""

    method: str
    target: str
    headers: Mapping[str, str]
    content: bytes | None
    timeout_s: float


class Pause(NamedTuple):
    """A pause before the next request."""

    duration_s: float


class HttpAnswer(NamedTuple):
    """An answer as it came. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotConnected(NamedTuple):
    """No connection could be made; the server has seen nothing of the request."""

    reason: str


class AnswerLost(NamedTuple):
    """The connection ended, or the time was up, after the request was sent: the server may have acted on it.

    was_held: the connection broke, so a server held it until then; False: the time was up.
    """

    reason: str
    was_held: bool


Outcome: TypeAlias = HttpAnswer | NotConnected | AnswerLost
Steps: TypeAlias = Generator[HttpRequest | Pause, Outcome | None, T]
