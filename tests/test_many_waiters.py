"""Thousands wait at once: what it costs, and that every one of them is answered, by an event and at shutdown."""

from __future__ import annotations

import resource
import signal

import httpx
import psutil
import pytest

from tests.benchmarks.bench_events import Load, Peer, sidecar


def park(peer: Peer, load: Load, crowd: int) -> None:
    """Have a crowd wait; returns when the sidecar says that all of them do."""
    load("park", port=peer.port, requests=peer.crowd("crowd", crowd), settle_s=0.0)
    with httpx.Client(base_url=f"http://127.0.0.1:{peer.port}", timeout=60.0) as client:
        client.headers["Authorization"] = f"Bearer {peer.tokens[0]}"
        for _ in range(300):
            if client.get("/status").json()["events"]["active_subscriptions"] == crowd:
                return
            client.get("/api/events/wait/nothing", params={"timeout": 100, "since": "latest"})
    raise AssertionError(f"not all of {crowd} wait")


def assert_crowd_is_served(peer: Peer, load: Load, crowd: int, *, idle_s: float) -> tuple[float, float]:
    """Park a crowd, wake it, park it again, shut down. Returns MB more while parked, and the share of a core used."""
    process = psutil.Process(peer.process.pid)
    before_mb = peer.rss_mb()
    park(peer, load, crowd)
    parked_mb = peer.rss_mb() - before_mb
    busy = process.cpu_percent(interval=idle_s) / 100
    connections = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED]
    assert len(connections) >= crowd
    assert process.num_threads() < 30
    load("unpark")  # fails if anyone is not answered
    park(peer, load, crowd)
    peer.process.send_signal(signal.SIGTERM)
    assert load("hear_out")["timed_out"] == crowd
    assert peer.process.wait(30) == 0
    return parked_mb, busy


def test_everyone_who_waits_is_answered_by_an_event_and_at_shutdown() -> None:
    load = Load()
    with sidecar(300) as peer:
        assert_crowd_is_served(peer, load, 300, idle_s=0.1)
    load.close()


@pytest.mark.soak
def test_ten_thousand_waiters_cost_memory_and_nothing_else() -> None:
    crowd = 10_000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < crowd + 1_000:
        pytest.skip("the limit on open files is too low for so many connections")
    load = Load()
    with sidecar(crowd) as peer:
        parked_mb, busy = assert_crowd_is_served(peer, load, crowd, idle_s=60.0)
    load.close()
    print(f"{crowd} parked: {parked_mb:.0f} MB more, {busy:.1%} of a core")
    assert parked_mb < 200
    assert busy < 0.05
