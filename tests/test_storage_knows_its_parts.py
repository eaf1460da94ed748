"""What a storage consists of is noted: a journal, a segment or a secret that is missing or changed is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.http.access.minting import mint_operator_token
from sidecar.http.cli.main import main
from sidecar.http.config import Flags, load
from sidecar.http.serve import Sidecar, running
from sidecar.http.storage import token_key
from sidecar.state.audit_log import verify_files
from sidecar.state.clock import utc_now
from sidecar.state.errors import ConfigError, StorageDamaged, StorageInUse
from sidecar.state.journal.journal import Journal
from sidecar.state.journal.repair import repair_journal
from sidecar.state.storage_manifest import MANIFEST, read_manifest

JOURNALS = ("audit", "events/log", "events/mailboxes", "registry", "results")

Serve = Callable[..., AbstractContextManager[Sidecar]]


@pytest.fixture
def serve(tmp_path: Path, project: Path) -> Serve:
    def begin(storage: Path | None = None) -> AbstractContextManager[Sidecar]:
        flags = Flags(port=0, storage=storage or tmp_path / "storage", project_root=project)
        return running(load(flags, {}, working_dir=project))

    return begin


@pytest.fixture
def storage(serve: Serve, tmp_path: Path) -> Path:
    """Of a sidecar that has run."""
    with serve():
        pass
    return tmp_path / "storage"


def contents(storage: Path) -> dict[str, bytes]:
    return {str(path.relative_to(storage)): path.read_bytes() for path in storage.rglob("*") if path.is_file()}


def doctor(storage: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *options], env={"SIDECAR_STORAGE": str(storage), "SIDECAR_PORT": "0"})


def test_a_start_without_a_journal_names_it_and_a_repair_goes_on_without_it(storage: Path, serve: Serve) -> None:
    for removed in JOURNALS:
        shutil.rmtree(storage / removed)
        before = contents(storage)
        with pytest.raises(StorageDamaged, match=f"1 journal is missing.*{storage / removed};"), serve():
            pass
        assert contents(storage) == before, "a refused start changes nothing"
        found = doctor(storage)
        assert found.exit_code == 1
        assert f"journal {removed}" in found.stdout
        assert "the journal is lost" in doctor(storage, "--repair").stderr
        with serve():
            assert (storage / removed).is_dir()


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_journal_whose_only_segment_was_deleted_is_named(storage: Path, serve: Serve, journal: str) -> None:
    (segment,) = (storage / journal).glob("seg-*")
    segment.unlink()
    with pytest.raises(StorageDamaged, match=str(storage / journal)), serve():
        pass
    with pytest.raises(StorageDamaged, match=f"{segment} is missing"):
        Journal.open(storage / journal)
    found = doctor(storage)
    assert found.exit_code == 1
    assert segment.name in found.stdout.replace("\n", "").replace(" ", "")
    doctor(storage, "--repair")
    with serve():
        pass


def test_every_journal_that_is_missing_is_named_at_once(storage: Path, serve: Serve) -> None:
    for journal in JOURNALS:
        shutil.rmtree(storage / journal)
    with pytest.raises(StorageDamaged, match="5 journals are missing") as refused, serve():
        pass
    assert all(str(storage / journal) in refused.value.message for journal in JOURNALS)


def test_an_audit_trail_whose_only_file_was_deleted_is_not_whole(storage: Path) -> None:
    next((storage / "audit").glob("seg-*")).unlink()
    assert "is missing" in str(verify_files(storage).fault)
    verified = CliRunner().invoke(main, ["audit", "verify", "--storage", str(storage)])
    assert verified.exit_code == 1
    shutil.rmtree(storage / "audit")
    assert CliRunner().invoke(main, ["audit", "verify", "--storage", str(storage)]).exit_code != 0


def test_a_storage_of_before_there_was_a_manifest_is_served_and_gets_one(storage: Path, serve: Serve) -> None:
    for path in (*storage.rglob("NEWEST"), storage / MANIFEST):
        path.unlink()
    with serve():
        pass
    manifest = read_manifest(storage)
    assert manifest is not None
    assert manifest.journals == JOURNALS
    assert manifest.instance is not None
    assert len(list(storage.rglob("NEWEST"))) == len(JOURNALS)


def test_a_manifest_that_is_damaged_is_told_and_written_again(storage: Path, serve: Serve) -> None:
    path = storage / MANIFEST
    whole = path.read_bytes()
    for offset in range(0, len(whole), 37):
        path.write_bytes(whole[:offset] + bytes((whole[offset] ^ 1,)) + whole[offset + 1 :])
        assert "is damaged" in doctor(storage).stdout.replace("\n", " ")
    with serve():
        pass
    assert path.read_bytes() == whole


def test_a_kill_between_what_is_made_and_its_entry_leaves_a_storage_that_starts(storage: Path, serve: Serve) -> None:
    """At each of these moments the manifest names less than there is."""
    whole = (storage / MANIFEST).read_bytes()
    (storage / MANIFEST).unlink()
    with serve():
        pass
    assert (storage / MANIFEST).read_bytes() == whole
    (storage / "secret").unlink()
    token_key(storage, {})  # as a command does; killed before the next start notes the new secret
    with serve():
        pass
    (storage / f"{MANIFEST}.0a1b2c3d.tmp").write_bytes(b"half")
    with serve():
        pass


def test_a_flipped_bit_in_the_secret_is_named_or_harmless(storage: Path, serve: Serve) -> None:
    path = storage / "secret"
    whole = path.read_bytes()
    good = bytes.fromhex(whole.decode())
    for offset in range(len(whole)):
        for bit in range(0, 8, 3):
            path.write_bytes(whole[:offset] + bytes((whole[offset] ^ 1 << bit,)) + whole[offset + 1 :])
            try:
                text = path.read_text(encoding="ascii")
                is_the_same = bytes.fromhex(text.strip()) == good
            except ValueError:
                is_the_same = False
            if not is_the_same:
                with pytest.raises(ConfigError, match=f"{path} is damaged"):
                    token_key(storage, {})
    path.write_bytes(whole.replace(whole[:1], b"%x" % (int(whole[:1], 16) ^ 1), 1))
    with pytest.raises(ConfigError, match="it is not the secret that"), serve():
        pass
    with pytest.raises(ConfigError):
        mint_operator_token(storage, {})
    assert "is damaged or was replaced" in doctor(storage).stdout.replace("\n", " ")
    assert token_key(storage, {"SIDECAR_JWT_SECRET": "x" * 32}) is not None, "another one is used"
    path.unlink()
    with serve():
        pass
    assert path.read_bytes() != whole


def test_the_newest_segment_is_missed_and_a_repair_gives_no_number_twice(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", segment_bytes=400, reserve_bytes=0)
    while journal.stats().segments < 4:
        journal.append([b'"record"'])
        journal.commit()
    first = journal.last_seq
    journal.close()
    newest = sorted((tmp_path / "j").glob("seg-*"))[-1]
    newest.unlink()
    with pytest.raises(StorageDamaged, match=f"{newest} is missing"):
        Journal.open(tmp_path / "j")
    repair = repair_journal(tmp_path / "j", now=utc_now())
    assert repair.lost[-1][1] >= int(newest.name[4:20])
    journal = Journal.open(tmp_path / "j")
    assert journal.append([b"1"]) > first
    journal.close()


def test_a_damaged_note_of_the_newest_segment_costs_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    journal.append([b'"kept"'])
    journal.close()
    note = tmp_path / "j" / "NEWEST"
    whole = note.read_bytes()
    for offset in range(len(whole)):
        note.write_bytes(whole[:offset] + bytes((whole[offset] ^ 4,)) + whole[offset + 1 :])
        journal = Journal.open(tmp_path / "j", reserve_bytes=0)
        assert [entry.record for entry in journal.entries()] == [b'"kept"']
        journal.close()
        assert note.read_bytes() == whole


def test_a_storage_in_use_is_refused_untouched_also_without_its_lock_files(storage: Path, serve: Serve) -> None:
    with serve():
        for lock in storage.rglob("LOCK"):
            lock.unlink()
        before = contents(storage)
        with pytest.raises(StorageInUse, match=r"in use by process \d+"), serve():
            pass
        after = contents(storage)
        assert after.keys() == before.keys(), "no lock, and no other file, is made"
        assert all(after[name].startswith(data) for name, data in before.items()), "what is appended is the server's"
        assert "none runs" not in doctor(storage).stdout, "its holder is known without the file"
    with serve():
        pass


def test_a_copy_of_a_storage_that_is_served_is_refused_untouched(storage: Path, serve: Serve) -> None:
    copy = shutil.copytree(storage, storage.with_name("copy"))
    for manifest in (True, False):
        if not manifest:
            (copy / MANIFEST).unlink()
        before = contents(copy)
        with serve(), pytest.raises(StorageInUse, match="is a copy of one"), serve(copy):
            pass
        before["LOCK"] = contents(copy)["LOCK"]  # which says who tried last
        assert contents(copy) == before
