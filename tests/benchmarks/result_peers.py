"""What results could be stored in instead, behind the same actor: sqlite, TinyDB as it comes, a file for each."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import msgspec
from tinydb import TinyDB

from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import Later, Request
from sidecar.actors.runtime.owner import Owner
from sidecar.state.models import AgentId, ResultId, StoredResult
from sidecar.state.results.stored_results import StoredResults

GROUP = 256
COLUMNS = ("project_id", "issue_id", "agent_id", "agent_type", "status")
BODY = msgspec.json.encode(
    {
        "status": "success",
        "files_created": [
            {
                "path": f"src/module_{n}/handler.py",
                "size": 4096 + n,
                "language": "python",
                "checksum": "sha256:" + "ab" * 32,
            }
            for n in range(5)
        ],
        "decisions": ["Implemented REST API with FastAPI", "Used Pydantic models for validation"] * 3,
        "metrics": {"execution_time_ms": 4500, "tokens_used": 15000, "test_coverage": 92.3, "lines_of_code": 250},
        "next_steps": ["Security audit required", "Load testing recommended"],
    }
)


def result(n: int) -> StoredResult:
    """A result of 1.4 KB: ten to an issue, a hundred issues to a project and agent type."""
    now = datetime.now(UTC)
    return StoredResult(
        id=ResultId(""),
        project_id=f"project-{n % 10}",
        issue_id=f"issue-{n // 10}",
        agent_id=AgentId(f"agent-{n % 100}"),
        agent_type=f"type-{n % 7}",
        status="success",
        result=msgspec.Raw(BODY),
        timestamp=now,
        stored_at=now,
    )


class Backend(Protocol):
    """What a peer can do. put: visible; durable after commit."""

    def put(self, stored: StoredResult) -> None: ...
    def commit(self) -> None: ...
    def by_issue(self, issue_id: str) -> int: ...
    def newest(self, limit: int) -> int: ...
    def close(self) -> None: ...


class Sidecar:
    def __init__(self, directory: Path) -> None:
        self.results = StoredResults(directory / "sidecar")

    def put(self, stored: StoredResult) -> None:
        self.results.put(stored)

    def commit(self) -> None:
        self.results.commit()

    def by_issue(self, issue_id: str) -> int:
        return len(self.results.find(issue_id=issue_id, limit=50)[0])

    def newest(self, limit: int) -> int:
        return len(self.results.find(limit=limit)[0])

    def close(self) -> None:
        self.results.store.close()


class Sqlite:
    """WAL, synchronous=FULL, the same fields indexed; committed by its caller, or after each insert."""

    def __init__(self, directory: Path, *, each: bool = False) -> None:
        self._db = sqlite3.connect(directory / f"sqlite{each}.db", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        fields = ", ".join(f"{name} TEXT" for name in COLUMNS)
        self._db.execute(f"CREATE TABLE IF NOT EXISTS results (id INTEGER PRIMARY KEY, {fields}, document BLOB)")
        for name in COLUMNS:
            self._db.execute(f"CREATE INDEX IF NOT EXISTS by_{name} ON results ({name})")
        self._each = each
        self._open = False

    def put(self, stored: StoredResult) -> None:
        if not self._open and not self._each:
            self._db.execute("BEGIN")
            self._open = True
        values = [getattr(stored, name) for name in COLUMNS]
        self._db.execute(
            "INSERT INTO results (project_id, issue_id, agent_id, agent_type, status, document) VALUES (?,?,?,?,?,?)",
            (*values, msgspec.json.encode(stored)),
        )

    def commit(self) -> None:
        if self._open:
            self._db.execute("COMMIT")
            self._open = False

    def by_issue(self, issue_id: str) -> int:
        return self._read("WHERE issue_id = ? ORDER BY id DESC LIMIT 50", issue_id)

    def newest(self, limit: int) -> int:
        return self._read("ORDER BY id DESC LIMIT ?", limit)

    def _read(self, clause: str, value: Any) -> int:
        rows = self._db.execute(f"SELECT document FROM results {clause}", (value,)).fetchall()
        return len([msgspec.json.decode(row[0], type=StoredResult) for row in rows])

    def close(self) -> None:
        self._db.close()


def load(backend: Any, results: Iterable[StoredResult]) -> None:
    if isinstance(backend, StockTinyDB):
        backend.load(results)
        return
    for n, stored in enumerate(results):
        backend.put(stored)
        if n % GROUP == GROUP - 1:
            backend.commit()
    backend.commit()


class StockTinyDB:
    def __init__(self, directory: Path) -> None:
        self._db = TinyDB(directory / "tinydb.json")

    def put(self, stored: StoredResult) -> None:
        self._db.insert(msgspec.json.decode(msgspec.json.encode(stored)))

    def load(self, results: Iterable[StoredResult]) -> None:
        """All at once: one by one would take minutes."""
        self._db.insert_multiple(msgspec.json.decode(msgspec.json.encode(stored)) for stored in results)

    def commit(self) -> None:
        """Its insert has flushed and synced the file."""

    def close(self) -> None:
        self._db.close()


class FilePerResult:
    """Written beside, synced, renamed, and the directory synced: what a careful program without a database does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "files"
        self._directory.mkdir(exist_ok=True)
        self._numbers = count(sum(1 for _ in self._directory.iterdir()))
        self._descriptor = os.open(self._directory, os.O_RDONLY)

    def put(self, stored: StoredResult) -> None:
        path = self._directory / f"{next(self._numbers):08d}.json"
        with path.with_suffix(".tmp").open("wb") as file:
            file.write(msgspec.json.encode(stored))
            file.flush()
            os.fdatasync(file.fileno())
        path.with_suffix(".tmp").rename(path)

    def commit(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class Put(Request[None], frozen=True):
    stored: StoredResult


class Grouping(Owner):
    """The result store's way of committing, over any backend: when nobody waits behind, or 256 do."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self._backend = backend
        self._waiting: list[Later[None]] = []

    def handle(self, message: Put) -> Later[None]:
        self._backend.put(message.stored)
        later: Later[None] = self.later()
        self._waiting.append(later)
        if self.mailbox_depth() == 0 or len(self._waiting) >= GROUP:
            self._backend.commit()
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.answer(None)
        return later


@dataclass
class Peer:
    name: str
    backend: Any
    store: ActorHandle


@contextmanager
def peers(directory: Path, backends: dict[str, Callable[[Path], Any]], preload: int) -> Iterator[list[Peer]]:
    """Each peer with `preload` results in it, behind an actor of its own."""
    supervisor = ActorSupervisor(gave_up=lambda name, reason: None)
    made: list[Peer] = []
    for name, make in backends.items():
        backend = make(directory)
        load(backend, map(result, range(preload)))
        made.append(Peer(name, backend, supervisor.handle(name, partial(Grouping, backend))))
    supervisor.start()
    try:
        yield made
    finally:
        supervisor.stop()
        for peer in made:
            peer.backend.close()


BACKENDS: dict[str, Callable[[Path], Any]] = {
    "sidecar": Sidecar,
    "sqlite FULL, grouped": Sqlite,
    "sqlite FULL, commit each": lambda directory: Sqlite(directory, each=True),
    "file per result": FilePerResult,
}
