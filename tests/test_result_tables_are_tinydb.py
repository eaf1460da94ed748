"""A JournalDB is a TinyDB: what stock TinyDB answers, it answers too, also from indexes and after being re-opened."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from tinydb import version as tinydb_version
from tinydb.queries import QueryInstance
from tinydb.table import Table

from sidecar.state.results.table import Document, JournalDB, JournalTable, Page, Query, where


def test_the_documented_way_of_using_tinydb_works_and_uses_an_index(tmp_path: Path) -> None:
    with JournalDB(tmp_path / "db") as db:
        results = db.table("results", indexed=("issue_id",))
        for n in range(30):
            results.insert({"issue_id": f"issue-{n % 3}", "n": n})
        found = db.table("results").search(Query().issue_id == "issue-1")
        assert [document["n"] for document in found] == list(range(1, 30, 3))
        assert results.explain(Query().issue_id == "issue-1") == "index issue_id: 0 of 30 documents looked at"
        assert results.explain(Query().n == 1).startswith("scan: 30 of 30")
        both = (Query().issue_id == "issue-1") & (Query().n > 20)
        assert results.explain(both) == "index issue_id: 10 of 30 documents looked at"
        assert results.count(both) == 3

    with JournalDB(tmp_path / "db") as db:
        assert len(db.table("results")) == 30
        assert db.tables() == {"results"}


def test_the_private_names_of_tinydb_that_we_build_on_are_there() -> None:
    assert tinydb_version.__version__.startswith("4.9.")
    for name in ("_update_table", "_read_table", "_get_next_id"):
        assert inspect.isfunction(getattr(Table, name))
    assert "_next_id" in inspect.getsource(Table.__init__)
    description = (where("a") == 1) & where("b").one_of([1, 2]) | ~(where("c") == [1])
    assert description._hash == (
        "or",
        frozenset(
            {
                ("and", frozenset({("==", ("a",), 1), ("one_of", ("b",), (1, 2))})),
                ("not", ("==", ("c",), (1,))),
            }
        ),
    )
    assert where("a").map(str)._hash is None
    # Every public writer of Table goes through _update_table, or our overlay would miss it.
    writers = ("insert_multiple", "update_multiple", "truncate")
    assert all("self._update_table(" in inspect.getsource(getattr(Table, name)) for name in writers)
    assert isinstance(where("a") == 1, QueryInstance)


def test_editing_what_was_read_does_not_change_what_is_stored(tmp_path: Path) -> None:
    with JournalDB(tmp_path / "db") as db:
        doc_id = db.insert({"files": ["a"]})
        for read in (db.get(doc_id=doc_id), db.search(where("files").exists())[0], next(iter(db))):
            read["files"].append("b")
        assert db.get(doc_id=doc_id) == {"files": ["a"]}


def test_a_failing_update_changes_nothing(tmp_path: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["n"] += 1
        if document["n"] == 3:
            raise RuntimeError("third")

    with JournalDB(tmp_path / "db") as db:
        db.insert_multiple({"n": n} for n in range(5))
        with pytest.raises(RuntimeError, match="third"):
            db.update(spoil)
        with pytest.raises(TypeError):
            db.update({"n": object()})
        assert [document["n"] for document in db] == [0, 1, 2, 3, 4]
    with JournalDB(tmp_path / "db") as db:
        assert [document["n"] for document in db] == [0, 1, 2, 3, 4]


def test_ids_are_never_used_twice_not_even_across_restarts(tmp_path: Path) -> None:
    with JournalDB(tmp_path / "db") as db:
        assert db.insert_multiple([{}, {}, {}]) == [1, 2, 3]
        db.remove(doc_ids=[3])
    with JournalDB(tmp_path / "db") as db:
        assert db.insert({}) == 4
        db.truncate()
        assert db.insert({}) == 5
        db.remove(doc_ids=[5])
        compaction, records = db.storage.store.begin_compaction()
        compaction.write(records)
        db.storage.store.finish_compaction(compaction)
    with JournalDB(tmp_path / "db") as db:
        assert len(db) == 0
        assert db.insert({}) == 6


def test_dropped_tables_stay_dropped(tmp_path: Path) -> None:
    with JournalDB(tmp_path / "db") as db:
        for name in ("a", "b", 'c"]'):
            db.table(name).insert({"in": name})
        db.drop_table("a")
        assert db.tables() == {"b", 'c"]'}
    with JournalDB(tmp_path / "db") as db:
        assert db.tables() == {"b", 'c"]'}
        assert db.table('c"]').all() == [{"in": 'c"]'}]
        db.drop_tables()
    with JournalDB(tmp_path / "db") as db:
        assert db.tables() == set()


def test_pages_are_newest_first_and_know_the_total(tmp_path: Path) -> None:
    with JournalDB(tmp_path / "db") as db:
        table = db.table("results", indexed=("issue_id",), columns=("n",))
        assert isinstance(table, JournalTable)
        table.insert_multiple({"issue_id": f"issue-{n % 2}", "n": n} for n in range(20))
        for cond, ids in (
            (None, range(1, 21)),
            (where("issue_id") == "issue-0", range(1, 21, 2)),
            ((where("issue_id") == "issue-0") & (where("n") >= 10), range(11, 21, 2)),
        ):
            newest = list(ids)[::-1]
            first = table.page(cond, limit=3)
            assert first == Page(newest[:3], len(newest), True)
            assert table.page(cond, limit=3, before=first.ids[-1]) == Page(newest[3:6], len(newest), len(newest) > 6)
        assert table.page(where("issue_id") == "none", limit=3) == Page([], 0, False)


def test_documents_with_ids_of_their_own_keep_their_order(tmp_path: Path) -> None:
    with JournalDB(tmp_path / "db") as db:
        table = db.table("t", indexed=("k",))
        table.insert(Document({"k": 1}, doc_id=9))
        table.insert(Document({"k": 1}, doc_id=4))
        assert [document.doc_id for document in table.search(where("k") == 1)] == [9, 4]
        assert table.page(where("k") == 1, limit=5).ids == [9, 4]
        assert table.insert({"k": 1}) == 10
