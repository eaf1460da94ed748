"""The ResultStore when its disk is full or does not sync: it says so, goes on reading, and comes back by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from freezegun import freeze_time

from sidecar.actors.messages import CountResults
from sidecar.actors.result_store import ResultOptions
from sidecar.actors.runtime.asking import ask
from sidecar.state.errors import SidecarError, StorageUnavailable
from tests.faulty_disk import FaultyFs
from tests.result_world import WAIT_S, ResultWorld, new

BIG = msgspec.Raw(b'{"status":"success","text":"%b"}' % (b"x" * 20_000))


@pytest.fixture
def disk(tmp_path: Path) -> FaultyFs:
    (tmp_path / "results").mkdir(mode=0o700)
    return FaultyFs(tmp_path / "results")


@pytest.fixture
def world(tmp_path: Path, disk: FaultyFs) -> Iterator[ResultWorld]:
    world = ResultWorld(tmp_path / "results", fs=disk)
    yield world
    world.stop()


def problem(world: ResultWorld) -> str | None:
    return ask(world.store, CountResults(project_id=None), timeout_s=WAIT_S).problem


def test_a_full_disk_refuses_results_and_reads_go_on(world: ResultWorld, disk: FaultyFs) -> None:
    kept = world.put(1)
    disk.capacity = disk.capacity - disk.room() + 15_000
    with pytest.raises(StorageUnavailable, match="No space left on device"):
        world.put(2, result=BIG, idempotency_key="k")
    assert "No space left on device" in str(problem(world))
    assert [result.id for result in world.find().results] == [kept.result_id]
    assert world.get(kept.result_id).id == kept.result_id

    disk.capacity += 1 << 20
    stored = world.put(2, result=BIG, idempotency_key="k")
    assert problem(world) is None
    assert world.find().total == 2
    assert [event.idempotency_key for event in world.heard][-1] == f"result_stored:{stored.result_id}"
    assert len(world.heard) == 2, "what was refused was not announced"


def test_a_full_disk_can_forget_results(tmp_path: Path, disk: FaultyFs) -> None:
    with freeze_time("2026-01-01T00:00:00Z", tick=True) as clock:
        world = ResultWorld(tmp_path / "results", ResultOptions(retention_days=1), fs=disk)
        for n in range(50):
            world.put(n)
        disk.capacity = disk.capacity - disk.room()  # not a byte left
        clock.tick(timedelta(days=2, hours=1))
        world.stop()
        world.start()  # forgets first of all, out of the reserve
        assert world.find().total == 0
        later = threading.Event()
        for _ in range(200):  # what is dead is compacted away beside us, and that makes room
            try:
                world.put()
            except StorageUnavailable:
                later.wait(0.05)
            else:
                break
        assert world.find().total == 1
        world.stop()


def test_a_disk_that_does_not_sync_costs_the_batch_and_the_store_starts_anew(
    world: ResultWorld, disk: FaultyFs
) -> None:
    kept = world.put(1)
    disk.sync_fails = True
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        world.put(2)
    disk.sync_fails = False
    again = threading.Event()
    for _ in range(100):  # the next incarnation may not be there yet
        try:
            stored = world.put(3)
        except SidecarError:
            again.wait(0.05)
        else:
            break
    assert world.store.status().restarts >= 1
    assert [result.id for result in world.find().results] == [stored.result_id, kept.result_id]
    assert problem(world) is None


def test_requests_in_one_group_fail_together_and_none_is_kept(world: ResultWorld, disk: FaultyFs) -> None:
    world.put()
    disk.capacity = disk.capacity - disk.room() + 25_000
    laters = [world.store.request(new(n, result=BIG)) for n in range(3)]
    outcomes = [later.exception(timeout=WAIT_S) for later in laters]
    assert all(outcome is None or isinstance(outcome, StorageUnavailable) for outcome in outcomes)
    assert world.find().total == 1 + sum(outcome is None for outcome in outcomes)
    assert any(outcomes)
