"""Storage that is removed, replaced or unlinked while it is served: nothing is answered as kept that is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.http.serve import Sidecar
from sidecar.state.errors import StorageUnavailable
from sidecar.state.journal.journal import Durability, Journal

RESULT = {
    "agent_id": "operator",
    "agent_type": "operator",
    "issue_id": "i",
    "project_id": "default",
    "result": {"status": "success"},
}


def newest(journal: Path) -> Path:
    return sorted(journal.glob("seg-*"))[-1]


def moved(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}-moved"))


def replaced(path: Path) -> None:
    """By a folder with the same files in it, or a file with the same bytes."""
    moved(path)
    old = path.with_name(f"{path.name}-moved")
    if old.is_dir():
        shutil.copytree(old, path)
    else:
        shutil.copy2(old, path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "its segment unlinked": lambda journal: newest(journal).unlink(),
    "its segment replaced": lambda journal: replaced(newest(journal)),
    "its folder removed": shutil.rmtree,
    "its folder moved away": moved,
    "its folder replaced": replaced,
    "the storage removed": lambda journal: shutil.rmtree(storage_of(journal)),
    "the storage moved away": lambda journal: moved(storage_of(journal)),
    "the storage replaced": lambda journal: replaced(storage_of(journal)),
}


def storage_of(journal: Path) -> Path:
    return next(parent for parent in journal.parents if parent.name == "storage")


@pytest.fixture(params=list(Durability))
def journal(request: Any, tmp_path: Path) -> Journal:
    journal = Journal.open(tmp_path / "storage" / "results", durability=request.param, reserve_bytes=0)
    journal.append([b'"kept"'])
    journal.commit()
    return journal


@pytest.mark.parametrize("loss", LOSSES)
def test_a_journal_takes_nothing_more_once_its_files_are_not_in_their_place(journal: Journal, loss: str) -> None:
    LOSSES[loss](journal.directory)
    journal.append([b'"lost"'])
    with pytest.raises(StorageUnavailable, match=r"results.* was (removed|replaced) while it was in use"):
        journal.commit()
    assert journal.last_seq == 1
    assert journal.missing() is not None


def test_a_full_segment_that_is_unlinked_is_missed_too(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", segment_bytes=200, reserve_bytes=0)
    while journal.stats().segments < 3:
        journal.append([b'"record"'])
        journal.commit()
    sorted((tmp_path / "j").glob("seg-*"))[0].unlink()
    journal.append([b'"lost"'])
    with pytest.raises(StorageUnavailable, match=r"seg-0000000000000001.jsonl was removed"):
        journal.commit()


def test_a_folder_that_is_put_back_is_written_to_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    (tmp_path / "j").rename(tmp_path / "elsewhere")
    journal.append([b"1"])
    with pytest.raises(StorageUnavailable):
        journal.commit()
    (tmp_path / "elsewhere").rename(tmp_path / "j")
    journal.append([b"2"])
    journal.commit()
    journal.close()
    again = Journal.open(tmp_path / "j", reserve_bytes=0)
    assert [entry.record for entry in again.entries()] == [b"2"]
    again.close()


def test_files_that_the_journal_itself_drops_are_not_missed(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", segment_bytes=200, reserve_bytes=0)
    for n in range(50):
        journal.append([b"%d" % n])
        journal.commit()
        if n % 7 == 0:
            journal.compact([b'"all"'])
        if n % 11 == 0:
            journal.drop_before(journal.last_seq)
        assert journal.missing() is None
    journal.close()


def store(sidecar: Any) -> Any:
    return sidecar.operator.post("/api/results", json=RESULT)


def publish(sidecar: Any) -> Any:
    return sidecar.operator.post("/api/events/e", json={"data": {}})


def spawn(sidecar: Any) -> Any:
    return sidecar.operator.post("/api/agents/spawn", json={"agent_type": "python-specialist", "issue_id": "i"})


WRITERS = {"results": store, "events/log": publish, "registry": spawn}


def outcome(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("loss", ["its segment unlinked", "its folder replaced"])
def test_what_cannot_be_kept_is_a_503_and_health_names_the_folder(sidecar: Any, loss: str) -> None:
    for journal, write in WRITERS.items():
        assert write(sidecar).status_code in (201, 202)
        LOSSES[loss](sidecar.storage / journal)
        assert outcome(write(sidecar)) == (503, "STR_001"), journal
        health = sidecar.client().get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert f"storage/{journal}" in health.json()["checks"]["storage"]


@pytest.mark.parametrize("loss", ["the storage removed", "the storage replaced"])
def test_a_storage_that_is_gone_keeps_nothing_and_health_says_so(sidecar: Any, loss: str) -> None:
    LOSSES[loss](sidecar.storage / "results")
    for journal, write in WRITERS.items():
        assert outcome(write(sidecar)) == (503, "STR_001"), journal
    health = sidecar.client().get("/health")
    assert health.status_code == 503
    for journal in (*WRITERS, "events/mailboxes", "audit"):
        assert f"storage/{journal}" in health.json()["checks"]["storage"]
    assert sidecar.operator.get("/api/results").status_code == 200, "what is in memory can be read"


@pytest.mark.parametrize("actor", ["event_bus", "result_store", "spawner"])
def test_an_actor_that_starts_again_begins_no_empty_journal(sidecar: Any, actor: str) -> None:
    server: Sidecar = sidecar.sidecar
    moved(sidecar.storage)
    server.server.restart_actor(actor, "a test")
    assert server.wait(timeout_s=20), "without its storage it cannot go on"
    assert "removed or replaced while it was in use" in str(server.failure)
    assert not sidecar.storage.exists()
    sidecar.storage.with_name("storage-moved").rename(sidecar.storage)
