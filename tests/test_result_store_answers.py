"""The ResultStore actor: what it answers, when, and what it does when bus, disk or process let it down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from freezegun import freeze_time

from sidecar.actors.messages import CountResults
from sidecar.actors.replies import AcceptedResult
from sidecar.actors.result_store import ResultOptions
from sidecar.actors.results.facts import TimeToForget
from sidecar.actors.runtime.asking import Later, ask
from sidecar.state.errors import IdempotencyConflict, InvalidRequest, NotFound
from sidecar.state.models import AgentId
from tests.result_world import WAIT_S, ResultWorld, new


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ResultWorld]:
    world = ResultWorld(tmp_path / "results")
    yield world
    world.stop()


def test_a_stored_result_comes_back_as_it_was_sent(world: ResultWorld) -> None:
    sent = (
        b'{"status": "partial", "n": 1.50, "big": 12345678901234567890123, "e": 1e400, "\\u00e9": [null, "\xc3\xa9"]}'
    )
    stored = world.put(status="partial", result=msgspec.Raw(sent))
    result = world.get(stored.result_id)
    assert bytes(result.result) == sent
    assert (result.id, result.issue_id, result.status) == (stored.result_id, "issue-0", "partial")
    assert result.timestamp == result.stored_at == stored.stored_at
    (listed,) = world.find(agent_type="python-specialist", since=stored.stored_at).results
    assert listed == result


def test_an_answer_names_the_event_and_who_is_next(world: ResultWorld) -> None:
    stored = world.put()
    (event,) = world.heard
    assert (event.event_type, event.project_id, event.publisher, event.publisher_type) == (
        "result_stored",
        "p",
        "agent-1",
        "python-specialist",
    )
    assert msgspec.json.decode(event.data) == {
        "result_id": stored.result_id,
        "issue_id": "issue-0",
        "agent_id": "agent-1",
        "agent_type": "python-specialist",
        "status": "success",
    }
    assert stored.event_id == "evt-0000000000000001"
    assert [(agent.agent_type, agent.priority) for agent in stored.next_agents] == [
        ("test-engineer", "high"),
        ("security-auditor", "medium"),
    ]
    failed = world.put(status="failed")
    assert [agent.agent_type for agent in failed.next_agents] == ["chief-architect"]


def test_results_are_found_newest_first_page_by_page(world: ResultWorld) -> None:
    ids = [world.put(n, project_id="p" if n % 4 else "q").result_id for n in range(40)]
    mine = [result_id for n, result_id in enumerate(ids) if n % 4 and n % 3 == 1][::-1]
    seen: list[str] = []
    cursor = None
    while True:
        page = world.find(issue_id="issue-1", limit=4, cursor=cursor)
        assert page.total == len(mine)
        seen += [result.id for result in page.results]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == mine
    assert sorted(ids) == ids
    assert world.find(project_id=None).total == 40
    with pytest.raises(InvalidRequest):
        world.find(cursor="evt-0000000000000001")


def test_results_are_found_by_time(world: ResultWorld) -> None:
    with freeze_time("2026-01-01T00:00:00Z", tick=True) as clock:
        for n in range(3):
            world.put(n)
            clock.tick(3600)
        found = world.find(since=datetime(2026, 1, 1, 1, tzinfo=UTC), until=datetime(2026, 1, 1, 2, tzinfo=UTC))
        assert [msgspec.json.decode(result.result)["n"] for result in found.results] == [1]
        assert found.total == 1


def test_a_result_of_another_project_is_not_known(world: ResultWorld) -> None:
    stored = world.put()
    for wanted, project in (
        (stored.result_id, "q"),
        (stored.result_id[:-1] + "x", "p"),
        ("res-0000000000000001-000000000000", "p"),
        ("../secret", "p"),
    ):
        with pytest.raises(NotFound):
            world.get(wanted, project)
    assert world.get(stored.result_id, None).id == stored.result_id


def test_results_and_their_numbers_survive_a_restart(world: ResultWorld) -> None:
    ids = [world.put(n).result_id for n in range(5)]
    world.stop()
    world.start()
    assert [result.id for result in world.find().results] == ids[::-1]
    more = world.put().result_id
    assert more > ids[-1]
    numbers = ask(world.store, CountResults(project_id="p"), timeout_s=WAIT_S)
    assert numbers.results_stored == 6
    assert numbers.problem is None
    assert numbers.storage_path == str(world.directory.parent)
    assert ask(world.store, CountResults(project_id="q"), timeout_s=WAIT_S).total_bytes == 0


def test_an_idempotency_key_repeats_the_first_answer(world: ResultWorld) -> None:
    first = world.put(idempotency_key="k")
    assert world.put(idempotency_key="k") == first
    with pytest.raises(IdempotencyConflict):
        world.put(n=1, idempotency_key="k")
    assert world.put(idempotency_key="k", agent_id=AgentId("agent-2")) != first
    world.stop()
    world.start()
    assert world.put(idempotency_key="k") == first
    assert world.find().total == 2
    assert len({event.idempotency_key for event in world.heard}) == 2


def test_two_requests_with_one_key_at_once_get_one_result(world: ResultWorld) -> None:
    world.bus_fails.set()
    laters = [world.store.request(new(idempotency_key="k")) for _ in range(3)]
    world.bus_fails.clear()
    answers = {later.result(timeout=WAIT_S).result_id for later in laters}
    assert len(answers) == 1
    assert world.find().total == 1


def test_the_answer_waits_for_a_bus_that_is_down(world: ResultWorld) -> None:
    world.bus_fails.set()
    later = world.store.request(new())
    assert world.find().total == 1, "it is stored and can be read meanwhile"
    assert not later.done()
    world.bus_fails.clear()
    assert later.result(timeout=WAIT_S).event_id == "evt-0000000000000001"


def test_a_result_that_was_not_announced_is_announced_after_a_restart(world: ResultWorld) -> None:
    world.bus_fails.set()
    later = world.store.request(new())
    assert world.find().total == 1
    world.stop()
    assert world.heard == []
    assert later.exception(timeout=WAIT_S) is not None
    world.bus_fails.clear()
    world.start()
    asked_again = world.put(1)  # in the bus's mailbox behind the one that was left
    assert [msgspec.json.decode(event.data)["issue_id"] for event in world.heard] == ["issue-0", "issue-1"]
    assert asked_again.event_id == "evt-0000000000000002"
    world.stop()
    world.start()
    world.put(2)
    assert len(world.heard) == 3, "what was announced is not announced again"


def test_old_results_are_forgotten_for_good(tmp_path: Path) -> None:
    world = ResultWorld(tmp_path / "results")
    with freeze_time("2026-01-01T00:00:00Z", tick=True) as clock:
        old = world.put(idempotency_key="k")
        clock.tick(timedelta(days=2))
        kept = world.put(1)
        world.stop()
        world.options = ResultOptions(retention_days=1)
        world.start()  # forgets first of all
        assert [result.id for result in world.find().results] == [kept.result_id]
        with pytest.raises(NotFound):
            world.get(old.result_id)
        assert world.put(idempotency_key="k").result_id not in (old.result_id, kept.result_id)
        world.stop()


def test_results_are_kept_for_ever_unless_told_otherwise(world: ResultWorld) -> None:
    with freeze_time("2026-01-01T00:00:00Z", tick=True) as clock:
        world.put()
        clock.tick(timedelta(days=10_000))
        world.store.tell(TimeToForget())
        assert world.find().total == 1


def test_many_writers_share_commits(world: ResultWorld) -> None:
    laters: list[Later[AcceptedResult]] = [world.store.request(new(n)) for n in range(500)]
    assert len({later.result(timeout=WAIT_S).result_id for later in laters}) == 500
    assert world.find().total == 500
    assert len(world.heard) == 500


def test_storage_that_another_process_holds_keeps_the_store_from_starting(world: ResultWorld) -> None:
    with pytest.raises(Exception, match="in use by process"):
        ResultWorld(world.directory)
