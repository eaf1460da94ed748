"""Health, status, metrics, actors and the API's description: every number is measured."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.http.app import ROUTES
from sidecar.http.observe.meter import MAX_SAMPLES, RequestMeter, percentile

RESULT = {"agent_id": "ada", "agent_type": "python-specialist", "issue_id": "i", "project_id": "default"}


def test_health_is_open_and_whole(sidecar: Any) -> None:
    answer = sidecar.client().get("/health?project_id=any")
    assert answer.status_code == 200
    health = answer.json()
    assert (health["status"], health["service"]) == ("healthy", "orchestration-sidecar")
    checks = health["checks"]
    assert (checks["storage"], checks["event_bus"]) == ("healthy", "healthy")
    assert set(checks) == {
        "storage", "event_bus", "memory_usage_mb", "cpu_usage_percent", "active_agents", "event_queue_size",
        "disk_space_available_mb",
    }  # fmt: skip
    assert checks["memory_usage_mb"] > 10
    assert checks["disk_space_available_mb"] > 0
    assert sidecar.client().get("/health").json()["uptime_seconds"] > health["uptime_seconds"] > 0


def test_health_counts_the_agents_that_run(sidecar: Any) -> None:
    sidecar.spawn("go-specialist")
    sidecar.wait_for("agent_started")
    assert sidecar.client().get("/health").json()["checks"]["active_agents"] == 1


@pytest.mark.parametrize(("actor", "check"), [("event_bus", "event_bus"), ("result_store", "storage")])
def test_health_is_503_while_an_actor_does_not_answer(sidecar: Any, actor: str, check: str) -> None:
    actors = sidecar.sidecar.server.actors
    {"event_bus": actors.bus.handle, "result_store": actors.results}[actor].stop()
    answer = sidecar.client().get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
    assert answer.json()["checks"][check] == "does not answer"
    assert int(answer.headers["Retry-After"]) >= 1


def test_status_has_every_number_of_the_protocol(sidecar: Any) -> None:
    status = sidecar.operator.get("/status").json()
    assert set(status["agents"]) >= {
        "active", "completed", "failed", "spawned_total", "restarts_total", "by_type", "avg_execution_time_ms",
    }  # fmt: skip
    assert set(status["storage"]) >= {
        "context_cache_entries", "results_stored", "total_size_mb", "cache_hit_rate", "storage_path",
    }  # fmt: skip
    assert set(status["events"]) >= {
        "total_published", "total_delivered", "active_subscriptions", "queue_depth", "avg_delivery_time_ms",
        "dead_letter_queue_size",
    }  # fmt: skip
    assert status["storage"]["durability"] == {"results": "commit", "events": "os", "agents": "os"}
    assert set(status["performance"]) == {
        "avg_response_time_ms", "p95_response_time_ms", "p99_response_time_ms", "requests_per_second",
        "errors_per_minute",
    }  # fmt: skip
    assert sidecar.client().get("/status").status_code == 401


def test_status_counts_what_happened(sidecar: Any) -> None:
    crashing = sidecar.spawn("rust-specialist")
    done = sidecar.spawn("python-specialist")
    sidecar.wait_for("agent_failed", f"agent_id:{crashing['agent_id']}")
    sidecar.wait_for("agent_exited", f"agent_id:{done['agent_id']}")
    agent = sidecar.agent("python-specialist", "ada")
    agent.post("/api/results", json={**RESULT, "result": {"status": "success"}})
    agent.get("/api/context/i/python-specialist")
    agent.get("/api/context/i/python-specialist")
    agent.get("/api/nothing")
    status = sidecar.operator.get("/status").json()
    agents = status["agents"]
    assert (agents["spawned_total"], agents["completed"], agents["failed"], agents["active"]) == (2, 1, 1, 0)
    assert agents["restarts_total"] == 2
    assert agents["by_type"] == {"rust-specialist": 1, "python-specialist": 1}
    assert agents["avg_execution_time_ms"] > 0
    assert (status["storage"]["results_stored"], status["storage"]["context_cache_entries"]) == (1, 1)
    assert status["storage"]["cache_hit_rate"] == 0.5
    assert status["storage"]["total_size_mb"] > 0
    published = sidecar.operator.get("/api/events", params={"limit": 1}).json()["total"]
    assert status["events"]["total_published"] == published
    assert status["events"]["total_delivered"] >= 2
    performance = status["performance"]
    assert 0 < performance["avg_response_time_ms"] <= performance["p99_response_time_ms"]
    assert performance["requests_per_second"] > 0
    assert performance["errors_per_minute"] > 0


def test_an_agent_sees_its_own_projects_numbers(sidecar: Any) -> None:
    one = sidecar.agent("python-specialist", "ada", project_id="one")
    one.post("/api/results", json={**RESULT, "project_id": "one", "result": {"status": "success"}})
    other = sidecar.agent("python-specialist", "bob", project_id="two").get("/status").json()
    assert other["storage"]["results_stored"] == 0
    assert other["events"]["total_published"] == 0
    assert other["performance"]["requests_per_second"] == 0
    assert one.get("/status").json()["storage"]["results_stored"] == 1


def test_metrics_are_what_prometheus_reads(sidecar: Any) -> None:
    sidecar.operator.post("/api/events/done", json={"data": {}})
    sidecar.client().get("/made/up/path")
    text = sidecar.client().get("/metrics")
    assert text.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(text.text)}
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    labels = (("method", "POST"), ("route", "/api/events/<event_type>"), ("status", "202"))
    assert samples[("sidecar_http_requests_total", labels)] == 1
    assert samples[("sidecar_events_published_total", ())] == 1
    assert samples[("sidecar_agents", (("state", "running"),))] == 0
    assert samples[("sidecar_actor_restarts_total", (("actor", "event_bus"),))] == 0
    assert "made/up" not in text.text


def test_the_actor_tree_is_for_everyone_and_its_inside_for_operators(sidecar: Any) -> None:
    listed = sidecar.operator.get("/api/actors").json()["actors"]
    assert [actor["name"] for actor in listed] == ["event_bus", "result_store", "spawner", "context_builder"]
    assert all(
        set(actor) == {"name", "state", "mailbox_depth", "processed", "failures", "restarts", "last_error", "busy_ms"}
        for actor in listed
    )
    assert all(set(actor) == {"name", "state"} for actor in sidecar.agent().get("/api/actors").json()["actors"])


@pytest.mark.parametrize("actor", ["event_bus", "result_store", "spawner", "context_builder"])
def test_an_operator_restarts_an_actor_and_nothing_is_lost(sidecar: Any, actor: str) -> None:
    agent = sidecar.agent("python-specialist", "ada")
    result_id = agent.post("/api/results", json={**RESULT, "result": {"status": "success"}}).json()["id"]
    running = sidecar.spawn("go-specialist")
    sidecar.wait_for("agent_started")
    answer = sidecar.operator.post(f"/api/actors/{actor}/restart")
    assert (answer.status_code, answer.json()["name"]) == (202, actor)
    until_restarted(sidecar, actor)
    assert agent.get(f"/api/results/{result_id}").status_code == 200
    assert sidecar.wait_for("result_stored")["data"]["result_id"] == result_id
    assert sidecar.operator.get(f"/api/agents/{running['agent_id']}").json()["state"] == "running"
    assert agent.get("/api/context/i/python-specialist").status_code == 200


def until_restarted(sidecar: Any, name: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        actors = {actor["name"]: actor for actor in sidecar.operator.get("/api/actors").json()["actors"]}
        if actors[name]["restarts"] == 1 and actors[name]["state"] == "running":
            return
        assert time.monotonic() < deadline, actors[name]


def test_an_actor_nobody_knows_is_not_found(sidecar: Any) -> None:
    assert sidecar.operator.post("/api/actors/ghost/restart").status_code == 404


def test_the_description_has_every_route_and_only_routes(sidecar: Any) -> None:
    answer = sidecar.client().get("/openapi.json")
    assert answer.status_code == 200
    described = answer.json()
    assert described["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert listed == {(route.method, re.sub(r"<(\w+)>", r"{\1}", route.path)) for route in ROUTES}
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
    assert referred <= described["components"]["schemas"].keys()


def test_every_route_that_is_described_is_answered(sidecar: Any) -> None:
    for path, methods in sidecar.client().get("/openapi.json").json()["paths"].items():
        for method in methods:
            url = re.sub(r"{\w+}", "x", path)
            answer = sidecar.client().request(method, url)
            assert answer.status_code not in (405, 500), (method, path)
            assert "nothing at this path" not in answer.text, (method, path)


class TestTheMeter:
    def meter(self) -> RequestMeter:
        return RequestMeter(started_at=0.0)

    def record(self, meter: RequestMeter, *, now: float, **given: Any) -> None:
        known = {"method": "GET", "route": "/x", "status": 200, "took_s": 0.001, "is_wait": False, "project_id": "p"}
        meter.record(**{**known, **given}, now=now)

    def test_percentiles_are_by_nearest_rank(self) -> None:
        assert percentile([], 0.99) == 0.0
        assert percentile([7.0], 0.99) == 7.0
        ordered = [float(n) for n in range(1, 101)]
        assert (percentile(ordered, 0.95), percentile(ordered, 0.99)) == (95.0, 99.0)

    def test_only_the_last_minute_counts(self) -> None:
        meter = self.meter()
        for n in range(120):
            self.record(meter, now=float(n), took_s=1.0 if n < 60 else 0.002, status=500 if n % 2 else 200)
        performance = meter.performance(project_id=None, now=120.0)
        assert performance.avg_response_time_ms == 2.0
        assert performance.requests_per_second == 1.0
        assert performance.errors_per_minute == 30.0

    def test_a_wait_is_a_request_but_no_response_time(self) -> None:
        meter = self.meter()
        self.record(meter, now=1.0, took_s=30.0, is_wait=True)
        self.record(meter, now=2.0, took_s=0.004)
        performance = meter.performance(project_id=None, now=4.0)
        assert (performance.avg_response_time_ms, performance.requests_per_second) == (4.0, 0.5)

    def test_a_minute_busier_than_is_kept_still_has_the_right_rate(self) -> None:
        meter = self.meter()
        for n in range(MAX_SAMPLES * 2):
            self.record(meter, now=n / 1000)
        rate = meter.performance(project_id=None, now=MAX_SAMPLES * 2 / 1000).requests_per_second
        assert rate == pytest.approx(1000, rel=0.01)
