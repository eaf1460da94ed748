"""kill -9 at a random moment, sixteen writers, a compaction every 30 ms: what was acknowledged is there, and its event.

The real ResultStore and the real EventBus write in a process of their own, which is killed; then they are started
again on the same directory, here, and looked at.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from sidecar.actors.messages import FindResults, ListEvents
from sidecar.actors.runtime.asking import ask
from sidecar.actors.runtime.timers import Timers
from sidecar.state.models import StoredResult
from tests import result_writers

WITHIN_S = 20.0
ALL = 10_000_000


def life(directory: Path, first: int, rng: random.Random) -> list[tuple[int, str, str]]:
    """Let the writers run, kill them, and return what they said was stored: (number, result id, event id)."""
    process = subprocess.Popen(
        [sys.executable, result_writers.__file__, str(directory), str(first)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        begun = process.stdout.readline()
        threading.Event().wait(rng.uniform(0, 0.15))
        process.kill()
        said = begun + process.stdout.read()
    process.wait(timeout=WITHIN_S)
    lines = said.decode().splitlines()
    assert lines, "the writers stored nothing"
    return [(int(n), result_id, event_id) for n, result_id, event_id in (line.split() for line in lines)]


def found(directory: Path) -> tuple[dict[str, StoredResult], Counter[str], dict[str, str]]:
    """Results by id, how many events tell of each, and the id of that event; when the outbox has been emptied."""
    timers = Timers()
    timers.start()
    supervisor, bus, store = result_writers.world(directory, timers)
    supervisor.start()
    try:
        page = ask(store, FindResults(project_id=None, limit=ALL), timeout_s=WITHIN_S)
        results: dict[str, StoredResult] = {result.id: result for result in page.results}
        assert page.total == len(results)
        waited = threading.Event()
        for _ in range(int(WITHIN_S / 0.05)):
            events = ask(bus, ListEvents(project_id=None, event_type="result_stored", limit=ALL), timeout_s=WITHIN_S)
            told: dict[str, str] = {
                msgspec.json.decode(event.data)["result_id"]: event.event_id for event in events.events
            }
            if len(told) >= len(results):
                break
            waited.wait(0.05)
        times: Counter[str] = Counter(msgspec.json.decode(event.data)["result_id"] for event in events.events)
        return results, times, told
    finally:
        supervisor.stop()
        timers.stop()


def rounds(directory: Path, count: int, seed: int) -> tuple[int, int]:
    """Kill `count` times on one directory; how many were acknowledged, and how many are there."""
    rng = random.Random(seed)
    acknowledged: list[tuple[int, str, str]] = []
    results: dict[str, StoredResult] = {}
    for number in range(count):
        acknowledged += life(directory, (number + 1) * 1_000_000, rng)
        results, times, told = found(directory)
        lost = [n for n, result_id, _ in acknowledged if result_id not in results]
        assert lost == [], "acknowledged, but not there"
        for n, result_id, event_id in acknowledged:
            assert bytes(results[result_id].result) == result_writers.body(n)
            assert told[result_id] == event_id, "told of by another event than was said"
        for result in results.values():
            n = msgspec.json.decode(result.result)["first"]
            assert bytes(result.result) == result_writers.body(n), "half a result, or another's"
        assert times.keys() == results.keys(), "a result without its event, or an event without its result"
        assert set(times.values()) <= {1}, "an event twice"
    return len(acknowledged), len(results)


def test_kill_9_takes_no_result_and_no_event(tmp_path: Path) -> None:
    acknowledged, there = rounds(tmp_path, 3, seed=1)
    assert there >= acknowledged > 0


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_kill_9_two_hundred_times_takes_no_result_and_no_event(tmp_path: Path) -> None:
    totals = [rounds(tmp_path / str(n), 5, seed=n) for n in range(40)]
    print(f"200 kills: {sum(t[0] for t in totals)} acknowledged, {sum(t[1] for t in totals)} there, 0 lost")
