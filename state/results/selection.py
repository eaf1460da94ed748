"""TableSelection: the documents of a table that a query selects, found by its indexes as far as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .document_store import TableData
from .query_plan import SCAN, is_covered, plan
from .table_index import Ids, has_id

Condition = Callable[[Mapping[str, Any]], bool]

_decode = msgspec.json.decode


class TableSelection:
    """One query of one table, as it stands. cond None: every document. description: of the query, see query_plan.

    candidates: ids, ascending, or None for all of the table. test: what each must pass, or None if all of them match.
    """

    def __init__(self, cond: Condition | None, description: Any, data: TableData) -> None:
        self._data = data
        self._description = description
        self._plan = SCAN if cond is None or data.index is None else plan(self._description, data.index)
        self.candidates: Ids[int] | None = self._plan.candidates
        self.test = None if self._plan.exact else cond

    def count(self) -> int:
        """How many documents are selected."""
        if self.candidates is not None and self.test is None:
            return len(self.candidates)
        return sum(1 for _ in self.ids())

    def ids(self) -> Iterator[int]:
        """Ids of the selected documents, in the order of the table."""
        data, candidates, test = self._data, self.candidates, self.test
        ids: Iterable[int] = data.ids()
        if candidates is not None:
            ids = candidates if data.is_ascending else (i for i in data.ids() if has_id(candidates, i))
        if test is None:
            yield from ids
        elif data.index is not None and is_covered(self._description, data.index):
            for doc_id in ids:
                fields = data.index.fields_of(doc_id)
                if test(_decode(data.read(doc_id) or b"") if fields is None else fields):
                    yield doc_id
        else:
            for doc_id, document in data.read_each(ids):
                if test(_decode(document)):
                    yield doc_id

    def __str__(self) -> str:
        size = len(self._data)
        looked_at = size if self.candidates is None else len(self.candidates)
        return f"{self._plan.uses}: {0 if self._plan.exact else looked_at} of {size} documents looked at"
