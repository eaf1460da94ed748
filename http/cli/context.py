"""`sidecar context …`: what an agent would see, and the cache of it."""

from __future__ import annotations

from typing import Any

import click

from ..client.calls import segment
from ..client.client import Client
from .connection import Commands, format_option, project_option, with_client
from .output import Column, Format, number, show, show_fields, show_json, show_rows, table_of, text

FILE_COLUMNS = (
    Column("FILE", "path", may_shrink=True),
    Column("LANGUAGE", "language"),
    Column("BYTES", "size", number(0), right=True),
    Column("CUT", "truncated", lambda value: "yes" if value else ""),
)


@click.group(cls=Commands)
def context() -> None:
    """See the context that an agent would get, or clear its cache.

    \b
    Example: sidecar context get issue-7 python-specialist --query "tags for links"
    """


@context.command()
@click.argument("issue_id")
@click.argument("agent_type")
@click.option("--requirement", "requirements", multiple=True, help="Only these sections; may be repeated.")
@click.option("--file", "files", multiple=True, metavar="GLOB", help="A path or glob to add in full; may be repeated.")
@click.option("--query", default="", help="What the work is about; it orders the files.")
@click.option("--max-bytes", type=click.IntRange(min=1))
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
    project: str | None,
    format_: Format,
) -> None:
    """The context of an agent of AGENT_TYPE that works on ISSUE_ID.

    \b
    Example: sidecar context get issue-7 security-auditor --format json > context.json
    """
    options = {
        "requirements": requirements or None,
        "files": files or None,
        "q": query or None,
        "max_bytes": max_bytes,
        "project_id": project,
    }
    _show(client.call("GET", _path(issue_id, agent_type), query=options), format_)


@context.command()
@click.argument("issue_id")
@click.argument("agent_type")
@project_option
@format_option
@with_client
def refresh(client: Client, issue_id: str, agent_type: str, project: str | None, format_: Format) -> None:
    """Build the context anew, whatever the cache holds.

    \b
    Example: sidecar context refresh issue-7 python-specialist
    """
    query = {"refresh": True, "project_id": project}
    _show(client.call("GET", _path(issue_id, agent_type), query=query), format_)


@context.command()
@click.argument("issue_id", required=False)
@click.option("--all", "everything", is_flag=True, help="Of every issue (operators).")
@project_option
@format_option
@with_client
def clear(client: Client, issue_id: str | None, everything: bool, project: str | None, format_: Format) -> None:
    """Forget cached contexts of ISSUE_ID, or of every issue.

    \b
    Example: sidecar context clear --all
    """
    if (issue_id is None) is not everything:
        raise click.UsageError("name one ISSUE_ID, or --all")
    path = "/api/cache/all" if issue_id is None else f"/api/cache/context/{segment(issue_id)}"
    answer = client.call("DELETE", path, query={"project_id": project})
    fields = [("forgotten", str(answer["entries_removed"])), ("freed", f"{answer['bytes_freed']:,} bytes")]
    show_fields(answer, fields, format_)


def _path(issue_id: str, agent_type: str) -> str:
    return f"/api/context/{segment(issue_id)}/{segment(agent_type)}"


def _show(answer: dict[str, Any], format_: Format) -> None:
    inner = answer["context"]
    files = inner.get("relevant_files", [])
    match format_:
        case "json":
            show_json(answer)
        case "csv":
            show_rows(answer, files, FILE_COLUMNS, format_, nothing="no files")
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
            show_fields(answer, [(name, shown) for name, shown in fields if shown], format_)
            if files:
                show(table_of(files, FILE_COLUMNS))
