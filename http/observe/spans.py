"""Spans of OpenTelemetry: one for each request, and one for each publish, result, spawn and context in it.

The one door to OpenTelemetry, opened by telemetry.py. The SDK's OTEL_* variables set the destination of spans, their
sampling and the name of the service. Attributes are ids, types, sizes and codes: never a header, a
query, a body or a token.

See docs/tracing.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple, cast

import msgspec
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ... import __version__
from ...actors.messages import BuildContext, PublishEvent, PublishTogether, SpawnAgent, StoreResult
from ...actors.replies import AcceptedResult, ContextBundle, PublishedEvent, SpawnedAgent
from ...actors.runtime.asking import Later, Request
from ...state.errors import SidecarError
from ...state.events.topics import standard_topic
from .meter import METHODS
from .observer import ObservedRequest, Observer, Q

CLOSE_S = 2.0  # later spans are lost: a collector that is down must not delay the end
SERVICE = "orchestration-sidecar"
OTHER_METHOD = "HTTP"  # clients must not invent names

_propagator = TraceContextTextMapPropagator()
Attributes = dict[str, str | int | bool]


def exporter() -> SpanExporter:
    """OTLP over HTTP, to where OTEL_EXPORTER_OTLP_ENDPOINT and its like say."""
    return OTLPSpanExporter()


class Operation(NamedTuple):
    """A request to an actor as a span. finish: the attributes that its reply adds."""

    name: str
    kind: SpanKind
    attributes: Attributes
    finish: Callable[[Any], Attributes]


class Tracing(Observer):
    """Creates spans, which are exported in the background. Used by every thread."""

    def __init__(self, to: SpanExporter) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what is said here.
        said = Resource({"service.name": SERVICE, "service.version": __version__})
        self._provider = TracerProvider(resource=said.merge(Resource.create()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(to))
        self._tracer = self._provider.get_tracer(SERVICE, __version__)

    def request(self, method: str, traceparent: str | None, tracestate: str | None) -> Span:
        """The span of an HTTP request, in the trace that it names, if that is valid."""
        carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
        return self._tracer.start_span(
            method, _propagator.extract(carrier, context.Context()), SpanKind.SERVER, {"http.request.method": method}
        )

    def began(self, request: ObservedRequest, environ: MutableMapping[str, Any]) -> None:
        """Begin the span of a request, which the log and everything the request makes refer to."""
        method = request.method if request.method in METHODS else OTHER_METHOD
        request.span = self.request(method, environ.get("HTTP_TRACEPARENT"), environ.get("HTTP_TRACESTATE"))
        environ["HTTP_TRACEPARENT"] = traceparent_of(request.span)

    def refused(self, request: ObservedRequest, *, status: int, wire_code: str, code: str) -> None:  # noqa: ARG002
        """Name the error in the span of its request."""
        request.span.set_attribute("error.type", wire_code)

    def answered(self, request: ObservedRequest, *, status: int, body_bytes: int, now: float) -> None:  # noqa: ARG002
        """End the span of a request. A wait that its client gives up ends without one."""
        span, caller = request.span, request.caller
        span.update_name(f"{request.method} {request.route}" if request.method in METHODS else OTHER_METHOD)
        span.set_attributes(
            {
                "http.route": request.route,
                "http.response.status_code": status,
                "http.response.body.size": body_bytes,
                "sidecar.request_id": request.request_id,
            }
        )
        if caller is not None:
            span.set_attributes(
                {
                    "sidecar.agent_id": caller.agent_id,
                    "sidecar.agent_type": caller.agent_type,
                    "sidecar.project_id": caller.project_id,
                }
            )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def asked(self, request: Q, later: Later[Any]) -> Q:
        """Begin the span of a request to an actor; the request carries on the trace from this span."""
        if isinstance(request, PublishTogether):
            return cast(Q, self._asked_together(request, later))
        operation = _operation(request)
        if operation is None:
            return request
        span = self._start(request, operation)
        later.add_done_callback(lambda done: _end(span, done, operation.finish))
        return msgspec.structs.replace(request, traceparent=traceparent_of(span))

    def _asked_together(self, request: PublishTogether, later: Later[Any]) -> PublishTogether:
        """A span for each event, in the trace of its own."""
        spans = [self._start(event, _publish(event)) for event in request.events]
        later.add_done_callback(lambda done: _end_together(spans, done))
        return PublishTogether(
            events=tuple(
                msgspec.structs.replace(event, traceparent=traceparent_of(span))
                for event, span in zip(request.events, spans, strict=True)
            )
        )

    def _start(self, request: Any, operation: Operation) -> Span:
        parent = _propagator.extract({"traceparent": request.traceparent or ""}, context.Context())
        return self._tracer.start_span(operation.name, parent, operation.kind, operation.attributes)

    def close(self) -> None:
        """Export the remaining spans, for at most CLOSE_S."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def traceparent_of(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, context.Context()))
    return carrier["traceparent"]


def _operation(request: Request[Any]) -> Operation | None:
    match request:
        case PublishEvent():
            return _publish(request)
        case StoreResult():
            return Operation(
                "store result",
                SpanKind.INTERNAL,
                {
                    "sidecar.project_id": request.project_id,
                    "sidecar.issue_id": request.issue_id,
                    "sidecar.agent_id": request.agent_id,
                    "sidecar.result.status": request.status,
                    "sidecar.result.size": len(request.result),
                },
                _stored,
            )
        case SpawnAgent():
            return Operation(
                f"spawn {request.agent_type}",
                SpanKind.PRODUCER,
                {
                    "sidecar.project_id": request.project_id,
                    "sidecar.issue_id": request.issue_id,
                    "sidecar.agent_type": request.agent_type,
                },
                _spawned,
            )
        case BuildContext():
            return Operation(
                "build context",
                SpanKind.INTERNAL,
                {
                    "sidecar.project_id": request.project_id,
                    "sidecar.issue_id": request.issue_id,
                    "sidecar.agent_type": request.agent_type,
                },
                _built,
            )
    return None


def _publish(request: PublishEvent) -> Operation:
    """Source of the names: OpenTelemetry, "Semantic conventions for messaging spans"."""
    topic = request.topic or standard_topic(request.event_type)
    about: Attributes = {
        "messaging.system": "sidecar",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.message.body.size": len(request.data),
        "sidecar.event_type": request.event_type,
        "sidecar.project_id": request.project_id,
        "sidecar.agent_id": request.publisher,
    }
    if request.correlation_id is not None:
        about["messaging.message.conversation_id"] = request.correlation_id
    return Operation(f"publish {topic}", SpanKind.PRODUCER, about, _published)


def _published(published: PublishedEvent) -> Attributes:
    return {"messaging.message.id": published.event_id, "sidecar.subscribers": len(published.subscribers)}


def _stored(stored: AcceptedResult) -> Attributes:
    return {"sidecar.result_id": stored.result_id}


def _spawned(spawned: SpawnedAgent) -> Attributes:
    status = spawned.status
    return {
        "sidecar.agent_id": status.agent_id,
        "sidecar.state": status.state.value,
        **({"process.pid": status.process_id} if status.process_id is not None else {}),
    }


def _built(bundle: ContextBundle) -> Attributes:
    return {"sidecar.cache_hit": bundle.cache_hit, "sidecar.context.size": len(bundle.body or b"")}


def _end(span: Span, done: Later[Any], finish: Callable[[Any], Attributes]) -> None:
    if done.cancelled():
        span.set_attribute("error.type", "cancelled")
        span.set_status(Status(StatusCode.ERROR))
    elif (error := done.exception()) is not None:
        # The code alone: what the error says may name paths of this machine.
        span.set_attribute("error.type", error.code if isinstance(error, SidecarError) else "internal")
        span.set_status(Status(StatusCode.ERROR))
    else:
        span.set_attributes(finish(done.result()))
    span.end()


def _end_together(spans: list[Span], done: Later[Any]) -> None:
    for place, span in enumerate(spans):
        _end(span, done, partial(_published_at, place))


def _published_at(place: int, published: tuple[PublishedEvent, ...]) -> Attributes:
    return _published(published[place])
