"""SQL specialist: writes the schema of the architect's design, and has SQLite read it before anyone else does."""

from __future__ import annotations

import sqlite3

from sidecar.examples.agents.workbench import Design, Stopwatch, await_design, finish, log, root_of, run, write
from sidecar.http.sdk import Agent

_SQL_TYPE = {"str": "TEXT", "int": "INTEGER", "float": "REAL", "bool": "INTEGER"}


def work(agent: Agent) -> None:
    watch = Stopwatch()
    design = await_design(agent)
    schema = schema_of(design)
    tables = tables_in(schema)
    log.info("SQLite %s accepts it: %s", sqlite3.sqlite_version, ", ".join(f"{t} ({', '.join(c)})" for t, c in tables))
    name = write(root_of(agent), design.file_of(agent.type), schema)
    finish(
        agent,
        "implementation_complete",
        watch=watch,
        decisions=[f"Table {table} with {', '.join(columns)}" for table, columns in tables],
        files_created=[name],
        metrics={"lines_of_code": schema.count("\n"), "tables": len(tables)},
    )


def schema_of(design: Design) -> str:
    """The design as SQL that may be run again and again."""
    table, key = design.table, design.key
    columns = [
        f"    {name} {_SQL_TYPE[kind]} {'PRIMARY KEY NOT NULL' if name == key else 'NOT NULL'}"
        for name, kind in design.columns
    ]
    key_type = _SQL_TYPE[dict(design.columns)[key]]
    text = f"-- {design.decision}.\n\nCREATE TABLE IF NOT EXISTS {table} (\n" + ",\n".join(columns) + "\n);\n"
    for field in design.lists:
        text += (
            f"\nCREATE TABLE IF NOT EXISTS {table}_{field} (\n"
            f"    {key} {key_type} NOT NULL REFERENCES {table} ({key}) ON DELETE CASCADE,\n"
            f"    place INTEGER NOT NULL,\n"
            f"    value TEXT NOT NULL,\n"
            f"    PRIMARY KEY ({key}, place)\n"
            ");\n"
            f"CREATE INDEX IF NOT EXISTS {table}_{field}_by_value ON {table}_{field} (value);\n"
        )
    return text


def tables_in(schema: str) -> list[tuple[str, list[str]]]:
    """Every table with its columns, as SQLite understood them. Raises sqlite3.Error for what it does not."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(schema)
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            (name, [column for (column,) in database.execute("SELECT name FROM pragma_table_info(?)", (name,))])
            for name in names
        ]
    finally:
        database.close()


if __name__ == "__main__":
    run(work)
