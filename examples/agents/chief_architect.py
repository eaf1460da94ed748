"""Chief architect: reads the code, decides how to solve the issue and which agent writes which part."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import msgspec

from sidecar.examples.agents.workbench import Component, Design, Stopwatch, finish, log, root_of, run, write
from sidecar.http.sdk import Agent, File

_SINGLE = {"str", "int", "float", "bool"}
_SEVERAL = "tuple[str, ...]"


def work(agent: Agent) -> None:
    watch = Stopwatch()
    context = agent.context(query=agent.task)
    log.info("read %d files of %d", context.file_count, context.structure.total_files)
    design = decide(agent.issue_id, agent.task, context.files)
    record = write(root_of(agent), f"docs/decisions/{agent.issue_id}.md", _as_text(design, agent.task))
    finish(
        agent,
        "architecture_defined",
        watch=watch,
        decisions=[design.decision],
        files_created=[record],
        metrics={"files_read": context.file_count},
        next_steps=[f"{part.agent_type} writes {part.file}" for part in design.components],
        data=msgspec.to_builtins(design),
    )


def decide(issue_id: str, task: str, files: Sequence[File]) -> Design:
    """A design for keeping the record that the task names, from the fields that its class has."""
    for file in files:
        for found in ast.walk(_parsed(file)):
            if isinstance(found, ast.ClassDef) and _is_dataclass(found) and found.name.lower() in task.lower():
                return _store_for(found, file.path, issue_id)
    raise LookupError(f"no dataclass of the project is named in the task {task!r}")


def _store_for(record: ast.ClassDef, path: str, issue_id: str) -> Design:
    fields = [
        (field.target.id, ast.unparse(field.annotation))
        for field in record.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
    unknown = [name for name, kind in fields if kind not in _SINGLE and kind != _SEVERAL]
    columns = tuple((name, kind) for name, kind in fields if kind in _SINGLE)
    if unknown or not columns:
        raise LookupError(f"{record.name} in {path} has no key, or fields no table holds: {', '.join(unknown)}")
    package = path.rpartition("/")[0]
    return Design(
        issue_id=issue_id,
        decision=f"Keep {record.name} records in SQLite, one row each and one row for each value of a list",
        rationale="The standard library has it, a crash loses nothing, and an index finds what a scan would search for",
        package=package.replace("/", "."),
        record=record.name,
        module=path.removesuffix(".py").replace("/", "."),
        key=columns[0][0],
        columns=columns,
        lists=tuple(name for name, kind in fields if kind == _SEVERAL),
        components=(
            Component(agent_type="sql-specialist", file=f"{package}/schema.sql"),
            Component(agent_type="python-specialist", file=f"{package}/store.py"),
        ),
    )


def _parsed(file: File) -> ast.Module:
    if file.language != "python" or file.truncated:
        return ast.Module([], [])
    return ast.parse(file.content, file.path)


def _is_dataclass(found: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in found.decorator_list)


def _as_text(design: Design, task: str) -> str:
    fields = [f"- `{name}`: {kind}" for name, kind in design.columns]
    fields += [f"- `{name}`: several texts, in a table of their own" for name in design.lists]
    parts = [f"- `{part.file}`: {part.agent_type}" for part in design.components]
    return "\n".join(
        [
            f"# {design.decision}",
            "",
            f"Issue {design.issue_id}: {task}",
            "",
            f"**Why.** {design.rationale}.",
            "",
            f"**What is kept.** `{design.record}` of `{design.module}`, named by `{design.key}`:",
            "",
            *fields,
            "",
            "**Who writes what.**",
            "",
            *parts,
            "",
        ]
    )


if __name__ == "__main__":
    run(work)
