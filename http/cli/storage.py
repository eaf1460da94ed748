"""`sidecar doctor|backup|restore`: whether all is well, and a way back for when it was not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from ...state.backup import back_up
from ...state.backup import restore as put_back
from ...state.clock import utc_now
from ...state.errors import ConfigError
from ...state.journal.repair import repair_journal
from ...state.progress import Progress, ignore
from ...state.storage_manifest import StorageManifest, go_on_without, read_manifest, require_journals
from ..config import Config, Flags, load
from .commands import REFUSED
from .doctor import Finding, damaged, examine
from .here import holder_of_lock, project_root_above, storage_of, working_dir
from .options import format_option_for, storage_option
from .stderr import tell
from .terminal import Column, Format, console, plural, show_rows

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}

FINDING_COLUMNS = (
    Column("CHECK", "check"),
    Column("", "verdict", lambda value: f"[{_STYLES[value]}]{value}[/]"),
    Column("FOUND", "found", may_shrink=True, wraps=True),
    Column("WHAT TO DO", "advice", may_shrink=True, wraps=True),
)


@click.command()
@storage_option
@click.option("--repair", is_flag=True, help="Remove damaged records from the storage, and keep a copy of it.")
@format_option_for("all findings")
def doctor(storage: Path | None, repair: bool, format_: Format) -> None:
    """Find problems that may keep the sidecar from working.

    Checks every record of the storage, the configuration, the port, the projects, git and the agents' commands, and
    says what to do. Changes nothing, except with --repair. Exit code 1 if something is wrong.

    \b
    Example: sidecar doctor --format json | jq '.findings[] | select(.verdict != "ok")'
    """
    try:
        config = load(Flags(storage=storage), os.environ, working_dir=project_root_above(working_dir()))
    except ConfigError as error:
        findings = [Finding(check="configuration", verdict="wrong", found=error.message, advice="correct the setting")]
    else:
        if repair:
            _repair(config)
        with _bar("reading every record") as progress:
            holder = holder_of_lock(config.storage) if os.access(config.storage, os.X_OK) else None
            findings = list(examine(config, holder=holder, progress=progress))
    rows = [msgspec.to_builtins(finding) for finding in findings]
    show_rows({"findings": rows}, rows, FINDING_COLUMNS, format_, nothing="nothing to look at")
    if any(finding.verdict == "wrong" for finding in findings):
        raise SystemExit(REFUSED)


def _repair(config: Config) -> None:
    for report in damaged(config.storage):
        repaired = repair_journal(Path(report.directory), now=utc_now())
        lost = ", ".join(f"{first} to {last}" for first, last in repaired.lost) or "none with a number"
        tell(f"{report.directory}: {plural(repaired.kept, 'record')} kept; lost: {lost}; as it was: {repaired.copy}")
    for name in go_on_without(config.storage):
        tell(f"{config.storage / name}: the journal is lost; the next start begins an empty one")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@storage_option
def backup(file: Path, storage: Path | None) -> None:
    """Copy the storage into a new FILE, also while the server runs.

    Includes events, results, agents, mailboxes and the audit trail, but not the signing secret or the logs of agents.
    Exit code 1 if the storage is damaged, so that the copy could not be restored.

    \b
    Example: sidecar backup /backups/shop-$(date +%F).tar.gz
    """
    source = storage_of(storage)
    require_journals(source, read_manifest(source) or StorageManifest())
    with _bar("copying") as progress:
        manifest = back_up(source, file.absolute(), now=utc_now(), progress=progress)
    size = sum(copied.size for copied in manifest.files)
    click.echo(f"{file}: {plural(len(manifest.files), 'file')}, {size:,} bytes, {file.stat().st_size:,} packed")
    with _bar("checking") as progress:
        reports = damaged(source, progress)
    for report in reports:
        advice = "mend it with `sidecar doctor --repair`, and take another backup"
        tell(f"Error: this backup cannot be restored: {report.problem}; {advice}")
    if reports:
        raise SystemExit(REFUSED)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--copy", is_flag=True, help="Give the storage its own name, so that it can be served next to the original."
)
@storage_option
def restore(file: Path, copy: bool, storage: Path | None) -> None:
    """Restore the backup FILE into an empty or new storage.

    Checks everything before it puts anything in place. No server may be running there. The next server takes over, or
    starts again, the agents that ran when the backup was made; in a copy they are stopped, and those of the original
    keep running.

    \b
    Example: sidecar restore /backups/shop-2026-01-31.tar.gz --storage /srv/sidecar/shop
    """
    target = storage_of(storage)
    with _bar("copying and checking") as progress:
        manifest = put_back(file.absolute(), target, copied_at=utc_now() if copy else None, progress=progress)
    size = sum(copied.size for copied in manifest.files)
    files, at = plural(len(manifest.files), "file"), f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    click.echo(f"{target}: {files}, {size:,} bytes, as of {at}")


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    """A bar on standard error while it goes on, gone afterwards; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield ignore
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), DownloadColumn())
    with ProgressBar(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
