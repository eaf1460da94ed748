"""Spans of OpenTelemetry, as an extra: of requests and of what they ask for, in one trace, without a secret in them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sidecar.http.observe.spans import CLOSE_S, Tracing
from sidecar.http.observe.telemetry import is_wanted
from tests.conftest import LiveSidecar, StartSidecar
from tests.fleet import wait_until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = int("4bf92f3577b34da6a3ce929d0e0e4736", 16)
RESULT = {
    "agent_id": "agent-1",
    "agent_type": "python-specialist",
    "issue_id": "issue-1",
    "project_id": "default",
    "result": {"status": "success", "secret": "s3cr3t-payload"},
}

Find = Callable[..., ReadableSpan]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans of a sidecar go that is started after this."""
    memory = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr("sidecar.http.observe.spans.exporter", lambda: memory)
    return memory


@pytest.fixture
def traced(start_sidecar: StartSidecar, spans: InMemorySpanExporter) -> LiveSidecar:  # noqa: ARG001  # they come first
    return start_sidecar(environ={"OTEL_TRACES_EXPORTER": "otlp"})


@pytest.fixture
def find(spans: InMemorySpanExporter) -> Find:
    """The first span with a name, once it is there, and with these attributes (dots as two underscores)."""

    def found(name: str, **attributes: Any) -> ReadableSpan:
        def fits(span: ReadableSpan) -> bool:
            asked = {key.replace("__", "."): value for key, value in attributes.items()}
            return span.name == name and asked.items() <= dict(span.attributes or {}).items()

        return wait_until(
            lambda: next((span for span in spans.get_finished_spans() if fits(span)), None), what=f"span {name}"
        )

    return found


def is_in(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    return child.parent is not None and child.parent.span_id == parent.context.span_id


def traceparent_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


class TestRequests:
    def test_go_on_with_the_trace_of_their_client(self, traced: LiveSidecar, find: Find) -> None:
        agent = traced.client(traced.token(), traceparent=TRACE)
        answer = agent.get("/api/agents/nobody")
        span = find("GET /api/agents/<agent_id>")
        assert span.context is not None
        assert span.parent is not None
        assert (span.context.trace_id, span.parent.span_id) == (TRACE_ID, int("00f067aa0ba902b7", 16))
        assert span.kind is SpanKind.SERVER
        assert dict(span.attributes or {}) == {
            "http.request.method": "GET",
            "http.route": "/api/agents/<agent_id>",
            "http.response.status_code": 404,
            "http.response.body.size": len(answer.content),
            "sidecar.request_id": answer.headers["X-Request-Id"],
            "sidecar.agent_id": "agent-1",
            "sidecar.agent_type": "python-specialist",
            "sidecar.project_id": "default",
            "error.type": "REQ_404",
        }

    def test_begin_one_where_there_is_none_or_it_does_not_hold(self, traced: LiveSidecar, find: Find) -> None:
        for path, headers in (("/health", {}), ("/status", {"traceparent": "00-broken"})):
            traced.client(traced.operator_token(), **headers).get(path)
            assert find(f"GET {path}").parent is None

    def test_that_match_no_route_or_are_refused_have_one_too(self, traced: LiveSidecar, find: Find) -> None:
        traced.client().get("/nothing/here")
        traced.client(Host="evil.example").get("/status")
        assert find("GET (none)", http__response__status_code=404)
        assert find("GET (none)", http__response__status_code=403)

    def test_that_fail_are_marked(self, traced: LiveSidecar, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("a secret of the inside")

        monkeypatch.setattr("sidecar.http.routes.ops.disk_free_bytes", fail)
        traced.client().get("/health")
        span = find("GET /health")
        assert span.status.status_code is StatusCode.ERROR
        assert "inside" not in span.to_json()

    def test_that_wait_last_until_their_answer(self, traced: LiveSidecar, find: Find) -> None:
        traced.agent().get("/api/events/wait/never", params={"timeout": 300})
        span = find("GET /api/events/wait/<event_type>")
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time >= 0.3e9


class TestWhatRequestsAskFor:
    def test_a_publish_is_in_its_request_and_the_event_names_it(self, traced: LiveSidecar, find: Find) -> None:
        body = {"data": {"a": 1}, "correlation_id": "c-1"}
        event_id = (
            traced.client(traced.token(), traceparent=TRACE).post("/api/events/step", json=body).json()["event_id"]
        )
        span = find("publish coordination", messaging__message__id=event_id)
        assert is_in(span, find("POST /api/events/<event_type>"))
        assert span.kind is SpanKind.PRODUCER
        assert (span.attributes or {})["messaging.message.conversation_id"] == "c-1"
        assert traced.wait_for("step")["traceparent"] == traceparent_of(span)

    def test_a_result_is_in_its_request_and_its_event_in_the_result(self, traced: LiveSidecar, find: Find) -> None:
        stored = traced.agent().post("/api/results", json=RESULT).json()
        span = find("store result", sidecar__result_id=stored["id"])
        assert is_in(span, find("POST /api/results"))
        told = find("publish coordination", sidecar__event_type="result_stored")
        assert is_in(told, span)
        assert traced.wait_for("result_stored")["traceparent"] == traceparent_of(told)

    def test_a_spawn_is_in_its_request_and_the_agent_in_the_spawn(self, traced: LiveSidecar, find: Find) -> None:
        agent_id = traced.spawn("python-specialist")["agent_id"]
        span = find("spawn python-specialist", sidecar__agent_id=agent_id)
        assert is_in(span, find("POST /api/agents/spawn"))
        traced.wait_for("agent_exited")
        for event_type in ("agent_spawned", "agent_started", "agent_exited"):
            assert is_in(find("publish system", sidecar__event_type=event_type), span)

    def test_a_context_is_in_its_request_and_says_whether_it_was_kept(self, traced: LiveSidecar, find: Find) -> None:
        for kept in (False, True):
            size = len(traced.agent().get("/api/context/issue-1/python-specialist").content)
            span = find("build context", sidecar__cache_hit=kept)
            assert (span.attributes or {})["sidecar.context.size"] == size
        assert is_in(find("build context"), find("GET /api/context/<issue_id>/<agent_type>"))

    def test_what_cannot_be_done_is_marked_with_its_code_alone(self, traced: LiveSidecar, find: Find) -> None:
        traced.operator.post("/api/agents/spawn", json={"agent_type": "test-engineer", "issue_id": "i"})
        span = find("spawn test-engineer")
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "no_command"

    def test_tools_of_mcp_count_as_well(self, traced: LiveSidecar, find: Find) -> None:
        arguments = {"event_type": "step", "data": {}}
        params = {"name": "publish_event", "arguments": arguments}
        traced.agent().post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        assert is_in(find("publish coordination"), find("POST /mcp"))


class TestSecrets:
    def test_are_in_no_span(self, traced: LiveSidecar, spans: InMemorySpanExporter, find: Find) -> None:
        token = traced.token()
        agent = traced.client(token)
        agent.post(
            "/api/events/step", json={"data": {"password": "s3cr3t-payload"}}, headers={"Idempotency-Key": "s3cr3t-key"}
        )
        agent.post("/api/results", json=RESULT)
        agent.get("/api/events", params={"filter": "a:s3cr3t-query"})
        agent.get("/api/s3cr3t-path")
        spawned = traced.spawn("python-specialist", task="s3cr3t-task", environment={"APP_KEY": "s3cr3t-variable"})
        find("spawn python-specialist")
        find("GET (none)")
        told = "".join(span.to_json() for span in spans.get_finished_spans())
        assert "s3cr3t" not in told
        assert token not in told
        assert spawned["jwt_token"] not in told


class Collector:
    """What an OpenTelemetry collector does, as far as it listens."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, ExportTraceServiceRequest]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                read = ExportTraceServiceRequest.FromString(body)
                collector.requests.append((self.path, self.headers.get("X-Api-Key"), read))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def span_names(self) -> set[str]:
        return {
            span.name
            for _, _, read in self.requests
            for resource in read.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.server.shutdown()


class TestTheStandardVariables:
    def test_say_where_spans_go_and_what_the_service_is_called(
        self, start_sidecar: StartSidecar, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=mine",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
            "OTEL_SERVICE_NAME": "fleet",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        sidecar = start_sidecar(environ=given)
        sidecar.agent().post("/api/events/step", json={"data": {}})
        wait_until(lambda: {"POST /api/events/<event_type>", "publish coordination"} <= collector.span_names())
        path, key, read = collector.requests[0]
        assert (path, key) == ("/v1/traces", "mine")
        resource = {each.key: each.value.string_value for each in read.resource_spans[0].resource.attributes}
        assert resource["service.name"] == "fleet"
        assert resource["deployment.environment"] == "test"
        assert resource["service.version"]

    def test_lose_nothing_when_the_sidecar_ends(
        self, start_sidecar: StartSidecar, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        sidecar = start_sidecar(environ=given)
        sidecar.client().get("/health")
        assert collector.span_names() == set()
        sidecar.stop()
        assert "GET /health" in collector.span_names()

    def test_do_not_hold_up_the_end_for_a_collector_that_is_down(self) -> None:
        class Stuck(InMemorySpanExporter):
            def shutdown(self) -> None:
                threading.Event().wait()

        tracing = Tracing(Stuck())
        tracing.request("GET", None, None).end()
        began = time.monotonic()
        tracing.close()
        assert time.monotonic() - began < 2 * CLOSE_S

    @pytest.mark.parametrize(
        ("environ", "wanted"),
        [
            ({}, False),
            ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
            ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "True"}, False),
            ({"OTEL_SERVICE_NAME": "fleet"}, False),
        ],
    )
    def test_decide_whether_there_are_any(self, environ: dict[str, str], wanted: bool) -> None:
        assert is_wanted(environ) is wanted

    def test_without_the_extra_are_answered_by_a_warning(
        self, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("sidecar.http.observe.telemetry.is_installed", lambda: False)
        sidecar = start_sidecar(environ={"OTEL_TRACES_EXPORTER": "otlp"})
        assert sidecar.client().get("/health").status_code == 200
        assert "orchestration-sidecar[otel]" in caplog.text


def test_nothing_of_it_is_imported_when_nobody_wants_it() -> None:
    code = (
        "import sys, sidecar.http.serve; "
        "sys.exit(any(name.startswith(('opentelemetry', 'google.protobuf')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
