"""Chooses the parts of git's configuration that count: a few plain values, and the user's ignore and attributes files.

A repository's configuration can name programs (filters, fsmonitor, hooks, text converters, remote helpers), and an
agent can write it. So git never reads it in a repository: git parses it as a file, without its includes, and only the
names and values below are written into the configuration that our commands use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..safe_root import NotReadable, Root
from .git import NO_CONFIGURATION, NO_REPOSITORY, GitUnavailable, run_git

MAX_CONFIG_BYTES = 1 << 20

Pairs = tuple[
    tuple[str, str | None], ...
]  # as git prints them: name in lower case, value or None where there is no `=`

_BOOLEAN = {"true": "true", "yes": "true", "on": "true", "1": "true"} | dict.fromkeys(
    ("false", "no", "off", "0"), "false"
)
# Name -> the values that count and how they are written. They say how files are compared with the index.
_PLAIN: dict[str, Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("core.filemode", "core.ignorecase", "core.symlinks", "core.precomposeunicode", "core.trustctime"),
            *("core.sparsecheckout", "core.sparsecheckoutcone", "index.sparse"),
        ),
        _BOOLEAN,
    ),
    "core.autocrlf": {**_BOOLEAN, "input": "input"},
    "core.eol": {"lf": "lf", "crlf": "crlf", "native": "native"},
    "core.checkstat": {"default": "default", "minimal": "minimal"},
}
USERS_FILES = {"core.excludesfile": "ignore", "core.attributesfile": "attributes"}  # and their names in ~/.config/git
_VERSIONS = ("0", "1")
_OBJECT_FORMATS = ("sha1", "sha256")
_EXTENSIONS = {
    "objectformat": _OBJECT_FORMATS,
    "compatobjectformat": _OBJECT_FORMATS,
    "refstorage": ("files", "reftable"),
}
# These say nothing about how objects and index are read.
_NEEDLESS_EXTENSIONS = ("noop", "preciousobjects", "partialclone", "worktreeconfig", "relativeworktrees")
_ALWAYS = {
    "core.bare": "false",
    "core.fsmonitor": "false",
    "core.hookspath": os.devnull,
    "core.safecrlf": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}


class RepositoryConfig(NamedTuple):
    """The parts of a repository's own configuration that count.

    plain: values that are passed on. worktree: `core.worktree`, which shows where a git directory belongs.
    remotes: name -> URL, credentials still in it. notes: ignored settings, in words.
    """

    version: str
    object_format: str
    has_reftable: bool
    plain: dict[str, str]
    is_bare: bool
    worktree: str | None
    remotes: dict[str, str]
    notes: tuple[str, ...]


def repository_config(shared: tuple[Root, str], own: tuple[Root, str]) -> RepositoryConfig:
    """Read the configuration of a repository without running any of its programs.

    shared, own: an open folder and the path in it of the git directory that has the configuration, and of the one
    that has the index (they differ for linked worktrees). Raises GitUnavailable for an unknown format or extension.
    """
    pairs, notes = _read(shared, "config")
    if _last(pairs, "extensions.worktreeconfig", _BOOLEAN) == "true":
        more, more_notes = _read(own, "config.worktree")
        pairs, notes = pairs + more, notes + more_notes
    if any(name == "core.excludesfile" for name, _ in pairs):
        notes += ("core.excludesFile of the repository does not count: put its lines into .git/info/exclude",)
    remotes: dict[str, str] = {}
    for name, value in pairs:
        if name.startswith("remote.") and name.endswith(".url") and value:
            remotes.setdefault(name.removeprefix("remote.").removesuffix(".url"), _as_text(value))
    version = last_value(pairs, "core.repositoryformatversion") or "0"
    _refuse_unknown(version, pairs)
    return RepositoryConfig(
        version,
        (last_value(pairs, "extensions.objectformat") or "sha1").lower() if version != "0" else "sha1",
        (last_value(pairs, "extensions.refstorage") or "").lower().startswith("reftable"),
        plain_values(pairs),
        _last(pairs, "core.bare", _BOOLEAN) == "true",
        last_value(pairs, "core.worktree"),
        remotes,
        notes,
    )


def _read(folder: tuple[Root, str], name: str) -> tuple[Pairs, tuple[str, ...]]:
    """The pairs of a file, as far as git could parse it, and git's words where it could not."""
    root, inside = folder
    try:
        file, stamp = root.opened(f"{inside}/{name}" if inside else name)
    except NotReadable as error:
        return (), () if str(error) == "missing" else (f"{name} in the git directory: {error}",)
    with file:
        if stamp.size > MAX_CONFIG_BYTES:
            return (), (f"{name} in the git directory is larger than {MAX_CONFIG_BYTES} bytes",)
        try:
            return pairs_in(listed("--file", "-", stdin=file)), ()
        except GitUnavailable as error:
            return pairs_in(error.output), (str(error).replace("standard input", f".git/{name}"),)


def listed(*source: str, stdin: BinaryIO | None = None) -> bytes:
    """The pairs that git reads in one file, each ending with NUL. Raises GitUnavailable with those before a fault."""
    environment = NO_REPOSITORY | NO_CONFIGURATION
    return run_git(
        *("config", *source, "--no-includes", "-z", "--list"), at=Path("/"), environment=environment, stdin=stdin
    )


def pairs_in(output: bytes) -> Pairs:
    entries = output.decode("utf-8", "surrogateescape").split("\0")
    return tuple(pair(entry) for entry in entries if entry)


def pair(entry: str) -> tuple[str, str | None]:
    name, has_value, value = entry.partition("\n")
    return name, value if has_value else None


def last_value(pairs: Pairs, wanted: str) -> str | None:
    return next((value for name, value in reversed(pairs) if name == wanted and value), None)


def _last(pairs: Pairs, wanted: str, values: Mapping[str, str]) -> str | None:
    """The last value of a name that is one of `values`; a name without a value is true."""
    for name, value in reversed(pairs):
        if name == wanted:
            return values.get("true" if value is None else value.lower() or "false")
    return None


def plain_values(pairs: Pairs) -> dict[str, str]:
    found = {name: _last(pairs, name, values) for name, values in _PLAIN.items()}
    return {name: value for name, value in found.items() if value is not None}


def _refuse_unknown(version: str, pairs: Pairs) -> None:
    if version not in _VERSIONS:
        raise GitUnavailable(f"the repository has the format version {_shown(version)}, which is not known")
    if version == "0":
        return
    for name, value in pairs:
        extension = name.removeprefix("extensions.")
        if extension == name or extension in _NEEDLESS_EXTENSIONS:
            continue
        kind = (value or "").lower().partition(":")[0]
        if kind not in _EXTENSIONS.get(extension, ()):
            raise GitUnavailable(
                f"the repository has the extension {_shown(f'{extension} = {value}')}, which is not known"
            )


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:60])


def _as_text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def config_text(repository: RepositoryConfig, users: Mapping[str, str]) -> str:
    """The configuration that our commands use, of values that are known and files of the user's."""
    values = {
        "core.repositoryformatversion": repository.version,
        **{name: value for name, value in users.items() if name in _PLAIN},
        **repository.plain,
        **_ALWAYS,
        **{name: users.get(name, os.devnull) for name in USERS_FILES},
    }
    if repository.object_format != "sha1":
        values["extensions.objectformat"] = repository.object_format
    return as_config(values)


def as_config(values: Mapping[str, str]) -> str:
    """A configuration file with these values, by their full names."""
    lines = []
    for name, value in values.items():
        section, _, key = name.partition(".")
        lines.append(f"[{section}]\n\t{key} = {_quoted(value)}\n")
    return "".join(lines)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
