"""`sidecar context …`: what an agent would see, and the cache of it."""

from __future__ import annotations

from typing import Any

import click

from ..client.calls import segment
from ..client.client import Client
from .agent_types import class_here
from .commands import Commands
from .connection import with_client
from .options import format_option, project_option
from .shapes import ClearedAnswer, ContextParts
from .terminal import Column, Format, number, show, show_fields, show_json, show_rows, table_of, text

FILE_COLUMNS = (
    Column("FILE", "path", may_shrink=True),
    Column("LANGUAGE", "language"),
    Column("BYTES", "size", number(0), right=True),
    Column("CUT", "truncated", lambda value: "yes" if value else ""),
)
WHY_COLUMNS = (
    Column("FILE", "path", may_shrink=True),
    Column("BYTES", "size", number(0), right=True),
    Column("SCORE", "score", number(3), right=True),
    Column("WHY", "why", text),
    Column("LINES", "lines"),
)
OMITTED_COLUMNS = (
    Column("NOT SENT, OR CUT", "path", may_shrink=True),
    Column("BYTES", "size", number(0), right=True),
    Column("WHY", "reason", text),
)


@click.group(cls=Commands)
def context() -> None:
    """Show the context that an agent would get, or clear its cache.

    \b
    Example: sidecar context get issue-7 python-specialist --query "tags for links"
    """


@context.command()
@click.argument("issue_id")
@click.argument("agent_type")
@click.option(
    "--requirement",
    "requirements",
    multiple=True,
    metavar="NAME",
    help="More of a section, or its files: project_structure, git_history, previous_decisions, code_reviews, "
    "dependencies, security_policies, test_coverage_reports or documentation. "
    "May be repeated.",
)
@click.option(
    "--file", "files", multiple=True, metavar="GLOB", help="A path or glob of files to add in full; may be repeated."
)
@click.option("--query", default="", help="A description of the work; decides the order of the files.")
@click.option("--max-bytes", type=click.IntRange(min=1))
@click.option("--explain", is_flag=True, help="Show why each file was chosen, its lines, and the omitted files.")
@project_option
@format_option
@with_client
def get(
    client: Client,
    issue_id: str,
    agent_type: str,
    requirements: tuple[str, ...],
    files: tuple[str, ...],
    query: str,
    max_bytes: int | None,
    explain: bool,
    project: str | None,
    format_: Format,
) -> None:
    """Get the context of an agent of AGENT_TYPE that works on ISSUE_ID.

    \b
    Example: sidecar context get issue-7 security-auditor --format json > context.json
    """
    class_here(agent_type, what="the context")
    options = {
        "requirements": requirements or None,
        "files": files or None,
        "q": query or None,
        "max_bytes": max_bytes,
        "project_id": project,
    }
    _show(client.call("GET", _path(issue_id, agent_type), query=options, shape=ContextParts), format_, explain=explain)


@context.command()
@click.argument("issue_id")
@click.argument("agent_type")
@project_option
@format_option
@with_client
def refresh(client: Client, issue_id: str, agent_type: str, project: str | None, format_: Format) -> None:
    """Build the context again, without using the cache.

    \b
    Example: sidecar context refresh issue-7 python-specialist
    """
    query = {"refresh": True, "project_id": project}
    _show(client.call("GET", _path(issue_id, agent_type), query=query, shape=ContextParts), format_)


@context.command()
@click.argument("issue_id", required=False)
@click.option("--all", "everything", is_flag=True, help="Clear all issues (operators).")
@project_option
@format_option
@with_client
def clear(client: Client, issue_id: str | None, everything: bool, project: str | None, format_: Format) -> None:
    """Clear the cached contexts of ISSUE_ID, or of every issue.

    \b
    Example: sidecar context clear --all
    """
    if (issue_id is None) is not everything:
        raise click.UsageError("name one ISSUE_ID, or --all")
    path = "/api/cache/all" if issue_id is None else f"/api/cache/context/{segment(issue_id)}"
    answer = client.call("DELETE", path, query={"project_id": project}, shape=ClearedAnswer)
    fields = [("forgotten", str(answer["entries_removed"])), ("freed", f"{answer['bytes_freed']:,} bytes")]
    show_fields(answer, fields, format_)


def _path(issue_id: str, agent_type: str) -> str:
    return f"/api/context/{segment(issue_id)}/{segment(agent_type)}"


def _lines(file: dict[str, Any]) -> str:
    """Which lines of a file are sent."""
    parts = file.get("excerpts", ())
    return ", ".join(f"{part['start_line']}-{part['end_line']}" for part in parts) or (
        "the first" if file["truncated"] else "all"
    )


def _show(answer: dict[str, Any], format_: Format, *, explain: bool = False) -> None:
    inner = answer["context"]
    files = [{**file, "lines": _lines(file)} for file in inner.get("relevant_files", [])]
    columns = WHY_COLUMNS if explain else FILE_COLUMNS
    match format_:
        case "json":
            show_json(answer)
        case "csv":
            show_rows(answer, files, columns, format_, nothing="no files")
        case "table":
            structure, git = inner.get("project_structure", {}), inner.get("git_context", {})
            cut = answer["truncation_strategy"] if answer["truncated"] else ""
            fields = [
                ("files", f"{answer['file_count']} given, {structure.get('total_files', 0)} in the project"),
                ("bytes", f"{answer['total_size_bytes']:,}"),
                ("cut by", text(cut)),
                ("branch", text(git.get("branch"))),
                ("earlier results", str(len(inner.get("previous_agent_outputs", [])))),
                ("from the cache", "yes" if answer["cache_hit"] else "no"),
            ]
            if explain:
                query = answer.get("query", {})
                fields += [
                    ("chosen for", text(f"{query.get('text', '')} ({query.get('from', '')})")),
                    ("index", text(answer.get("index"))),
                    *(("warning", text(warning)) for warning in answer.get("warnings", ())),
                ]
            show_fields(answer, [(name, shown) for name, shown in fields if shown], format_)
            if files:
                show(table_of(files, columns))
            if explain and inner.get("omitted"):
                show(table_of(inner["omitted"], OMITTED_COLUMNS))
                show(", ".join(f"{times} {text(why)}" for why, times in inner.get("omitted_counts", {}).items()))
