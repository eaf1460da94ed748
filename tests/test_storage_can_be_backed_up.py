"""A backup taken while results are stored holds what was acknowledged before it, and comes back as it was."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.actors.messages import FindResults, ListEvents
from sidecar.actors.results import compaction as result_compaction
from sidecar.actors.runtime.actor_supervisor import ActorHandle
from sidecar.actors.runtime.asking import ask
from sidecar.actors.runtime.timers import Timers
from sidecar.state.backup import back_up, restore
from sidecar.state.errors import InvalidRequest, StorageDamaged, StorageInUse, StorageTooNew
from sidecar.state.journal.fs import RealFs
from sidecar.state.journal.inspection import inspect
from sidecar.state.journal.journal import Journal
from sidecar.state.models import AgentState
from sidecar.state.results.document_store import DocumentStore
from sidecar.supervision.sole_instance import SoleInstance
from tests import result_writers
from tests.fleet import SLEEPS, Fleet, does

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WITHIN_S = 20.0
ALL = 10_000_000


class Running:
    """A bus and a store on a storage directory, as the server has them."""

    def __init__(self, storage: Path) -> None:
        self._timers = Timers()
        self._timers.start()
        self._supervisor, self.bus, self.store = result_writers.world(storage, self._timers)
        self._supervisor.start()

    def ids(self) -> set[str]:
        page = ask(self.store, FindResults(project_id=None, limit=ALL), timeout_s=WITHIN_S)
        return {result.id for result in page.results}

    def told_of(self) -> set[str]:
        page = ask(self.bus, ListEvents(project_id=None, limit=ALL), timeout_s=WITHIN_S)
        return {msgspec.json.decode(event.data)["result_id"] for event in page.events}

    def stop(self) -> None:
        self._supervisor.stop()
        self._timers.stop()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A storage directory with some journals in it, nobody's."""
    storage = tmp_path / "storage"
    for name in ("events/log", "events/mailboxes", "registry", "results"):
        journal = Journal.open(storage / name, segment_bytes=300)
        for n in range(30):
            journal.append([b'"%b %d"' % (name.encode(), n)])
        journal.commit()
        journal.compact([b'"compacted"'])
        journal.append([b'"after"'])
        journal.close()
    (storage / "secret").write_text("not for the backup")
    return storage


def contents(storage: Path) -> dict[str, list[bytes]]:
    found = {}
    for report in inspect(storage):
        journal = Journal.open(Path(report.directory))
        found[Path(report.directory).relative_to(storage).as_posix()] = [entry.record for entry in journal.entries()]
        journal.close()
    return found


def test_a_restored_backup_holds_what_was_backed_up_and_no_secret(stored: Path, tmp_path: Path) -> None:
    manifest = back_up(stored, tmp_path / "b.tar.gz", now=NOW)
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        names = archive.getnames()
    assert names == [*(file.name for file in manifest.files), "sidecar-backup.json"]
    assert not any("secret" in name or "RESERVE" in name for name in names)
    assert restore(tmp_path / "b.tar.gz", tmp_path / "restored") == manifest
    assert contents(tmp_path / "restored") == contents(stored)
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == ["LOCK", "events", "registry", "results"]


def test_nothing_is_overwritten(stored: Path, tmp_path: Path) -> None:
    back_up(stored, tmp_path / "b", now=NOW)
    with pytest.raises(InvalidRequest, match="is there already"):
        back_up(stored, tmp_path / "b", now=NOW)
    with pytest.raises(InvalidRequest, match="holds journals already"):
        restore(tmp_path / "b", stored)
    with pytest.raises(InvalidRequest, match="holds no journals"):
        back_up(tmp_path / "empty", tmp_path / "c", now=NOW)


def test_a_storage_that_a_server_holds_is_not_restored_into(stored: Path, tmp_path: Path) -> None:
    back_up(stored, tmp_path / "b", now=NOW)
    (tmp_path / "new").mkdir()
    lock = RealFs().lock(tmp_path / "new" / "LOCK")
    with pytest.raises(StorageInUse):
        restore(tmp_path / "b", tmp_path / "new")
    lock.release()
    restore(tmp_path / "b", tmp_path / "new")


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_damaged_or_shortened_backup_is_refused_and_leaves_nothing(stored: Path, tmp_path: Path, part: float) -> None:
    back_up(stored, tmp_path / "b", now=NOW)
    whole = (tmp_path / "b").read_bytes()
    place = int(len(whole) * part)
    (tmp_path / "short").write_bytes(whole[:place])
    (tmp_path / "flipped").write_bytes(whole[:place] + bytes((whole[place] ^ 16,)) + whole[place + 1 :])
    for name in ("short", "flipped"):
        with pytest.raises(StorageDamaged):
            restore(tmp_path / name, tmp_path / "restored")
        assert [path.name for path in (tmp_path / "restored").iterdir()] == ["LOCK"]


def forged(path: Path, name: str, manifest: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in ((name, b"x"), ("sidecar-backup.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name", ["../../x/seg-0000000000000001.jsonl", "/tmp/seg-0000000000000001.jsonl", "results/LOCK"]
)
def test_a_forged_backup_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageDamaged, match="belongs to no journal"):
        restore(forged(tmp_path / "b", name, b"{}"), tmp_path / "restored")


def restored(original: Path, storage: Path, **how: Any) -> Path:
    backup = original.with_name("backup.tar.gz")
    back_up(original, backup, now=NOW)
    restore(backup, storage, **how)
    return storage


def test_a_restored_storage_is_not_served_beside_the_one_it_was_made_of(tmp_path: Path) -> None:
    with Fleet(tmp_path / "storage", sleeps=does(*SLEEPS)) as original:
        agent = original.spawn("sleeps").status
        beside = Fleet(restored(original.directory, tmp_path / "restored"), sleeps=does(*SLEEPS))
        with pytest.raises(StorageInUse, match=f"a copy of one that process {os.getpid()} serves"):
            beside.open()
        beside.vanish()
        assert original.status(agent.agent_id).process_id == agent.process_id
        original.vanish()
        with beside:
            assert beside.status(agent.agent_id).process_id == agent.process_id  # it is taken over
        original.open()


def test_a_name_that_a_child_still_holds_a_copy_of_is_ours_as_soon_as_it_lets_go() -> None:
    before = SoleInstance()
    before.take("tests-of-names")
    assert before._socket is not None
    held = os.dup(before._socket.fileno())
    before.release()
    threading.Timer(0.1, os.close, (held,)).start()
    after = SoleInstance()
    after.take("tests-of-names")
    after.release()


def test_a_copy_of_its_own_leaves_the_original_its_agents(tmp_path: Path) -> None:
    profiles = {"sleeps": does(*SLEEPS), "waits": does("sh", "-c", "exit 3", backoff_initial_seconds=30)}
    with Fleet(tmp_path / "storage", options={"max_concurrent": 2}, **profiles) as original:
        runs_on, waits, queued = (original.spawn(kind).status for kind in ("sleeps", "waits", "sleeps"))
        original.wait_for_event(waits.agent_id, "agent_restarting")
        told = original.events()
        storage = restored(original.directory, tmp_path / "copy", copied_at=NOW)
        with Fleet(storage, **profiles) as copy:
            for agent in (runs_on, waits, queued):
                status = copy.status(agent.agent_id)
                assert (status.state, status.process_id, status.ended_at) == (AgentState.STOPPED, None, NOW)
            another = copy.spawn("sleeps").status
            copy.wait_for_event(another.agent_id, "agent_started")
            assert copy.events()[: len(told)] == told  # none is told again
            assert len(copy.processes()) == 1
        assert original.status(runs_on.agent_id).process_id == runs_on.process_id
        assert original.processes() == [runs_on.process_id]


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "b", "results/seg-0000000000000001.jsonl", b'{"version":2}')
    with pytest.raises(StorageTooNew):
        restore(path, tmp_path / "restored")


def test_a_backup_beside_writers_and_compaction_holds_all_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DocumentStore, "is_worth_compacting", lambda self: self.stats().last_seq > 0)
    monkeypatch.setattr(result_compaction, "AGAIN_AFTER_S", 0.02)
    running = Running(tmp_path / "storage")
    stop = threading.Event()
    acknowledged: list[str] = []

    def write(store: ActorHandle, numbers: count[int]) -> None:
        while not stop.is_set():
            acknowledged.append(result_writers.store_one(store, next(numbers)).result_id)

    numbers = count()
    threads = [threading.Thread(target=write, args=(running.store, numbers)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            while len(acknowledged) < 50 * (number + 1):
                stop.wait(0.01)
            before = set(acknowledged)
            back_up(tmp_path / "storage", tmp_path / f"b{number}", now=NOW)
            restore(tmp_path / f"b{number}", tmp_path / f"restored{number}")
            restored = Running(tmp_path / f"restored{number}")
            try:
                assert before <= restored.ids()
                for _ in range(200):
                    if restored.told_of() == restored.ids():
                        break
                    stop.wait(0.05)
                assert restored.told_of() == restored.ids(), "a result without its event, or the other way round"
            finally:
                restored.stop()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        running.stop()
