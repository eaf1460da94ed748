"""`sidecar audit …`: who did what, and whether anybody has tampered with the record of it."""

from __future__ import annotations

from pathlib import Path

import click

from ...state.audit import ChainHead
from ...state.audit_log import verify_files
from ..client.client import Client
from .commands import REFUSED, Commands
from .connection import require_project, with_client
from .here import storage_of
from .options import format_option, project_option, storage_option
from .shapes import AuditAnswer
from .stderr import tell
from .terminal import Column, Format, clock, number, show_rows, state, text

AUDIT_COLUMNS = (
    Column("SEQ", "seq", number(0), right=True),
    Column("TIME", "at", clock),
    Column("BY", "by"),
    Column("ACT", "act"),
    Column("SUBJECT", "subject", may_shrink=True),
    Column("OUTCOME", "outcome", state),
    Column("DETAILS", "details", text, may_shrink=True),
)


@click.group(cls=Commands)
def audit() -> None:
    """See who did what, and verify that the trail is complete.

    \b
    Example: sidecar audit list --act denied
    """


@audit.command("list")
@click.option("--act", help="Only these acts, such as spawn_agent, stop_agent, token_minted, denied.")
@click.option("--by", metavar="AGENT_ID", help="Only acts of this token's holder.")
@click.option("--subject", metavar="ID", help="Only acts on this agent, actor or path.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@project_option
@format_option
@with_client
def list_records(
    client: Client,
    act: str | None,
    by: str | None,
    subject: str | None,
    limit: int,
    project: str | None,
    format_: Format,
) -> None:
    """List the recorded acts, newest first.

    \b
    Example: sidecar audit list --subject python-specialist-3f2a --format json
    """
    asked = {"act": act, "by": by, "subject": subject, "limit": limit, "project_id": project}
    answer = client.call("GET", "/api/audit", query=asked, shape=AuditAnswer)
    if not answer["records"]:
        require_project(client, project)
    show_rows(answer, answer["records"], AUDIT_COLUMNS, format_, nothing="nothing is on record")


def _head(_: click.Context, __: click.Parameter, value: str | None) -> ChainHead | None:
    if value is None:
        return None
    seq, digest = value.split(":", 1) if ":" in value else (value, "")
    if not seq.isdigit() or len(digest) != len(ChainHead().digest):
        raise click.BadParameter("expected SEQ:DIGEST, as an earlier `sidecar audit verify` printed it")
    return ChainHead(int(seq), digest.lower())


@audit.command()
@storage_option
@click.option(
    "--noted", metavar="SEQ:DIGEST", callback=_head, help="A head printed earlier, which the trail must contain."
)
def verify(storage: Path | None, noted: ChainHead | None) -> None:
    """Verify the whole trail on disk.

    Works with and without a running server. Prints the head, SEQ:DIGEST. Keep it in a safe place: with --noted, it
    later shows that nothing before it was cut off or rewritten. If someone changed the trail, the exit code is 1 and
    the error says where.

    \b
    Example: sidecar audit verify --noted 1520:9f86d081884c7d65…
    """
    verdict = verify_files(storage_of(storage), noted=noted)
    click.echo(f"{verdict.head.seq}:{verdict.head.digest}")
    if verdict.fault is not None:
        tell(f"Error: the audit trail is not whole: {verdict.fault}")
        raise SystemExit(REFUSED)
