"""Finds a project, its configuration and its storage, and decides which source may name them.

A project's own `sidecar.toml` is data: anyone who can change the project can change it, even an agent. So it may only
name a `host` on loopback, a `storage` inside the root, and a `project_root` inside its own folder. Other values would
decide where an operator's token goes, or on which network it can be seen. They must come from flags, from the
environment, from a named file outside the project, or from the user's own configuration,
`~/.config/sidecar/config.toml`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from ..state.errors import ConfigError
from .tables import refuse_unknown, require_table

CONFIG_FILE = "sidecar.toml"
SECTIONS = ("server", "projects", "limits", "events", "context", "results", "agents", "groups", "profiles", "triggers")
_MAX_FILE_BYTES = 1_000_000
_OWN_SETTINGS = ("host", "port", "storage", "log_level", "log_format")


class PlaceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Places that flags and environment name; None for places that they do not name."""

    config: Path | None = None
    project_root: Path | None = None
    storage: Path | None = None
    host: str | None = None


class ProjectPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The places of a project. root: absolute, links not resolved. storage: absolute, without links and `..`.

    server: the `[server]` table, with the user's own settings. source: the file that was read, if there was one.
    tables: everything in that file.
    """

    root: Path
    storage: Path
    source: Path | None
    tables: dict[str, Any]
    server: dict[str, Any]


def find_place(asked: PlaceOptions, environ: Mapping[str, str], *, working_dir: Path) -> ProjectPlace:
    """Find the places for a sidecar that is started in `working_dir`. Raises ConfigError that names the setting."""
    source = _source(asked, working_dir)
    tables = read_toml(source) if source is not None else {}
    own_file = own_configuration(environ)
    own = read_toml(own_file) if own_file is not None else {}
    try:
        return _place(asked, environ, working_dir=working_dir, source=source, tables=tables, own=own)
    except ConfigError as error:
        named = own_file if error.details.get("of") == "own" else source
        if named is None:
            raise
        raise ConfigError(f"{named}: {error.message}", **error.details) from None


def _place(
    asked: PlaceOptions,
    environ: Mapping[str, str],
    *,
    working_dir: Path,
    source: Path | None,
    tables: dict[str, Any],
    own: dict[str, Any],
) -> ProjectPlace:
    server = require_table(tables.get("server", {}), "server")
    root = _root(asked, server, source=source, working_dir=working_dir)
    of_user, of_root = _own_settings(own, root)
    settings = {**of_user, **server, **of_root}
    if asked.storage is not None:
        storage = working_dir / asked.storage
    elif isinstance(settings.get("storage"), str):
        base_dir = (
            source.parent if source is not None and "storage" not in of_root and "storage" in server else working_dir
        )
        storage = base_dir / expanded(settings["storage"])
    else:
        storage = default_storage(root, environ)
    if source is not None and not _is_operators(source, root, asked):
        _require_own_storage(asked, server, of_root, Path(os.path.realpath(storage)), root, environ)
        if asked.host is None and "host" not in of_root:
            _require_loopback(server.get("host"))
    return ProjectPlace(
        root=root, storage=Path(os.path.realpath(storage)), source=source, tables=tables, server=settings
    )


def _root(asked: PlaceOptions, server: Mapping[str, Any], *, source: Path | None, working_dir: Path) -> Path:
    base_dir = source.parent if source is not None else working_dir
    if asked.project_root is not None:
        root = working_dir / asked.project_root
    elif isinstance(server.get("project_root"), str):
        root = base_dir / expanded(server["project_root"])
        folder = Path(os.path.realpath(base_dir))
        if asked.config is None and not Path(os.path.realpath(root)).is_relative_to(folder):
            raise ConfigError(
                f"setting server.project_root: {root} lies outside {folder}, the folder of this file; "
                "name it with --project-root or SIDECAR_PROJECT_ROOT, or this file with --config",
                field="server.project_root",
            )
    else:
        root = base_dir if (base_dir / CONFIG_FILE).is_file() else working_dir
    return existing_directory(root, "project_root")


def existing_directory(root: Path, setting: str) -> Path:
    if not root.is_dir():
        raise ConfigError(f"{setting} {root} is not a directory", field=setting, expected="a directory")
    return Path(os.path.abspath(root))  # noqa: PTH100  # links stay: one that is turned leads to another folder later


def _source(asked: PlaceOptions, working_dir: Path) -> Path | None:
    if asked.config is not None:
        named = working_dir / asked.config
        if not named.is_file():
            raise ConfigError(f"configuration file {named} not found", field="config", expected="a file")
        return named
    found = working_dir / (asked.project_root or "") / CONFIG_FILE
    if not found.is_file():
        return None
    who = others_that_may_change(found)
    if who is not None:
        raise ConfigError(
            f"{found} can be changed by {who}, and it names programs that run as you: "
            "make it yours alone (chown, chmod go-w), or name it with --config if you trust them",
            field="config",
        )
    return found


def others_that_may_change(path: Path) -> str | None:
    """The other users, except root, that may change a file or directory, in words; None for nobody."""
    for each in (path, path.parent):
        try:
            about = each.stat()
        except OSError:
            return None  # the error comes when it is opened
        mine = {os.geteuid(), 0}
        if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
            mine.add(int(os.environ["SUDO_UID"]))
        if about.st_uid not in mine:
            return f"user {about.st_uid}, who owns {each}"
        if stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX:
            continue  # in a sticky directory such as /tmp, users cannot replace each other's files
        if about.st_mode & stat.S_IWOTH:
            return f"everyone (mode {stat.S_IMODE(about.st_mode):04o} of {each})"
        # Most systems give each user a group without other members.
        if about.st_mode & stat.S_IWGRP and about.st_gid not in (0, os.getegid(), about.st_uid):
            return f"group {about.st_gid} (mode {stat.S_IMODE(about.st_mode):04o} of {each})"
    return None


def _is_operators(source: Path, root: Path, asked: PlaceOptions) -> bool:
    """Whether the operator named the file, and no agent of the project can write where it lies."""
    lies_outside = not Path(os.path.realpath(source)).is_relative_to(os.path.realpath(root))
    return asked.config is not None and lies_outside and others_that_may_change(source) is None


def _require_own_storage(
    asked: PlaceOptions,
    server: Mapping[str, Any],
    of_root: Mapping[str, Any],
    storage: Path,
    root: Path,
    environ: Mapping[str, str],
) -> None:
    if asked.storage is not None or "storage" in of_root or "storage" not in server:
        return
    if storage.is_relative_to(os.path.realpath(root)):
        who = others_that_may_change(storage) if storage.exists() else None
        if who is not None:
            raise ConfigError(f"setting server.storage: {storage} can be changed by {who}", field="server.storage")
        return
    raise ConfigError(
        f"setting server.storage: {storage} lies outside the project {root}, which this file cannot choose; "
        f'name it with --storage or SIDECAR_STORAGE, or in {_own_path(environ)} under [roots."{root}"]',
        field="server.storage",
    )


def _require_loopback(host: object) -> None:
    if not isinstance(host, str):
        return  # missing, or of a wrong type, which is reported elsewhere
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise ConfigError(
            f"setting server.host: {host} is not a loopback address, and a project's file cannot open the sidecar to a "
            "network; name it with --host or SIDECAR_HOST, or in your own configuration",
            field="server.host",
            expected="a loopback address",
        )


# --- The user's own configuration ---------------------------------------------------------------------------------


def own_configuration(environ: Mapping[str, str]) -> Path | None:
    """`$XDG_CONFIG_HOME/sidecar/config.toml` if it exists. Raises ConfigError if other users may change it."""
    path = _own_path(environ)
    if path is None or not path.is_file():
        return None
    who = others_that_may_change(path)
    if who is not None:
        raise ConfigError(f"{path} can be changed by {who}: make it yours alone (chown, chmod go-w)", field="config")
    return path


def _own_path(environ: Mapping[str, str]) -> Path | None:
    config_home = environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(config_home) if config_home.startswith("/") else Path("~/.config").expanduser()
    except RuntimeError:  # no home folder, so no such file
        return None
    return base / "sidecar" / "config.toml"


def _own_settings(own: dict[str, Any], root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the user's own file for every project, and those for this root."""
    try:
        refuse_unknown(own, ("server", "roots"), "")
        of_user = require_table(own.get("server", {}), "server")
        refuse_unknown(of_user, _OWN_SETTINGS, "server")
        roots = require_table(own.get("roots", {}), "roots")
        tables = {Path(os.path.realpath(expanded(name))): require_table(roots[name], f"roots.{name}") for name in roots}
        of_root = tables.get(Path(os.path.realpath(root)), {})
        refuse_unknown(of_root, _OWN_SETTINGS, f"roots.{root}")
    except ConfigError as error:
        raise ConfigError(error.message, **{**error.details, "of": "own"}) from None
    return of_user, of_root


# --- Files and folders ----------------------------------------------------------------------------------------------


def read_toml(source: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError."""
    try:
        if source.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{source} is larger than {_MAX_FILE_BYTES} bytes", field="config")
        return tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}", field="config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source} is not UTF-8", field="config") from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deep", field="config") from None
    except ValueError as error:  # also raised for a number with more digits than Python reads
        raise ConfigError(f"{source} is not TOML: {error}", field="config") from None


def expanded(path: str) -> Path:
    """The path with `~` replaced by the home folder. Raises ConfigError if there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: this user has no home folder; write the whole path", field="storage") from None


def default_storage(project_root: Path, environ: Mapping[str, str]) -> Path:
    """The default storage of a project root, outside it: neither data nor the signing secret lies in the repository.

    Raises ConfigError if there is no home folder.
    """
    state_home = environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state_home) if state_home.startswith("/") else Path("~/.local/state").expanduser()
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder for the storage: name it with --storage or SIDECAR_STORAGE, or set "
            "XDG_STATE_HOME",
            field="storage",
        ) from None
    project_root = project_root.resolve()
    digest = hashlib.sha256(str(project_root).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return base / "sidecar" / f"{project_root.name or 'root'}-{digest}"
