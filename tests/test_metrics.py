"""Metrics: each moves when its thing happens, is documented, and none lets a client make labels up."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sidecar.http.app import ROUTES
from sidecar.http.errors import ROWS
from sidecar.http.observe.series import Counters, Histograms
from sidecar.http.routes.exposition import family_of
from sidecar.state.durations import BOUNDS_S, Durations
from sidecar.state.models import AgentState, ExitCause

ROOT = Path(__file__).parents[1]
DOCUMENTED = ROOT / "docs" / "metrics.md"
PROCESS = "process_"  # prometheus-client's own

Labels = frozenset[tuple[str, str]]


class Scrape:
    """What one GET /metrics said. value: of the sample with at least these labels, 0 when there is none."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        asked = set(labels.items())
        return sum(value for (each, of), value in self.samples.items() if each == name and asked <= of)

    def labels(self, name: str) -> set[str]:
        return {value for (each, of), _ in self.samples.items() if each == name for key, value in of if key != "le"}


def scrape(sidecar: Any) -> Scrape:
    answer = sidecar.client().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return Scrape(answer.text)


class Moves:
    """By how much each sample has risen since this was made."""

    def __init__(self, sidecar: Any) -> None:
        self._sidecar = sidecar
        self._before = scrape(sidecar)

    def __call__(self, name: str, **labels: str) -> float:
        return scrape(self._sidecar).value(name, **labels) - self._before.value(name, **labels)


def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"


def publish(client: Any, event_type: str = "step", **fields: Any) -> None:
    answer = client.post(f"/api/events/{event_type}", json={"data": {}, **fields})
    assert answer.status_code == 202, answer.text


def wait(client: Any, event_type: str = "step", **query: Any) -> Any:
    return client.get(f"/api/events/wait/{event_type}", params={"timeout": 5000, **query}).json()


class TestWhatMoves:
    def test_requests_by_route_and_status_with_their_time(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        agent = sidecar.agent()
        agent.get("/api/agents")
        agent.get("/api/agents/nobody")
        requests = "sidecar_http_requests_total"
        assert moved(requests, method="GET", route="/api/agents", status="200") == 1
        assert moved(requests, method="GET", route="/api/agents/<agent_id>", status="404") == 1
        assert moved("sidecar_http_request_duration_seconds_count", route="/api/agents") == 1
        assert moved("sidecar_http_request_duration_seconds_sum", route="/api/agents") > 0

    def test_refusals_by_code_also_those_inside_mcp(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        sidecar.client().get("/status")
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "publish_event"}}
        sidecar.agent().post("/mcp", json=body)
        assert moved("sidecar_http_errors_total", code="AUTH_001") == 1
        assert moved("sidecar_http_errors_total", code="REQ_001") == 1
        assert moved("sidecar_mcp_tool_calls_total", tool="publish_event", outcome="invalid_request") == 1

    def test_agents_by_state_their_spawn_time_restarts_and_exits(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        crashing = sidecar.spawn("rust-specialist")["agent_id"]
        staying = sidecar.spawn("go-specialist")["agent_id"]
        sidecar.wait_for("agent_failed", f"agent_id:{crashing}")
        sidecar.wait_for("agent_started", f"agent_id:{staying}")
        assert moved("sidecar_agents", state="failed") == 1
        assert moved("sidecar_agents", state="running") == 1
        assert moved("sidecar_agents_spawned_total") == 2
        assert moved("sidecar_agent_restarts_total") == 2
        assert moved("sidecar_agent_exits_total", cause="exit") == 3
        assert moved("sidecar_agent_spawn_duration_seconds_count") == 2
        assert moved("sidecar_agent_spawn_duration_seconds_sum") > 0
        sidecar.operator.delete(f"/api/agents/{staying}")
        assert moved("sidecar_agents", state="running") == 0
        assert moved("sidecar_agents", state="stopped") == 1

    def test_events_published_delivered_and_how_far_behind_a_mailbox_is(self, sidecar: Any) -> None:
        moved, agent = Moves(sidecar), sidecar.agent()
        publish(agent)
        assert len(wait(agent)["events"]) == 1
        for _ in range(3):
            publish(agent)
        assert moved("sidecar_events_published_total") == 4
        assert moved("sidecar_events_delivered_total") == 1
        assert moved("sidecar_mailboxes") == 1
        assert moved("sidecar_mailbox_lag_max_events") == 3
        assert moved("sidecar_event_queue_depth") == 3

    def test_waits_that_are_parked(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        asked = threading.Event()
        with ThreadPoolExecutor() as pool:

            def long_wait() -> Any:
                client = sidecar.agent()
                asked.set()
                return wait(client, "late", timeout=20_000)

            waiting = pool.submit(long_wait)
            assert asked.wait(5)
            until(lambda: moved("sidecar_event_waits") == 1)
            assert moved("sidecar_http_connections", state="waiting") == 1
            publish(sidecar.agent(agent_id="other"), "late")
            assert waiting.result(20)["events"]

    def test_events_handed_out_again_because_their_answer_was_lost(self, sidecar: Any) -> None:
        agent = sidecar.client(sidecar.token(), Via="1.1 proxy")
        moved = Moves(sidecar)
        publish(agent)
        assert wait(agent)["events"]
        again = wait(sidecar.client(sidecar.token(), Via="1.1 proxy"))
        assert again["events"][0]["redelivered"]
        assert moved("sidecar_event_redeliveries_total") == 1

    def test_gaps_that_were_told(self, start_sidecar: Any) -> None:
        sidecar = start_sidecar("[events]\nmax_events = 10\n[limits]\nenabled = false\n")
        agent, moved = sidecar.agent(), Moves(sidecar)
        publish(agent)
        wait(agent)
        for _ in range(15):
            publish(agent)
        assert wait(agent)["gap"]
        assert moved("sidecar_event_gaps_total") == 1

    def test_contexts_by_their_time_their_size_and_the_cache(self, sidecar: Any) -> None:
        agent, moved = sidecar.agent(), Moves(sidecar)
        sizes = [len(agent.get("/api/context/issue-1/python-specialist").content) for _ in range(2)]
        assert moved("sidecar_context_duration_seconds_count", cache="miss") == 1
        assert moved("sidecar_context_duration_seconds_count", cache="hit") == 1
        assert moved("sidecar_context_size_bytes_count") == 2
        assert moved("sidecar_context_size_bytes_sum") == sum(sizes)
        assert moved("sidecar_context_cache_entries") == 1
        assert moved("sidecar_context_cache_bytes") > 0

    def test_results_and_the_disk_they_were_synced_to(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        body = {
            "agent_id": "agent-1",
            "agent_type": "python-specialist",
            "issue_id": "i",
            "project_id": "default",
            "result": {"status": "success"},
        }
        assert sidecar.agent().post("/api/results", json=body).status_code == 201
        assert moved("sidecar_results") == 1
        assert moved("sidecar_result_bytes") > 0
        assert moved("sidecar_journal_sync_duration_seconds_count", journal="results") >= 1

    def test_actors_their_messages_and_restarts(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        sidecar.operator.post("/api/actors/context_builder/restart")
        until(lambda: moved("sidecar_actor_restarts_total", actor="context_builder") == 1)
        publish(sidecar.agent())
        first = moved("sidecar_actor_messages_total", actor="event_bus")
        assert first > 0
        assert moved("sidecar_actor_busy_seconds_total", actor="event_bus") > 0
        handled = moved("sidecar_actor_handling_duration_seconds_count", actor="event_bus")
        # The bus goes on between the looks; a message may be counted before it is timed.
        assert first - 3 <= handled <= moved("sidecar_actor_messages_total", actor="event_bus") + 3

    def test_acts_on_record(self, sidecar: Any) -> None:
        sidecar.sidecar.server.observers.auditor.written(timeout_s=5)  # that it was started
        moved = Moves(sidecar)
        sidecar.operator.delete("/api/cache/all")
        sidecar.sidecar.server.observers.auditor.written(timeout_s=5)
        assert moved("sidecar_audit_records_total") == 1

    def test_connections_by_what_they_do(self, sidecar: Any) -> None:
        moved = Moves(sidecar)
        with sidecar.agent().stream("GET", "/api/events/stream") as stream:
            assert stream.status_code == 200
            until(lambda: moved("sidecar_http_connections", state="streaming") == 1)
        until(lambda: moved("sidecar_http_connections", state="streaming") == 0)


class TestLabels:
    def test_are_bounded_whatever_clients_ask_for(self, sidecar: Any) -> None:
        agent = sidecar.agent()
        for n in range(20):
            agent.get(f"/api/nothing/{n}")
            agent.get(f"/api/agents/agent-{n}")
            agent.request(f"ODD{n}", "/api/agents")
            agent.request(f"ODD{n}", f"/nowhere/{n}")
        seen = scrape(sidecar)
        known = {route.path for route in ROUTES} | {"(none)"}
        routes = {dict(of).get("route") for (name, of) in seen.samples if name == "sidecar_http_requests_total"}
        methods = {dict(of).get("method") for (name, of) in seen.samples if name == "sidecar_http_requests_total"}
        assert routes <= known
        assert "(other)" in methods
        assert len(methods) <= 8
        assert seen.labels("sidecar_http_errors_total") <= {row.wire_code for row in ROWS.values()}
        assert seen.labels("sidecar_agents") == {state.value for state in AgentState}

    def test_of_exits_are_causes(self, sidecar: Any) -> None:
        sidecar.wait_for("agent_exited", f"agent_id:{sidecar.spawn('python-specialist')['agent_id']}")
        assert scrape(sidecar).labels("sidecar_agent_exits_total") <= {cause.value for cause in ExitCause}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name of each metric in the documentation, with its kind and labels."""
    rows = re.findall(r"^\| `(sidecar_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENTED.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


class TestDocumentation:
    def test_has_every_metric_and_no_other(self, sidecar: Any) -> None:
        found = {
            name + ("_total" if family.type == "counter" else ""): family.type
            for name, family in scrape(sidecar).families.items()
            if not name.startswith(PROCESS)
        }
        assert found == {name: kind for name, (kind, _) in documented().items()}

    def test_names_the_labels(self, sidecar: Any) -> None:
        agent = sidecar.agent()
        agent.get("/api/context/issue-1/python-specialist")
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_results"}}
        agent.post("/mcp", json=body)
        agent.get("/nowhere")
        sidecar.wait_for("agent_exited", f"agent_id:{sidecar.spawn('python-specialist')['agent_id']}")
        seen: dict[str, set[str]] = {}
        for family in scrape(sidecar).families.values():
            name = family.name + ("_total" if family.type == "counter" else "")
            for sample in family.samples:
                seen.setdefault(name, set()).update(set(sample.labels) - {"le"})
        listed = documented()
        assert {name: labels for name, labels in seen.items() if name in listed} == {
            name: labels for name, (_, labels) in listed.items()
        }

    @pytest.mark.parametrize("file", ["examples/grafana/sidecar.json", "examples/prometheus/alerts.yml"])
    def test_examples_ask_for_metrics_that_exist(self, file: str) -> None:
        text = (ROOT / file).read_text()
        known = {
            name + suffix
            for name, (kind, _) in documented().items()
            for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
        }
        asked = set(re.findall(r"\bsidecar_\w+", text)) - {"sidecar_instance"}
        assert asked
        assert asked <= known

    def test_the_grafana_dashboard_is_one(self) -> None:
        dashboard = json.loads((ROOT / "examples/grafana/sidecar.json").read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["title"]
            assert all(target["expr"] for target in panel["targets"])
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


class TestDurations:
    @given(st.lists(st.floats(0, 20), max_size=50))
    def test_each_is_counted_in_every_bucket_that_it_fits(self, taken: list[float]) -> None:
        durations = Durations()
        for took_s in taken:
            durations.add(took_s)
        counts = dict(durations.cumulative())
        assert [counts[bound] for bound in BOUNDS_S] == [sum(t <= bound for t in taken) for bound in BOUNDS_S]
        assert counts[float("inf")] == len(taken)
        assert durations.total_s == pytest.approx(sum(taken))


BOUNDS = (0.0005, 0.25, 1.0, 2.5, 1_048_576.0)
A_LABEL = st.sampled_from(["a", 'with "quotes"', "/path/<id>"])


class Told(Collector):
    """Stands for a registry: it has one family to tell of."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def as_text(measured: Counters | Histograms) -> list[bytes]:
    return generate_latest(Told(family_of(measured))).splitlines()


def without_created(text: bytes) -> list[bytes]:
    """When a series began, which the client tells of its own instruments unless it is told not to."""
    return [line for line in text.splitlines() if b"_created" not in line]


class TestSeries:
    """Our counters and histograms; the model is the Prometheus client's own."""

    @given(st.lists(st.tuples(A_LABEL, st.integers(0, 5))))
    def test_counters_read_as_the_clients_do(self, added: list[tuple[str, int]]) -> None:
        registry = CollectorRegistry()
        ours = Counters("things", "What there was.", "kind"), Counters("others", "What else there was.")
        labelled = Counter("things", "What there was.", ["kind"], registry=registry)
        plain = Counter("others", "What else there was.", registry=registry)
        for label, more in added:
            ours[0].of(label).add(more)
            ours[1].of().add(more)
            labelled.labels(label).inc(more)
            plain.inc(more)
        assert as_text(ours[0]) + as_text(ours[1]) == without_created(generate_latest(registry))

    @given(st.lists(st.tuples(A_LABEL, st.floats(0, 2_000_000) | st.sampled_from(BOUNDS))))
    def test_histograms_read_as_the_clients_do(self, observed: list[tuple[str, float]]) -> None:
        registry = CollectorRegistry()
        ours = Histograms("took", "How long.", BOUNDS, "kind"), Histograms("size", "How large.", BOUNDS)
        labelled = Histogram("took", "How long.", ["kind"], buckets=BOUNDS, registry=registry)
        plain = Histogram("size", "How large.", buckets=BOUNDS, registry=registry)
        for label, value in observed:
            ours[0].of(label).observe(value)
            ours[1].of().observe(value)
            labelled.labels(label).observe(value)
            plain.observe(value)
        assert as_text(ours[0]) + as_text(ours[1]) == without_created(generate_latest(registry))

    def test_lose_nothing_between_threads(self, request: pytest.FixtureRequest) -> None:
        request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
        sys.setswitchinterval(1e-6)
        counters, histograms = Counters("things", "", "kind"), Histograms("took", "", BOUNDS, "kind")
        together = threading.Barrier(8)

        def count(_: int) -> None:
            together.wait(10)
            for n in range(2000):
                counters.of(str(n % 50)).add()
                histograms.of(str(n % 50)).observe(n)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(count, range(8)))
        assert [counter.total for counter in counters.series().values()] == [8 * 40] * 50
        read = [histogram.cumulative() for histogram in histograms.series().values()]
        assert [cumulative[-1][1] for cumulative, _ in read] == [8 * 40] * 50
        assert sum(total for _, total in read) == 8 * sum(range(2000))

    def test_have_a_value_for_every_label(self) -> None:
        with pytest.raises(ValueError, match="things has the labels"):
            Counters("things", "", "kind").of()
