"""Results are read from the disk: memory is bounded in bytes, and what is read is what was stored, or an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.actors.messages import CountResults
from sidecar.actors.result_store import ResultOptions
from sidecar.actors.results import compaction as result_compaction
from sidecar.actors.runtime.asking import ask
from sidecar.http.access.minting import mint_agent_token
from sidecar.state.errors import StorageUnreadable
from sidecar.state.models import AgentId, ResultId, StoredResult
from sidecar.state.results.document_store import DocumentStore
from sidecar.state.results.stored_results import PAGE_BYTES, StoredResults
from tests.fleet import wait_until
from tests.result_world import WAIT_S, ResultWorld
from tests.served import Served, start_served

# On top of a server at rest, however many there are: one or two in flight, each in several forms.
LARGE_RESULTS_MB = 130
NOTHING_KEPT = ResultOptions(memory_max_mb=0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ResultWorld]:
    world = ResultWorld(tmp_path / "results", NOTHING_KEPT)
    yield world
    world.stop()


def body(n: int, size: int = 200) -> msgspec.Raw:
    return msgspec.Raw(b'{"status":"success","n":%d,"text":"%b"}' % (n, b"x" * size))


def test_what_is_kept_nowhere_but_on_the_disk_comes_back_as_it_was_sent(world: ResultWorld) -> None:
    ids = [world.put(n, result=body(n, n * 300)).result_id for n in range(30)]
    for _ in range(2):
        for n, result_id in enumerate(ids):
            assert bytes(world.get(result_id).result) == bytes(body(n, n * 300))
        assert [result.id for result in world.find(limit=100).results] == ids[::-1]
        world.stop()
        world.start()


@given(lines=st.lists(st.sampled_from(['"a": 1,', "", "  ", '"b": [1,', "2],", "\r"]), max_size=6))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_line_breaks_come_back_as_they_were_sent(world: ResultWorld, lines: list[str]) -> None:
    text = "{" + "\n".join([*(line for line in lines if "[1" not in line and "2]" not in line), '"status": "success"}'])
    stored = world.put(result=msgspec.Raw(text.encode()))
    assert bytes(world.get(stored.result_id).result) == text.encode()


def test_line_breaks_come_back_after_a_restart(tmp_path: Path) -> None:
    sent = b'{\n  "status": "success",\n\n  "list": [\n1,\n 2\n]\n}'
    for options in (NOTHING_KEPT, ResultOptions()):
        world = ResultWorld(tmp_path / f"{options.memory_max_mb}", options)
        stored = world.put(result=msgspec.Raw(sent), traceparent="00-aa-bb-01")
        assert bytes(world.get(stored.result_id).result) == sent
        world.stop()
        world.start()
        assert bytes(world.get(stored.result_id).result) == sent
        world.stop()


def test_a_page_ends_when_it_is_full_and_says_how_to_go_on(world: ResultWorld) -> None:
    size = PAGE_BYTES // 3
    ids = [world.put(n, result=body(n, size)).result_id for n in range(7)]
    huge = world.put(7, result=body(7, PAGE_BYTES + 1)).result_id
    pages, cursor = [], None
    while True:
        page = world.find(cursor=cursor, limit=50)
        assert page.total == 8
        pages.append([result.id for result in page.results])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == [[huge], ids[:4:-1], ids[4:2:-1], ids[2:0:-1], ids[:1]]


def damage(world: ResultWorld, what: bytes) -> tuple[Path, int]:
    """Flip a bit of these bytes of a record; the file and where its line begins."""
    (path,) = world.directory.glob("seg-*.jsonl")
    data = path.read_bytes()
    at = data.index(what)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([what[0] ^ 1]))
    return path, data.rindex(b"\n", 0, at) + 1


def test_damage_met_by_a_read_is_named_and_never_an_answer(world: ResultWorld) -> None:
    ids = [world.put(n, result=body(n)).result_id for n in range(5)]
    path, offset = damage(world, b'"n":2,')
    for read in (lambda: world.get(ids[2]), lambda: world.find(limit=50)):
        with pytest.raises(StorageUnreadable) as caught:
            read()
        assert f"results/{path.name} cannot be read at byte {offset}" in caught.value.message
    assert world.get(ids[1]).id == ids[1]
    assert [result.id for result in world.find(limit=2).results] == [ids[4], ids[3]], "what is whole is still read"
    assert path.name in str(ask(world.store, CountResults(project_id=None), timeout_s=WAIT_S).problem)
    assert world.put(9).result_id, "storing goes on"


def test_a_file_that_is_gone_is_named(world: ResultWorld) -> None:
    stored = world.put(result=body(1))
    (path,) = world.directory.glob("seg-*.jsonl")
    moved = path.rename(path.with_suffix(".away"))
    with pytest.raises(StorageUnreadable, match="No such file"):
        world.get(stored.result_id)
    moved.rename(path)
    assert world.get(stored.result_id).id == stored.result_id


def test_reads_go_on_while_a_compaction_moves_what_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DocumentStore, "is_worth_compacting", lambda self: self.stats().last_seq > 0)
    monkeypatch.setattr(result_compaction, "AGAIN_AFTER_S", 0.0)
    monkeypatch.setattr(result_compaction, "PAUSE_S", 0.0)
    monkeypatch.setattr("sidecar.state.results.document_store._AT_ONCE", 7)
    world = ResultWorld(tmp_path / "results", NOTHING_KEPT)
    try:
        ids: list[str] = []
        files: set[str] = set()
        for n in range(120):
            ids.append(world.put(n, result=body(n)).result_id)
            for m in {n, n // 2, n // 3, 0}:
                assert bytes(world.get(ids[m]).result) == bytes(body(m))
            files |= {path.name for path in world.directory.glob("snap-*.jsonl")}
        assert len(files) > 3, "hardly compacted"
        assert [result.id for result in world.find(limit=500).results] == ids[::-1]
        world.stop()
        world.start()
        assert [bytes(result.result) for result in world.find(limit=500).results] == [
            bytes(body(n)) for n in range(119, -1, -1)
        ]
    finally:
        world.stop()


def test_results_are_found_by_the_time_they_were_stored_though_the_clock_went_back(tmp_path: Path) -> None:
    results = StoredResults(tmp_path / "results", memory_bytes=0)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    times = [begin + timedelta(seconds=s, microseconds=m) for s, m in ((0, 0), (5, 0), (5, 1), (2, 9), (9, 0), (5, 0))]
    for time in times:
        results.put(stored(time))
    results.commit()
    for _ in range(2):
        for since in (None, *times):
            for until in (None, *times):
                wanted = [t for t in times if (since is None or t >= since) and (until is None or t < until)]
                found, _, total = results.find(project_id="p", since=since, until=until, limit=50)
                assert ([result.stored_at for result in found], total) == (wanted[::-1], len(wanted))
        results.store.close()
        results = StoredResults(tmp_path / "results", memory_bytes=0)
    assert results.oldest(times[2], 10) == ([1, 4, 2, 6], begin)
    results.forget([1, 4])
    assert results.oldest(times[2], 10) == ([2, 6], times[1])
    assert results.count("p") == results.count(None)
    results.store.close()


def stored(at: datetime) -> StoredResult:
    return StoredResult(
        id=ResultId(""),
        project_id="p",
        issue_id="i",
        agent_id=AgentId("a"),
        agent_type="python-specialist",
        status="success",
        result=body(1),
        timestamp=at,
        stored_at=at,
    )


def test_results_are_forgotten_soon_after_their_time(tmp_path: Path) -> None:
    world = ResultWorld(tmp_path / "results", ResultOptions(retention_days=1.0 / 86_400))  # a second
    try:
        world.put()
        wait_until(lambda: world.find().total == 0, within_s=20)
    finally:
        world.stop()


# --- A whole server -----------------------------------------------------------------------------------------------


def rss_mb(served: Served) -> float:
    return psutil.Process(served.process.pid).memory_info().rss / (1 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="how freed memory comes back differs")
def test_many_large_results_take_little_memory(tmp_path: Path, project: Path) -> None:
    """Sixteen results of 9.5 MB: stored, and after a restart read in pages."""
    count = 16
    fields = {"agent_id": "agent-1", "agent_type": "python-specialist", "issue_id": "i", "project_id": "default"}
    sent = msgspec.json.encode({**fields, "result": {"status": "success", "text": "x" * 9_500_000}})
    for life in ("stores", "reads after a restart"):
        served = start_served(tmp_path / "storage", project, tmp_path / "log")
        at_rest = rss_mb(served)
        token = mint_agent_token(served.storage, {}, agent_id="agent-1", agent_type="python-specialist").text
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with httpx.Client(base_url=served.url, headers=headers, timeout=60) as agent:
            if life == "stores":
                assert {agent.post("/api/results", content=sent).status_code for _ in range(count)} == {201}
            cursor: str | None = None if life == "stores" else ""
            pages = 0
            while cursor is not None:
                answer = agent.get("/api/results", params={"limit": 500, **({"cursor": cursor} if cursor else {})})
                assert len(answer.content) < 11 << 20
                cursor, pages = msgspec.json.decode(answer.content, type=Ending).next_cursor, pages + 1
            assert pages == (0 if life == "stores" else count)
        assert rss_mb(served) - at_rest < LARGE_RESULTS_MB
        served.client.close()
        served.end()


class Ending(msgspec.Struct):
    next_cursor: str | None
