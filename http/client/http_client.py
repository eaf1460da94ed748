"""What both clients of httpx have in common: bounds of an answer, and which error means what. Imports httpx."""

from __future__ import annotations

import httpx

from .errors import UnexpectedAnswer, no_sidecar
from .steps import AnswerLost, HttpAnswer, HttpRequest, NotConnected

# Keeping more would only hold sockets: an agent has one wait open, one heartbeat and its own work.
KEPT_CONNECTIONS = 8
KEPT_FOR_S = 5.0
MAX_ANSWER_BYTES = 32 << 20  # the sidecar's own longest, a page of results of which one is as large as it may be: 19 MB


class AnswerBody:
    """The bytes of an answer, as they come in. Raises UnexpectedAnswer for more than any sidecar sends."""

    def __init__(self, response: httpx.Response, url: str) -> None:
        self._response = response
        self._url = url
        self._body = bytearray()
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise self._unexpected(f"its answer is compressed ({encoding[:40]!r}), which was not asked for")
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > MAX_ANSWER_BYTES:
            raise self._too_long()

    def add(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_ANSWER_BYTES:
            raise self._too_long()

    def answer(self) -> HttpAnswer:
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return HttpAnswer(self._response.status_code, headers, bytes(self._body))

    def _too_long(self) -> UnexpectedAnswer:
        return self._unexpected(f"its answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")

    def _unexpected(self, reason: str) -> UnexpectedAnswer:
        return no_sidecar(self._url, reason, status=self._response.status_code)


def failed_exchange(request: HttpRequest, error: httpx.HTTPError | httpx.InvalidURL) -> NotConnected | AnswerLost:
    """What an error of httpx says about the request."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL):
        return NotConnected(str(error))
    if isinstance(error, httpx.TimeoutException):
        return time_is_up(request)
    return AnswerLost(f"no answer to {request.method} {request.target}: {error!r}", was_held=True)


def time_is_up(request: HttpRequest) -> AnswerLost:
    return AnswerLost(
        f"no whole answer to {request.method} {request.target} within {request.timeout_s:g} s", was_held=False
    )
