"""Finds the project of the working directory and its storage, for every command except `serve`.

These commands go on where `serve` would refuse: a mistake in `sidecar.toml` must not disable `stop`. They report the
mistake and use the project's default storage.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ...state.errors import ConfigError
from ...state.journal.fs import lock_holder
from ..place import CONFIG_FILE, SECTIONS, PlaceOptions, default_storage, find_place, others_that_may_change, read_toml
from ..storage import LOCK_FILE
from ..tables import refuse_unknown
from .stderr import tell


def working_dir() -> Path:
    """The working directory. Raises ConfigError if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working directory is not there any more") from None


def storage_of(named: Path | None) -> Path:
    """The storage directory that was named, without links and `..`, else that of the project here."""
    return storage_here() if named is None else Path(os.path.realpath(named))


def storage_here() -> Path:
    """The storage of the project that the working directory is in. Raises ConfigError if there is none."""
    environ = os.environ
    asked = _asked()
    here = working_dir()
    if asked.project_root is None and asked.config is None:
        root = project_root_above(here)
        asked = msgspec.structs.replace(asked, project_root=root)
        if (root / CONFIG_FILE).is_file():
            # As `serve` takes it in that folder: the file may name another root inside.
            asked, here = msgspec.structs.replace(asked, project_root=None), root
    try:
        place = find_place(asked, environ, working_dir=here)
    except ConfigError as error:
        if asked.config is not None or not (here / CONFIG_FILE).is_file():
            raise
        tell(f"note: {error.message}; going on with the default storage of {here}")
        return Path(os.path.realpath(default_storage(here, environ)))
    _say_what_serve_would_refuse(place.source)
    return place.storage


def holder_of_lock(storage: Path) -> int | None:
    """The process that serves a storage directory, or None."""
    holder = lock_holder(storage / LOCK_FILE)
    return int(holder) if holder else None


def project_root_above(here: Path) -> Path:
    """The nearest folder, from here up, with a `sidecar.toml` or a storage; here, where there is none."""
    for folder in (here, *here.parents):
        file = folder / CONFIG_FILE
        if file.is_file() and (folder == here or others_that_may_change(file) is None):
            return folder
        if (default_storage(folder, os.environ) / LOCK_FILE).exists():
            return folder
    return here


def _asked() -> PlaceOptions:
    def path(name: str) -> Path | None:
        return Path(os.environ[name]) if os.environ.get(name) else None

    return PlaceOptions(config=path("SIDECAR_CONFIG"), project_root=path("SIDECAR_PROJECT_ROOT"))


def _say_what_serve_would_refuse(source: Path | None) -> None:
    """Report mistakes in settings that are quick to check; `doctor` checks all."""
    if source is None:
        return
    try:
        tables = read_toml(source)
        refuse_unknown(tables, SECTIONS, "")
        server = tables.get("server", {})
        if isinstance(server, dict):
            refuse_unknown(server, ("host", "port", "storage", "project_root", "log_level", "log_format"), "server")
    except ConfigError as error:
        tell(f"note: {source}: {error.message}; `sidecar serve` would not start with it")
