"""Spans of OpenTelemetry: one for each request, and one for each publish, result, spawn and context that it asks for.

The one door to OpenTelemetry, opened by telemetry.py. Where spans go, how many are sampled and what the service is
called is the SDK's business, by its OTEL_* variables. Attributes are ids, types, sizes and codes: never a header, a
query, a body or a token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

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
from ...actors.replies import ContextBundle, Published, SpawnedAgent, Stored
from ...actors.runtime.actor_supervisor import ActorHandle
from ...actors.runtime.asking import Fact, Later, R, Recipient, Request
from ...actors.runtime.turns import TurnByTurn
from ...state.errors import SidecarError
from ...state.events.topics import standard_topic

CLOSE_S = 2.0  # what has not been exported by then is lost: a collector that is down must not hold up the end
SERVICE = "orchestration-sidecar"

_propagator = TraceContextTextMapPropagator()
Attributes = dict[str, str | int | bool]


def exporter() -> SpanExporter:
    """OTLP over HTTP, to where OTEL_EXPORTER_OTLP_ENDPOINT and its like say."""
    return OTLPSpanExporter()


class Begun(NamedTuple):
    """What is known of an operation before it is done. finish: what is known of it afterwards."""

    name: str
    kind: SpanKind
    attributes: Attributes
    finish: Callable[[Any], Attributes]


class Tracing:
    """Makes spans, which are exported in the background; used by every thread."""

    def __init__(self, to: SpanExporter) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what is said here.
        said = Resource({"service.name": SERVICE, "service.version": __version__})
        self._provider = TracerProvider(resource=said.merge(Resource.create()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(to))
        self._tracer = self._provider.get_tracer(SERVICE, __version__)

    def request(self, method: str, traceparent: str | None, tracestate: str | None) -> Span:
        """The span of an HTTP request, in the trace that it names, if it does so in a way that holds."""
        carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
        return self._tracer.start_span(
            method, _propagator.extract(carrier, context.Context()), SpanKind.SERVER, {"http.request.method": method}
        )

    @contextmanager
    def within(self, span: Span) -> Iterator[None]:
        """What is asked of actors in here is part of `span`."""
        token = context.attach(trace.set_span_in_context(span, context.Context()))
        try:
            yield
        finally:
            context.detach(token)

    def asked(self, request: Request[R], send: Callable[[Request[R]], Later[R]]) -> Later[R]:
        """Send a request. One that has a span takes the place of whoever sent it in the trace it carries on."""
        if isinstance(request, PublishTogether):
            return self._asked_together(request, send)
        begun = _begun(request)
        if begun is None:
            return send(request)
        span = self._start(request, begun)
        if not isinstance(request, BuildContext):
            request = msgspec.structs.replace(request, traceparent=traceparent_of(span))
        later = send(request)
        later.add_done_callback(lambda done: _end(span, done, begun.finish))
        return later

    def _asked_together(self, request: PublishTogether, send: Callable[[Any], Later[Any]]) -> Later[Any]:
        """A span for each event, in the trace of its own."""
        spans = [self._start(event, _publish(event)) for event in request.events]
        events = tuple(
            msgspec.structs.replace(event, traceparent=traceparent_of(span))
            for event, span in zip(request.events, spans, strict=True)
        )
        later = send(PublishTogether(events=events))
        later.add_done_callback(lambda done: _end_together(spans, done))
        return later

    def _start(self, request: Any, begun: Begun) -> Span:
        parent = context.get_current()
        if not trace.get_current_span(parent).get_span_context().is_valid:
            parent = _propagator.extract({"traceparent": getattr(request, "traceparent", None) or ""})
        return self._tracer.start_span(begun.name, parent, begun.kind, begun.attributes)

    def around(self, recipient: Recipient) -> TracedRecipient:
        return TracedRecipient(recipient, self)

    def by_turns(self, handle: ActorHandle) -> TracedTurns:
        return TracedTurns(handle, self)

    def close(self) -> None:
        """Export what is left, for CLOSE_S at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def traceparent_of(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, context.Context()))
    return carrier["traceparent"]


class TracedRecipient:
    """An actor as it is known to those whose requests make spans. Implements `asking.Recipient`."""

    def __init__(self, recipient: Recipient, tracing: Tracing) -> None:
        self._recipient = recipient
        self._tracing = tracing

    @property
    def name(self) -> str:
        return self._recipient.name

    def tell(self, fact: Fact) -> None:
        self._recipient.tell(fact)

    def request(self, request: Request[R]) -> Later[R]:
        return self._tracing.asked(request, self._recipient.request)


class TracedTurns(TurnByTurn):
    """The event bus, likewise."""

    def __init__(self, handle: ActorHandle, tracing: Tracing) -> None:
        super().__init__(handle)
        self._tracing = tracing

    def request(self, request: Request[R]) -> Later[R]:
        return self._tracing.asked(request, super().request)


def _begun(request: Request[Any]) -> Begun | None:
    match request:
        case PublishEvent():
            return _publish(request)
        case StoreResult():
            return Begun(
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
            return Begun(
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
            return Begun(
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


def _publish(request: PublishEvent) -> Begun:
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
    return Begun(f"publish {topic}", SpanKind.PRODUCER, about, _published)


def _published(published: Published) -> Attributes:
    return {"messaging.message.id": published.event_id, "sidecar.subscribers": len(published.subscribers)}


def _stored(stored: Stored) -> Attributes:
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


def _published_at(place: int, published: tuple[Published, ...]) -> Attributes:
    return _published(published[place])
