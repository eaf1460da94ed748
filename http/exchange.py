"""One request and its answer: the request id, the caller, and the rendering of the outcome.

Rendering does not need the connection, so the same code renders a parked answer, later and in another thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import msgspec

from ..state.clock import utc_now
from ..state.errors import SidecarError
from ..state.identity import Caller
from ..state.ids import unique_hex
from ..state.models import IDENTIFIER
from ..state.trace import trace_id, traceparent
from .access.sessions import Session
from .errors import Described, ErrorBody, describe
from .observe.auditing import code_of
from .observe.observer import Observer
from .routing import JSON, Answer, ErrorShape, Refuse, Refused, Route
from .wire.codec import encode

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

NOT_ROUTED = "(none)"  # the route label of requests without a route: clients must not invent labels

_ALWAYS = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))
_PLAIN_JSON = (*_ALWAYS, ("Content-Type", JSON))  # most answers add nothing to these


class Rendered(NamedTuple):
    """An answer ready to send. headers: with Content-Length, without hop-by-hop ones."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def request_id_of(given: str | None) -> str:
    """The client's request id if it is valid, or else a new one."""
    if given is not None and IDENTIFIER.fullmatch(given) is not None:
        return given
    return f"req-{unique_hex(16)}"


class Exchange:
    """A request and its answer. private_paths: texts in errors that only operators may see, each with its substitute
    for others."""

    __slots__ = (
        "_observer",
        "_private_paths",
        "_traceparent",
        "address",
        "caller",
        "correlation_id",
        "error_shape",
        "is_wait",
        "limit_headers",
        "method",
        "path",
        "refuse",
        "request_id",
        "route",
        "session",
        "span",
        "started_at",
    )

    def __init__(
        self,
        environ: MutableMapping[str, Any],
        *,
        observer: Observer,
        private_paths: Mapping[str, str],
    ) -> None:
        self.request_id = request_id_of(environ.get("HTTP_X_REQUEST_ID"))
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "")
        self.route = NOT_ROUTED
        self.is_wait = False
        self.error_shape: ErrorShape | None = None
        self.refuse: Refuse | None = None
        self.caller: Caller | None = None
        self.session: Session | None = None
        self.correlation_id: str | None = None
        self.limit_headers: list[tuple[str, str]] = []
        self.address: str = environ.get("REMOTE_ADDR", "")
        self.span: Any = None
        self.started_at = time.monotonic()
        self._private_paths = private_paths
        self._observer = observer
        observer.began(self, environ)
        given = environ.get("HTTP_TRACEPARENT")
        self._traceparent = None if given is None else traceparent(given)

    def is_for(self, route: Route) -> None:
        """Set the content type and errors of the route."""
        self.route, self.is_wait = route.path, route.is_wait
        self.error_shape, self.refuse = route.error_shape, route.refuse

    def render(self, outcome: Answer | Refused | BaseException) -> Rendered:
        """Render an answer or an error as bytes. Counts the request, so call it once."""
        if isinstance(outcome, Answer):
            status, headers, body = self._answer(outcome)
        elif isinstance(outcome, Refused):
            described = self._described(outcome.error)
            status, headers, body = self._answer(Answer(outcome.status, outcome.shape(described.body)))
        else:
            status, headers, body = self._error(outcome)
        headers.append(("X-Request-Id", self.request_id))
        headers += self.limit_headers
        now = time.monotonic()
        self._observer.answered(self, status=status, body_bytes=len(body), now=now)
        if log.isEnabledFor(logging.DEBUG):
            self._log_answer(status, now - self.started_at)
        return Rendered(status, headers, body)

    def replied(self, reply: object) -> None:
        """Tell observers that an actor has replied."""
        self._observer.replied(self, reply)

    def _log_answer(self, status: int, took_s: float) -> None:
        told, values = self._told(
            status=status,
            took_ms=round(took_s * 1000, 1),
            agent_id=self.caller.agent_id if self.caller is not None else None,
            trace_id=trace_id(self._traceparent) if self._traceparent is not None else None,
        )
        log.debug("request answered " + told, *values)

    def _answer(self, answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
        body = answer.body if isinstance(answer.body, bytes) else encode(answer.body)
        if not answer.headers and answer.content_type is JSON:
            return answer.status, [*_PLAIN_JSON, ("Content-Length", str(len(body)))], body
        given = {name for name, _ in answer.headers}
        headers = [*answer.headers, *((name, value) for name, value in _ALWAYS if name not in given)]
        if answer.status != 304:
            headers += [("Content-Type", answer.content_type), ("Content-Length", str(len(body)))]
        return answer.status, headers, body

    def _error(self, error: BaseException) -> tuple[int, list[tuple[str, str]], bytes]:
        described = self._described(error)
        shaped = self.error_shape(described.body) if self.error_shape is not None else described.body
        encoded = encode(shaped)
        headers = [*described.headers, *_ALWAYS, ("Content-Type", JSON), ("Content-Length", str(len(encoded)))]
        return described.status, headers, encoded

    def _described(self, error: BaseException) -> Described:
        """The error as its caller may see it; logged here if someone has to look into it."""
        is_operator = self.caller is not None and self.caller.is_operator
        described = describe(error, request_id=self.request_id, now=utc_now(), to_operator=is_operator)
        self._observer.refused(self, status=described.status, wire_code=described.body.code, code=code_of(error))
        if not isinstance(error, SidecarError):
            told, values = self._told()
            log.error("request failed " + told, *values, exc_info=error)
        elif described.status >= 500:
            told, values = self._told()
            log.warning("request refused " + told + ": %s", *values, error)
        if is_operator:
            return described
        return msgspec.structs.replace(described, body=_without(described.body, self._private_paths))

    def _told(self, **more: object) -> tuple[str, list[object]]:
        """The fields of a log message with their values, without those that are None."""
        fields = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            **more,
            "correlation_id": self.correlation_id,
        }
        known = {name: value for name, value in fields.items() if value is not None}
        return " ".join(f"{name}=%s" for name in known), list(known.values())


def _without(body: ErrorBody, private_paths: Mapping[str, str]) -> ErrorBody:
    message = body.message
    for path, shown in private_paths.items():
        message = message.replace(path, shown)
    return msgspec.structs.replace(body, message=message)
