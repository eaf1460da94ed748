"""Python specialist: writes the module of the architect's design.

With CRASH_DRILL=first-run in its environment it is killed in the middle of its first run, as by a machine short of
memory: its file is half written then, and its next incarnation has to cope.
"""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path

from sidecar.examples.agents.workbench import Design, Stopwatch, await_design, finish, log, root_of, run, write
from sidecar.http.sdk import Agent


def work(agent: Agent) -> None:
    watch = Stopwatch()
    incarnation = agent.status().incarnation
    root, design = root_of(agent), await_design(agent)
    name = design.file_of(agent.type)
    source = module_of(design)
    if os.environ.get("CRASH_DRILL") == "first-run" and incarnation == 1:
        crash_in_the_middle_of(root / name, source)
    recovered = is_half_written(root / name)
    if recovered:
        log.info("incarnation %d found %s half written, and writes it again", incarnation, name)
    write(root, name, source)
    finish(
        agent,
        "implementation_complete",
        watch=watch,
        decisions=[f"class {design.record}Store in {name}: put, get, " + ", ".join(_finders(design))],
        files_created=[name],
        metrics={"lines_of_code": source.count("\n"), "incarnation": incarnation},
        warnings=[f"an earlier run left {name} half written; it was replaced"] if recovered else [],
    )


def crash_in_the_middle_of(path: Path, source: str) -> None:
    """The drill: die as an agent does that is killed while it writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source[: source.index("def put") + len("def put")])
    log.info("crash drill: this process kills itself while it writes %s", path.name)
    os.kill(os.getpid(), signal.SIGKILL)


def is_half_written(path: Path) -> bool:
    """Whether a file is there that is no whole module."""
    if not path.exists():
        return False
    try:
        ast.parse(path.read_text())
    except SyntaxError:
        return True
    return False


def module_of(design: Design) -> str:
    """The source of the store. Every statement is a constant: what is kept comes in as a parameter only."""
    record, table, key = design.record, design.table, design.key
    kind = dict(design.columns)[key]
    names = [name for name, _ in design.columns]
    one = record.lower()
    values = ", ".join(f"{one}.{name}" for name in names) + ("," if len(names) == 1 else "")
    insert = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    put = [
        f'            self._database.execute("DELETE FROM {table} WHERE {key} = ?", ({one}.{key},))',
        f'            self._database.execute("{insert}", ({values}))',
    ]
    lists = []
    for field in design.lists:
        put += [
            "            self._database.executemany(",
            f'                "INSERT INTO {table}_{field} ({key}, place, value) VALUES (?, ?, ?)",',
            f"                [({one}.{key}, place, value) for place, value in enumerate({one}.{field})],",
            "            )",
        ]
        lists += [
            f"        {field} = self._database.execute(",
            f'            "SELECT value FROM {table}_{field} WHERE {key} = ? ORDER BY place", ({key},)',
            "        )",
        ]
    made = ", ".join(
        [f"{name}=row[{place}]" for place, name in enumerate(names)]
        + [f"{field}=tuple(value for (value,) in {field})" for field in design.lists]
    )
    finders = []
    for field in design.lists:
        finders += [
            "",
            f"    def {_finder(field)}(self, value: str) -> list[{record}]:",
            f'        """Every {one} whose {field} hold `value`, by {key}."""',
            "        rows = self._database.execute(",
            f'            "SELECT DISTINCT {key} FROM {table}_{field} WHERE value = ? ORDER BY {key}", (value,)',
            "        ).fetchall()",
            f"        return [found for ({key},) in rows if (found := self.get({key})) is not None]",
        ]
    lines = [
        f'"""{design.decision}."""',
        "",
        "from __future__ import annotations",
        "",
        "import sqlite3",
        "from pathlib import Path",
        "",
        f"from .{design.module.rpartition('.')[2]} import {record}",
        "",
        '_SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")',
        "",
        "",
        f"class {record}Store:",
        f'    """Every {one} of one database; ":memory:" keeps them as long as this object."""',
        "",
        "    def __init__(self, database: str | Path) -> None:",
        "        self._database = sqlite3.connect(database)",
        '        self._database.execute("PRAGMA foreign_keys = ON")',
        "        self._database.executescript(_SCHEMA)",
        "",
        "    def close(self) -> None:",
        "        self._database.close()",
        "",
        f"    def put(self, {one}: {record}) -> None:",
        f'        """Keep a {one}, in place of the one with the same {key}; whole or not at all."""',
        "        with self._database:",
        *put,
        "",
        f"    def get(self, {key}: {kind}) -> {record} | None:",
        f'        """The {one} of that {key}, or None."""',
        "        row = self._database.execute(",
        f'            "SELECT {", ".join(names)} FROM {table} WHERE {key} = ?", ({key},)',
        "        ).fetchone()",
        "        if row is None:",
        "            return None",
        *lists,
        f"        return {record}({made})",
        *finders,
        "",
    ]
    return "\n".join(lines)


def _finder(field: str) -> str:
    return f"with_{field.removesuffix('s')}"


def _finders(design: Design) -> list[str]:
    return [_finder(field) for field in design.lists]


if __name__ == "__main__":
    run(work)
