"""Whatever is done to a table, stock TinyDB is the model: the same documents, in the same order, for any query.

Two differences are meant: ids are never used twice here, and text that is no JSON is refused. Ids of the model are
therefore translated; ours come back from re-opening and from compaction unchanged.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tinydb import Query, TinyDB, where
from tinydb.operations import delete, increment
from tinydb.queries import QueryInstance
from tinydb.storages import Storage

from sidecar.state.journal.journal import Durability, Journal
from sidecar.state.results.table import Document, JournalDB, JournalTable

FIELDS = ("kind", "owner", "n", "tags", "deep")
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["a", "b", "ü", 'q"]'])
    | st.sampled_from([0.5, 1.0])
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from("xy"), scalars, max_size=2)
documents = st.dictionaries(st.sampled_from(FIELDS), values, max_size=4)


class TextStorage(Storage):
    """TinyDB's JSONStorage without the file."""

    text = ""

    def read(self) -> Any:
        return json.loads(self.text) if self.text else None

    def write(self, data: Any) -> None:
        self.text = json.dumps(data)


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1


@st.composite
def leaves(draw: st.DrawFn) -> QueryInstance:
    path = where(draw(st.sampled_from(FIELDS)))
    value = draw(values)
    makers: list[Callable[[], QueryInstance]] = [
        lambda: path == value,
        lambda: path != value,
        lambda: path.one_of(draw(st.lists(scalars, max_size=3))),
        lambda: path.exists(),
        lambda: path.any(draw(st.lists(scalars, max_size=2))),
        lambda: path.test(_is_short),
        lambda: path.map(str) == str(value),
        lambda: path["x"] == value,
        lambda: Query().fragment({"kind": value}),
        lambda: path.noop(),
    ]
    return draw(st.sampled_from(makers))()


queries = st.recursive(
    leaves(),
    lambda parts: st.one_of(
        st.builds(lambda a, b: a & b, parts, parts),
        st.builds(lambda a, b: a | b, parts, parts),
        st.builds(lambda a: ~a, parts),
    ),
    max_leaves=4,
)
changes = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=2),
    st.sampled_from(["delete", "increment", "grow"]),
)


def outcome(do: Callable[[], Any]) -> Any:
    """What it returns, or the kind of error it raises: both must agree on either."""
    try:
        return do()
    except (TypeError, KeyError, ValueError) as error:
        return type(error)


class TwoTables(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.directory = Path(self.scratch.name) / "db"
        self.model = TinyDB(storage=TextStorage).table("t", cache_size=0)
        self.ours_of: dict[int, int] = {}  # the model's id -> ours

    @initialize(indexed=st.sets(st.sampled_from(FIELDS)), columns=st.sets(st.sampled_from(FIELDS)))
    def begin(self, indexed: set[str], columns: set[str]) -> None:
        self.fields = {"indexed": tuple(indexed), "columns": tuple(columns)}
        self.open()

    def open(self) -> None:
        self.db = JournalDB(Journal.open(self.directory, durability=Durability.OS, reserve_bytes=0))
        self.table: JournalTable = self.db.table("t", **self.fields)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
        self.scratch.cleanup()

    def translated(self, ids: Any) -> Any:
        return [self.ours_of[doc_id] for doc_id in ids] if isinstance(ids, list) else ids

    @rule(document=documents)
    def insert(self, document: dict[str, Any]) -> None:
        self.ours_of[self.model.insert(document)] = self.table.insert(document)

    @rule(many=st.lists(documents, max_size=4))
    def insert_multiple(self, many: list[dict[str, Any]]) -> None:
        theirs = self.model.insert_multiple(many)
        self.ours_of.update(zip(theirs, self.table.insert_multiple(many), strict=True))

    @rule(change=changes, query=st.none() | queries)
    def update(self, change: Any, query: QueryInstance | None) -> None:
        match change:
            case "delete":
                fields: Any = delete("kind")
            case "increment":
                fields = increment("n")
            case "grow":
                fields = _grow
            case _:
                fields = change
        theirs = outcome(lambda: self.translated(self.model.update(fields, query)))
        assert outcome(lambda: self.table.update(fields, query)) == theirs

    @rule(query=queries)
    def remove(self, query: QueryInstance) -> None:
        assert self.table.remove(query) == self.translated(self.model.remove(query))

    @rule(document=documents, query=queries)
    def upsert(self, document: dict[str, Any], query: QueryInstance) -> None:
        known = len(self.model)
        theirs = self.model.upsert(document, query)
        ours = self.table.upsert(document, query)
        if len(self.model) > known:
            self.ours_of[theirs[0]] = ours[0]
        assert ours == self.translated(theirs)

    @rule(
        updates=st.lists(st.tuples(st.dictionaries(st.sampled_from(FIELDS), values, max_size=2), queries), max_size=3)
    )
    def update_multiple(self, updates: list[tuple[dict[str, Any], QueryInstance]]) -> None:
        theirs = self.model.update_multiple(updates)
        assert self.table.update_multiple(updates) == self.translated(theirs)

    @rule()
    def truncate(self) -> None:
        self.model.truncate()
        self.table.truncate()

    @rule(query=queries)
    def search(self, query: QueryInstance) -> None:
        theirs = self.model.search(query)
        ours = self.table.search(query)
        assert ours == theirs
        assert [document.doc_id for document in ours] == self.translated([document.doc_id for document in theirs])
        assert self.table.count(query) == len(theirs)
        assert self.table.get(query) == self.model.get(query)
        assert self.table.contains(query) == self.model.contains(query)
        page = self.table.page(query, limit=2)
        assert (page.ids, page.total) == ([d.doc_id for d in ours][::-1][:2], len(theirs))
        for document in ours:
            _grow(document)  # what was read is the reader's

    @rule(doc_id=st.integers(1, 12))
    def get(self, doc_id: int) -> None:
        ours = self.ours_of.get(doc_id)
        if ours is not None:
            assert self.table.get(doc_id=ours) == self.model.get(doc_id=doc_id)
            assert self.table.get(doc_ids=[ours, 10_000]) == self.model.get(doc_ids=[doc_id, 10_000])

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.open()

    @rule()
    def compact(self) -> None:
        store = self.db.storage.store
        if store.stats().last_seq:
            compaction, records = store.begin_compaction()
            compaction.write(records)
            store.finish_compaction(compaction)

    @invariant()
    def hold_the_same(self) -> None:
        if hasattr(self, "db"):
            assert list(self.table) == list(self.model)
            assert len(self.table) == len(self.model)


def _grow(document: Any) -> None:
    document.setdefault("tags", [])
    if isinstance(document["tags"], list):
        document["tags"].append("more")


def check(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        TwoTables,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )


def test_a_table_answers_as_stock_tinydb_does() -> None:
    check(25, 25)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_table_answers_as_stock_tinydb_does_for_long() -> None:
    check(1_000, 60)


def test_documents_inserted_with_their_ids_are_where_tinydb_has_them(tmp_path: Path) -> None:
    model = TinyDB(storage=TextStorage)
    with JournalDB(tmp_path / "db") as db:
        for table in (model, db):
            table.insert_multiple([Document({"n": 7}, doc_id=7), Document({"n": 3}, doc_id=3)])
            table.upsert(Document({"m": 1}, doc_id=3))
            table.upsert(Document({"m": 2}, doc_id=5))
            with pytest.raises(ValueError, match="already exists"):
                table.insert(Document({}, doc_id=7))
        assert [(d.doc_id, d) for d in db] == [(d.doc_id, d) for d in model]
        assert db.get(doc_ids=[3, 7]) == model.get(doc_ids=[3, 7])
