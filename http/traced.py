"""The application with a span for each request. Made in the place of the plain one when somebody collects spans."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Status, StatusCode

from .app import Application
from .errors import Described
from .exchange import Environ, Exchange, Rendered
from .observe.meter import METHODS
from .observe.spans import Tracing, traceparent_of
from .routing import Answer, Refused, Route


class TracedExchange(Exchange):
    """A request whose span ends with its answer. A wait that its client gives up ends without one."""

    def __init__(self, environ: Environ, *, tracing: Tracing, **rest: Any) -> None:
        method = environ["REQUEST_METHOD"]
        self.span = tracing.request(
            method if method in METHODS else "HTTP", environ.get("HTTP_TRACEPARENT"), environ.get("HTTP_TRACESTATE")
        )
        # What the request makes, and what the log says of it, belongs to this span from now on.
        environ["HTTP_TRACEPARENT"] = traceparent_of(self.span)
        super().__init__(environ, **rest)
        self._code: str | None = None

    def _described(self, error: BaseException) -> Described:
        described = super()._described(error)
        self._code = described.body.code
        return described

    def render(self, outcome: Answer | Refused | BaseException) -> Rendered:
        rendered = super().render(outcome)
        span = self.span
        span.update_name(f"{self.method} {self.route}" if self.method in METHODS else "HTTP")
        span.set_attributes(
            {
                "http.route": self.route,
                "http.response.status_code": rendered.status,
                "http.response.body.size": len(rendered.body),
                "sidecar.request_id": self.request_id,
            }
        )
        if self.caller is not None:
            span.set_attributes(
                {
                    "sidecar.agent_id": self.caller.agent_id,
                    "sidecar.agent_type": self.caller.agent_type,
                    "sidecar.project_id": self.caller.project_id,
                }
            )
        if self._code is not None:
            span.set_attribute("error.type", self._code)
        if rendered.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        return rendered


class TracedApplication(Application):
    """An Application whose routes run within the span of their request."""

    def __init__(self, tracing: Tracing, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._tracing = tracing

    def _exchange(self, environ: Environ) -> Exchange:
        exchange = TracedExchange(
            environ,
            tracing=self._tracing,
            meter=self._server.meter,
            auditor=self._server.auditor,
            private_paths=self._private_paths,
        )
        environ["sidecar.exchange"] = exchange
        return exchange

    def _perform(
        self, route: Route, environ: Environ, exchange: Exchange, parts: dict[str, str], head: Any
    ) -> Rendered | None:
        assert isinstance(exchange, TracedExchange)
        with self._tracing.within(exchange.span):
            return super()._perform(route, environ, exchange, parts, head)
