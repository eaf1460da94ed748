"""Finds problems of a sidecar here: configuration, storage, port, projects, git, commands, the machine.

Each check looks and says what it found and what to do; none changes anything.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from ...actors.context.git.git import GitUnavailable, find_program
from ...actors.context.git.place import find_git
from ...actors.context.git.repository import Repository, Shadows
from ...actors.context.project import SHOWN_COMMITS
from ...state.errors import ConfigError, SidecarError
from ...state.journal.fs import is_private
from ...state.journal.inspection import JournalReport, inspect, journals_in
from ...state.progress import Progress, ignore
from ...state.storage_manifest import (
    ADVICE,
    MANIFEST,
    StorageManifest,
    is_damaged,
    missing_journals,
    read_manifest,
)
from ...supervision.process_identity import HAS_PIDFD
from ...supervision.profile import Profile
from ..address import url_of
from ..client.client import Client
from ..client.errors import NoServer, UnexpectedAnswer
from ..client.retry import ONE_ATTEMPT
from ..client.vouching import SidecarCheck
from ..config import Config
from ..references import check_references
from ..storage import SECRET_FILE, SECRET_VARIABLE, announced_url, token_key
from .terminal import plural

Verdict = Literal["ok", "warning", "wrong"]

LITTLE_DISK_BYTES = 500_000_000
HEALTH_WITHIN_S = 2.0  # a program that listens and says nothing is none of ours
FEW_FILES = 1024  # a waiting client, an agent's log and a journal's segment are a descriptor each


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. advice: what to do, where it is not as it should be."""

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None


def examine(config: Config, *, holder: int | None, progress: Progress = ignore) -> Iterator[Finding]:
    """Every check for this configuration. holder: the process that serves the storage, or None. progress: told how
    much of the storage is read."""
    source = config.source or "none: the defaults hold"
    yield Finding(check="configuration", verdict="ok", found=str(source))
    yield from _machine()
    yield from _storage(config, progress)
    yield from _server(config, holder)
    yield from _projects(config)
    yield from _references(config)
    yield from _commands(config)


def damaged(storage: Path, progress: Progress = ignore) -> tuple[JournalReport, ...]:
    """The journals that only a repair, or a backup, brings back. progress: told how much of the storage is read."""
    return tuple(report for report in inspect(storage, progress=progress) if report.health == "damaged")


def _machine() -> Iterator[Finding]:
    yield Finding(
        check="python", verdict="ok", found=f"{platform.python_version()} on {platform.system()} {platform.release()}"
    )
    if not HAS_PIDFD:
        yield Finding(
            check="kernel",
            verdict="warning",
            found="it has no pidfd: the end of an agent is noticed with a delay",
            advice="Linux 5.3 or newer notices it at once",
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft <= FEW_FILES:
        yield Finding(
            check="open files",
            verdict="warning",
            found=f"at most {soft}: fewer clients can wait at once",
            advice="raise it before the start: ulimit -n 65536",
        )
    git = shutil.which("git")
    yield (
        Finding(check="git", verdict="ok", found=git)
        if git is not None
        else Finding(
            check="git", verdict="warning", found="there is none: contexts have no history", advice="install git"
        )
    )


def _storage(config: Config, progress: Progress) -> Iterator[Finding]:
    storage = config.storage
    roots = config.projects.configured.values() or (config.projects.default,)
    if around := next((root for root in roots if storage.is_relative_to(os.path.realpath(root))), None):
        yield Finding(
            check="storage",
            verdict="warning",
            found=f"{storage} lies in the project {around}: it is left out of contexts, but anyone who can read the "
            "project's files can mint tokens",
            advice="name another with --storage, or leave it out: the default lies outside",
        )
    if not storage.exists():
        yield Finding(check="storage", verdict="ok", found=f"{storage} will be made at the first start")
        return
    if not os.access(storage, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            check="storage",
            verdict="wrong",
            found=f"{storage} cannot be written by this user",
            advice="run as its owner, or name another with --storage",
        )
        return
    yield from _modes(storage)
    free = shutil.disk_usage(storage).free
    yield Finding(
        check="disk",
        verdict="ok" if free >= LITTLE_DISK_BYTES else "warning",
        found=f"{free / 1e6:,.0f} MB free under {storage}",
        advice=None if free >= LITTLE_DISK_BYTES else "make room: nothing can be stored on a full disk",
    )
    yield from _secret(config)
    yield from _missing(storage)
    for report in inspect(storage, progress=progress):
        yield _journal(report, storage)


def _missing(storage: Path) -> Iterator[Finding]:
    """Missing journals that only the manifest still names. A journal that has kept its folder reports itself."""
    if is_damaged(storage):
        yield Finding(
            check="manifest",
            verdict="warning",
            found=f"{storage / MANIFEST} is damaged: a removed journal or secret would not be noticed",
            advice="nothing: the next start writes it again",
        )
        return
    known = set(journals_in(storage))
    for name in missing_journals(storage, read_manifest(storage) or StorageManifest()):
        if storage / name not in known:
            yield Finding(
                check=f"journal {name}",
                verdict="wrong",
                found=f"{storage / name} is missing: it was there when the sidecar last started",
                advice=ADVICE,
            )


def _modes(storage: Path) -> Iterator[Finding]:
    if is_private(storage):
        yield Finding(check="storage", verdict="ok", found=str(storage))
        return
    yield Finding(
        check="storage",
        verdict="wrong",
        found=f"{storage} is open to other users, and anyone who can read it can mint tokens",
        advice=f"chmod -R go= {storage}",
    )


def _secret(config: Config) -> Iterator[Finding]:
    if SECRET_VARIABLE not in config.environ and not (config.storage / SECRET_FILE).exists():
        yield Finding(check="secret", verdict="ok", found="none yet: it is made at the first start")
        return
    try:
        token_key(config.storage, config.environ)
    except SidecarError as error:
        yield Finding(
            check="secret",
            verdict="wrong",
            found=error.message,
            advice="remove it: the next start makes a new one, and older tokens are refused",
        )
    else:
        where = SECRET_VARIABLE if SECRET_VARIABLE in config.environ else "the storage's"
        yield Finding(check="secret", verdict="ok", found=where)


def _journal(report: JournalReport, storage: Path) -> Finding:
    name = Path(report.directory).relative_to(storage).as_posix()
    held = f", written by process {report.in_use_by}" if report.in_use_by is not None else ""
    kept = f", {plural(len(report.quarantined), '.bad file')} kept" if report.quarantined else ""
    whole = f"{plural(report.records, 'record')}, {report.size_bytes / 1e6:,.1f} MB{held}{kept}"
    if report.health == "sound" and report.open_to_others:
        return Finding(
            check=f"journal {name}",
            verdict="warning",
            found=f"{whole}, open to other users: {', '.join(report.open_to_others)}",
            advice=f"chmod -R go= {report.directory}",
        )
    verdicts: dict[str, Verdict] = {"sound": "ok", "torn": "warning"}
    return Finding(
        check=f"journal {name}",
        verdict=verdicts.get(report.health, "wrong"),
        found=whole if report.problem is None else f"{report.problem} ({whole})",
        advice=report.advice,
    )


def _server(config: Config, holder: int | None) -> Iterator[Finding]:
    if holder is not None:
        yield _running(config, holder)
        return
    url = url_of(config.host, config.port)
    answering = _who_answers(url) if config.port else None
    if answering is not None:
        other = "another sidecar" if answering == "sidecar" else "another program"
        yield Finding(
            check="server",
            verdict="wrong",
            found=f"{other} listens on {url}",
            advice="stop it, or choose another port: [server] port, SIDECAR_PORT or --port",
        )
    else:
        yield Finding(check="server", verdict="ok", found=f"none runs; {url} is free")


def _running(config: Config, holder: int) -> Finding:
    """Whether the process that holds the storage answers where it said that it listens."""
    url = announced_url(config.storage)
    if url is None:
        return Finding(
            check="server",
            verdict="warning",
            found=f"process {holder} serves the storage, and has not said where it listens",
            advice="it may be starting, or be of an earlier version: name its address with --url or SIDECAR_URL",
        )
    check = SidecarCheck(token_key(config.storage, config.environ), config.storage)
    try:
        _health(url, check)
    except SidecarError as error:
        return Finding(
            check="server",
            verdict="wrong",
            found=f"process {holder} serves the storage, but does not answer on {url}: {error.message}",
            advice="see what its log says; `sidecar stop` ends it",
        )
    return Finding(check="server", verdict="ok", found=f"process {holder} listens on {url}")


def _health(url: str, check: SidecarCheck | None = None) -> dict[str, Any]:
    """The health of the server at a URL, which is soon in coming or an error."""
    with Client(url, retries=ONE_ATTEMPT, check=check) as client:
        return client.health(timeout_s=HEALTH_WITHIN_S)


def _who_answers(url: str) -> Literal["sidecar", "other"] | None:
    try:
        return "sidecar" if _health(url).get("service") == "orchestration-sidecar" else "other"
    except UnexpectedAnswer:
        return "other"
    except NoServer:
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET) as probe:
            probe.settimeout(1.0)
            return "other" if probe.connect_ex((host.strip("[]"), int(port))) == 0 else None


def _projects(config: Config) -> Iterator[Finding]:
    roots = config.projects.configured or {"default": config.projects.default}
    for name, root in roots.items():
        yield _project(name, root)


def _project(name: str, root: Path) -> Finding:
    check = f"project {name}"
    if not os.access(root, os.R_OK | os.X_OK):
        return Finding(
            check=check, verdict="wrong", found=f"{root} cannot be read by this user", advice="give it access"
        )
    found = find_git(root)
    if found is None:
        return Finding(
            check=check,
            verdict="warning",
            found=f"{root} is under no git: contexts have no history, and every file counts as the project's",
            advice="git init",
        )
    if find_program("git") is None:
        return Finding(check=check, verdict="ok", found=str(root))
    shadows = Shadows()
    try:
        git = Repository(root, found, shadows)
        git.refresh()
        return _asked(git, check, root)
    except GitUnavailable as error:
        return Finding(check=check, verdict="warning", found=f"{root}: {error}", advice="run git status there")
    finally:
        shadows.close()


def _asked(git: Repository, check: str, root: Path) -> Finding:
    """Git's problems with a project, for each command that a context needs. Raises GitUnavailable."""
    if not git.has_working_tree:
        return Finding(
            check=check,
            verdict="warning",
            found=f"{root} is a bare repository: contexts have its commits, and no files of it",
            advice="make a working tree the project: git worktree add",
        )
    files = git.tracked().count(b"\0")
    git.status()
    if git.head.oid is not None:
        git.log("HEAD", limit=SHOWN_COMMITS)
    branch = git.head.branch or "no branch"
    if git.notes:
        return Finding(
            check=check, verdict="warning", found=f"{root}: {'; '.join(git.notes)}", advice="see docs/context.md"
        )
    if not files and git.prefix and git.is_ignored():
        return Finding(
            check=check,
            verdict="warning",
            found=f"{root} is ignored by the repository that it lies in: its files are listed as without git",
            advice="git init there, or take its folder out of that repository's .gitignore",
        )
    return Finding(check=check, verdict="ok", found=f"{root}, {branch}, {plural(files, 'file')} tracked")


def _references(config: Config) -> Iterator[Finding]:
    try:
        check_references(config)
    except ConfigError as error:
        yield Finding(
            check="references",
            verdict="wrong",
            found=error.message,
            advice="correct it: `sidecar serve` refuses to start",
        )


def _commands(config: Config) -> Iterator[Finding]:
    profiles = [profile for profile in config.profiles.configured() if profile.command]
    if not profiles:
        yield Finding(
            check="profiles",
            verdict="warning",
            found="no agent type has a command: none can be spawned, agents started by hand can work",
            advice='give one in sidecar.toml: [profiles.python-specialist] command = ["…"]',
        )
    for profile in profiles:
        yield _command(profile, config)


def _command(profile: Profile, config: Config) -> Finding:
    """Check the profile's folder, and its program by the PATH that the agent will have."""
    check = f"profile {profile.agent_type}"
    root = str(config.projects.default)
    program, cwd, path = (
        text.replace("{project_root}", root)
        for text in (
            profile.command[0],
            profile.cwd,
            profile.env.get("PATH") or config.environ.get("PATH") or os.defpath,
        )
    )
    if "{" not in cwd and not os.access(cwd, os.X_OK):
        return Finding(
            check=check,
            verdict="wrong",
            found=f"its folder {cwd} does not exist, or cannot be entered",
            advice=f"make it, or correct profiles.{profile.agent_type}.cwd",
        )
    # A name with a slash is looked for in the agent's own folder.
    found = shutil.which(str(Path(cwd, program))) if "/" in program else shutil.which(program, path=path)
    if found is not None or "{" in program:
        return Finding(check=check, verdict="ok", found=found or program)
    return Finding(
        check=check,
        verdict="wrong",
        found=f"its program {program} does not exist, or cannot be run",
        advice=f"install it, or correct profiles.{profile.agent_type}.command",
    )
