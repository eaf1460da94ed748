"""The steps of any call: with the token, asked again where that is safe, refused as the error it is. Without I/O."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from ...state.errors import SidecarError, TokenExpired
from ...state.typed import decode
from .errors import NoServer, error_of, no_sidecar
from .retry import AttemptFailure, RetryPolicy, failure_of
from .steps import AnswerLost, HttpAnswer, HttpRequest, NotConnected, Outcome, Pause, Steps

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
    """What every call to one sidecar shares: its URL, the token, the policy of retries. Any thread may make calls.

    url: with or without `/api` at its end. retries: how failed requests are repeated; the default is for agents that
    outlive a restart of the sidecar. headers: sent with every request. clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        retries: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/api")
        self.token = token
        self._retries = retries or RetryPolicy()
        self._clock = clock
        self._rng = random.Random()
        # Compressed, a short answer could become a very long one.
        self._fixed_headers = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        key: str | None = None,
        timeout_s: float = ANSWER_WITHIN_S,
        shape: Any = None,
    ) -> Steps[Any]:
        """Make a request; return its answer as decoded JSON. key: an Idempotency-Key, which makes repeating a POST
        safe.

        query: values of None are left out, sequences are joined by commas. shape: a type that the answer must fit;
        the answer keeps its other fields. Raises UnexpectedAnswer if it does not fit.
        """
        answer = yield from self._answer(method, path, query, body, key, timeout_s)
        return self._in_shape(answer, shape, Any)

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
    ) -> Steps[T]:
        """As `call`, with the answer as a type."""
        answer = yield from self._answer(method, path, query, body, key, timeout_s)
        return self._decoded(answer, type_)

    def refresh_token(self) -> Steps[datetime]:
        """Exchange the token for a new one; the old token stays valid for a minute. Returns the time when the new one
        expires."""
        # To ask twice does no harm: each answer is a token of its own.
        answer = yield from self._attempts("POST", "/api/auth/refresh", b"{}", None, True, ANSWER_WITHIN_S)
        fresh = self._decoded(answer, _FreshToken)
        self.token = fresh.token
        return fresh.expires_at

    def once(
        self, method: str, path: str, content: bytes | None = None, *, timeout_s: float = ANSWER_WITHIN_S
    ) -> Steps[HttpAnswer]:
        """Make one attempt, and return its answer with any status. Raises NoServer."""
        outcome = yield HttpRequest(method, path, self._headers(content, None), content, timeout_s)
        if not isinstance(outcome, HttpAnswer):
            raise NoServer(f"no sidecar answers at {self.url}: {outcome.reason if outcome else ''}", url=self.url)
        return outcome

    def _in_shape(self, answer: HttpAnswer, shape: Any, type_: type[T]) -> T:
        if shape is not None:
            self._decoded(answer, shape)
        return self._decoded(answer, type_)

    def _decoded(self, answer: HttpAnswer, type_: type[T]) -> T:
        """Raises UnexpectedAnswer."""
        try:
            return decode(answer.body, type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise no_sidecar(self.url, str(error), status=answer.status) from error

    def _answer(
        self, method: str, path: str, query: Query | None, body: object, key: str | None, timeout_s: float
    ) -> Steps[HttpAnswer]:
        """The first answer that is not an error, asking again as the policy allows and once with a fresh token."""
        target = path + _query_string(query)
        content = None if body is None else msgspec.json.encode(body)
        repeatable = method in ("GET", "HEAD") or key is not None
        try:
            return (yield from self._attempts(method, target, content, key, repeatable, timeout_s))
        except TokenExpired:
            if self.token is None:
                raise
        yield from self.refresh_token()
        return (yield from self._attempts(method, target, content, key, repeatable, timeout_s))

    def _attempts(
        self, method: str, target: str, content: bytes | None, key: str | None, repeatable: bool, timeout_s: float
    ) -> Steps[HttpAnswer]:
        """The first answer that is not an error, asking again as the policy allows."""
        attempt, failing_s = 0, 0.0
        while True:
            attempt += 1
            began = self._clock()
            outcome = yield HttpRequest(method, target, self._headers(content, key), content, timeout_s)
            if isinstance(outcome, HttpAnswer) and outcome.status < 400:
                return outcome
            failure, error = self._failure(outcome)
            if failure is None:
                raise error
            # The patience begins with the first failure, and what a server held did not fail until then.
            if attempt > 1 and not (isinstance(outcome, AnswerLost) and outcome.was_held):
                failing_s += self._clock() - began
            pause_s = self._retries.pause_s(
                failure,
                attempt=attempt,
                failing_s=failing_s,
                repeatable=repeatable,
                retry_after_s=_retry_after_s(outcome),
                rng=self._rng,
            )
            if pause_s is None:
                raise error
            log.info("asking again in %.2f s method=%s target=%s failure=%s", pause_s, method, target, failure.value)
            yield Pause(pause_s)
            failing_s += pause_s

    def _failure(self, outcome: Outcome | None) -> tuple[AttemptFailure | None, SidecarError]:
        """What became of an attempt without a good answer. None: asking again would change nothing."""
        match outcome:
            case HttpAnswer():
                error = error_of(outcome, url=self.url)
                return failure_of(outcome.status, error.code), error
            case AnswerLost():
                return AttemptFailure.ANSWER_LOST, NoServer(outcome.reason, url=self.url)
            case NotConnected():
                return AttemptFailure.NOT_CONNECTED, NoServer(f"no sidecar answers at {self.url}: {outcome.reason}")
            case None:
                raise TypeError("an HttpRequest was answered like a Pause")

    def _headers(self, content: bytes | None, key: str | None) -> dict[str, str]:
        headers = dict(self._fixed_headers)
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if content is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        return headers


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


def _retry_after_s(outcome: Outcome | None) -> float | None:
    header = outcome.headers.get("retry-after") if isinstance(outcome, HttpAnswer) else None
    return float(header) if header is not None and header.isdecimal() else None
