"""One request to the sidecar: with its token, asked again where that is safe, refused as the error it is."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from ...state.errors import SidecarError, TokenExpired
from ...state.typed import decode
from .cancellation import sleep
from .errors import NoServer, UnexpectedAnswer, error_of
from .retry import Failure, RetryPolicy, failure_of
from .transport import Answer, AnswerLost, Connections, NotConnected

if TYPE_CHECKING:
    from .vouching import SidecarCheck

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:3001"
ANSWER_WITHIN_S = 30.0  # the server answers or refuses within 10 s, whatever happens inside it

Query = Mapping[str, object]


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


def new_key() -> str:
    """An idempotency key for one call and its repeats."""
    return uuid.uuid4().hex


class Calls:
    """Requests to one sidecar; every method may be called from any thread.

    url: with or without `/api` at its end. retries: how failed requests are repeated; the default is for agents that
    outlive a restart of the sidecar. headers: sent with every request. check: asks each server for a proof that it is
    the sidecar that is meant, before it is sent a token; agents need none, for their URL comes from the sidecar that
    started them. Raises the sidecar's errors (`state.errors`), NoServer and UnexpectedAnswer.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        retries: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        check: SidecarCheck | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/api")
        self.token = token
        self._retries = retries or RetryPolicy()
        self._check = check
        self._connections = Connections(self.url, check=check)
        self._rng = random.Random()
        self._fixed_headers = {"Accept": "application/json", **(headers or {})}

    def close(self) -> None:
        self._connections.close()

    def move_to(self, url: str) -> None:
        """Send further requests to another URL."""
        before, self._connections = self._connections, Connections(url, check=self._check)
        self.url = url
        before.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        key: str | None = None,
        timeout_s: float = ANSWER_WITHIN_S,
    ) -> Any:
        """One request, its answer as decoded JSON. key: an Idempotency-Key, which makes repeating a POST safe.

        query: values of None are left out, sequences are joined by commas.
        """
        return self.read(Any, method, path, query=query, body=body, key=key, timeout_s=timeout_s)

    def read(
        self,
        type_: type[T],
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        key: str | None = None,
        timeout_s: float = ANSWER_WITHIN_S,
    ) -> T:
        answer = self._answer(method, path + _query_string(query), body=body, key=key, timeout_s=timeout_s)
        return self._decoded(answer, type_)

    def _decoded(self, answer: Answer, type_: type[T]) -> T:
        """Raises UnexpectedAnswer."""
        try:
            return decode(answer.body, type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnexpectedAnswer(
                f"what answers at {self.url} is no sidecar, or one of another version: {error}", status=answer.status
            ) from error

    def _answer(self, method: str, target: str, *, body: object, key: str | None, timeout_s: float) -> Answer:
        """The first answer that is not an error, asking again as the policy allows and once with a fresh token."""
        content = None if body is None else msgspec.json.encode(body)
        repeatable = method in ("GET", "HEAD") or key is not None
        try:
            return self._asked_again(method, target, content, key, repeatable=repeatable, timeout_s=timeout_s)
        except TokenExpired:
            if self.token is None:
                raise
        self.refresh_token()
        return self._asked_again(method, target, content, key, repeatable=repeatable, timeout_s=timeout_s)

    def _asked_again(
        self, method: str, target: str, content: bytes | None, key: str | None, *, repeatable: bool, timeout_s: float
    ) -> Answer:
        """The first answer that is not an error, asking again as the policy allows."""
        attempt, failing_s = 0, 0.0
        while True:
            attempt += 1
            retry_after_s: float | None = None
            began, was_held = time.monotonic(), False
            try:
                answer = self._connections.exchange(
                    method, target, headers=self._headers(content, key), body=content, timeout_s=timeout_s
                )
            except NotConnected as error:
                failure = Failure.NOT_CONNECTED
                refusal: SidecarError = NoServer(f"no sidecar answers at {self.url}: {error}")
            except AnswerLost as error:
                failure, refusal = Failure.ANSWER_LOST, NoServer(str(error), url=self.url)
                was_held = error.was_held
            else:
                if answer.status < 400:
                    return answer
                refused = error_of(answer, url=self.url)
                found = failure_of(answer.status, refused.code)
                if found is None:
                    raise refused
                failure, refusal = found, refused
                retry_after_s = _seconds(answer.headers.get("retry-after"))
            if attempt > 1 and not was_held:
                failing_s += time.monotonic() - began
            pause_s = self._retries.pause_s(
                failure,
                attempt=attempt,
                failing_s=failing_s,
                repeatable=repeatable,
                retry_after_s=retry_after_s,
                rng=self._rng,
            )
            if pause_s is None:
                raise refusal
            log.info("asking again in %.2f s method=%s target=%s failure=%s", pause_s, method, target, failure.value)
            sleep(pause_s)
            failing_s += pause_s

    def _headers(self, content: bytes | None, key: str | None) -> dict[str, str]:
        headers = dict(self._fixed_headers)
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if content is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        return headers

    def refresh_token(self) -> datetime:
        """Exchange the token for a new one; the old stays good for a minute. Returns when the new one expires."""
        # To ask twice does no harm: each answer is a token of its own.
        answer = self._asked_again("POST", "/api/auth/refresh", b"{}", None, repeatable=True, timeout_s=ANSWER_WITHIN_S)
        fresh = self._decoded(answer, _FreshToken)
        self.token = fresh.token
        return fresh.expires_at

    def once(
        self, method: str, path: str, content: bytes | None = None, *, timeout_s: float = ANSWER_WITHIN_S
    ) -> Answer:
        """One attempt, whatever its answer."""
        headers = self._headers(content, None)
        try:
            return self._connections.exchange(method, path, headers=headers, body=content, timeout_s=timeout_s)
        except (NotConnected, AnswerLost) as error:
            raise NoServer(f"no sidecar answers at {self.url}: {error}") from error


class _FreshToken(msgspec.Struct):
    token: str
    expires_at: datetime


def _query_string(query: Query | None) -> str:
    pairs = [(name, _text(value)) for name, value in (query or {}).items() if value is not None]
    return "?" + urlencode(pairs) if pairs else ""


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case list() | tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None
