"""Every setting, from flags, environment, `sidecar.toml` and defaults; the first that has it decides.

No other module reads the environment of the server. Errors name the file and the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..actors.context.options import ContextOptions
from ..actors.event_bus import EventOptions
from ..actors.result_store import ResultOptions
from ..state.errors import ConfigError, InvalidFilter
from ..state.events.filter import compile_filter
from ..state.identity import AgentClass
from ..state.models import IDENTIFIER
from ..state.projects import Projects
from ..supervision.fleet import SpawnerOptions, Trigger
from ..supervision.profile import Profile, Profiles, built_in
from ..supervision.request_environment import SET_BY_SIDECAR, changes_code, is_pattern
from ..supervision.strategy import Group
from .access.limits import ClassLimit, LimitOptions
from .logs import LogFormat
from .place import SECTIONS, PlaceOptions, ProjectPlace, existing_directory, expanded, find_place
from .tables import convert, read_table, refuse_unknown, require_table

MAX_PORT = 65_535

LogLevel = Literal["debug", "info", "warning", "error"]


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings `[server]`.

    port 0: picks a free port. storage, project_root: paths, relative ones to the file's directory.
    """

    host: str = "127.0.0.1"
    port: int = 3001
    storage: str | None = None
    project_root: str | None = None
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags of the command line; None for a flag that is not given."""

    host: str | None = None
    port: int | None = None
    storage: Path | None = None
    project_root: Path | None = None
    config: Path | None = None
    log_level: str | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a server, for `running`. Paths are absolute; storage and roots contain no links and no `..`.

    source: the file that was read, or None.
    """

    host: str
    port: int
    storage: Path
    log_level: LogLevel
    log_format: LogFormat
    projects: Projects
    limits: LimitOptions
    events: EventOptions
    context: ContextOptions
    results: ResultOptions
    agents: SpawnerOptions
    profiles: Profiles
    triggers: tuple[Trigger, ...]
    environ: Mapping[str, str]
    source: Path | None


def load(flags: Flags, environ: Mapping[str, str], *, working_dir: Path) -> Config:
    """The configuration of a server started in `working_dir`. Raises ConfigError."""
    flags = _over_environment(flags, environ)
    asked = PlaceOptions(config=flags.config, project_root=flags.project_root, storage=flags.storage, host=flags.host)
    place = find_place(asked, environ, working_dir=working_dir)
    try:
        return _assembled(place, flags, environ, working_dir=working_dir)
    except ConfigError as error:
        if place.source is None:
            raise
        raise ConfigError(f"{place.source}: {error.message}", **error.details) from None


def _over_environment(flags: Flags, environ: Mapping[str, str]) -> Flags:
    def path(name: str) -> Path | None:
        return Path(environ[name]) if environ.get(name) else None

    port = environ.get("SIDECAR_PORT")
    if port and not (port.isascii() and port.isdigit()):
        raise ConfigError(f"SIDECAR_PORT is {port!r}, expected a number", field="SIDECAR_PORT", expected="a number")
    return Flags(
        host=flags.host or environ.get("SIDECAR_HOST"),
        port=flags.port if flags.port is not None else int(port) if port else None,
        storage=flags.storage or path("SIDECAR_STORAGE"),
        project_root=flags.project_root or path("SIDECAR_PROJECT_ROOT"),
        config=flags.config or path("SIDECAR_CONFIG"),
        log_level=flags.log_level or environ.get("SIDECAR_LOG_LEVEL"),
    )


def _assembled(place: ProjectPlace, flags: Flags, environ: Mapping[str, str], *, working_dir: Path) -> Config:
    tables = place.tables
    refuse_unknown(tables, SECTIONS, "")
    base_dir = place.source.parent if place.source is not None else working_dir
    server = read_table(_over(place.server, flags), ServerOptions, "server")
    if server.port > MAX_PORT:
        raise ConfigError(f"setting server.port is {server.port}, expected 0 to {MAX_PORT}", field="server.port")
    return Config(
        host=server.host,
        port=server.port,
        storage=place.storage,
        log_level=server.log_level,
        log_format=server.log_format,
        projects=Projects(place.root, _projects(tables.get("projects", {}), base_dir)),
        limits=_limits(tables.get("limits", {})),
        events=read_table(tables.get("events", {}), EventOptions, "events"),
        context=read_table(tables.get("context", {}), ContextOptions, "context"),
        results=read_table(tables.get("results", {}), ResultOptions, "results"),
        agents=_agents(tables.get("agents", {}), tables.get("groups", {})),
        profiles=_profiles(tables.get("profiles", {}), base_dir),
        triggers=_triggers(tables.get("triggers", [])),
        environ=environ,
        source=place.source,
    )


def _over(table: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    given = {"host": flags.host, "port": flags.port, "log_level": flags.log_level}
    return {**table, **{name: value for name, value in given.items() if value is not None}}


def _limits(table: object) -> LimitOptions:
    classes = require_table(require_table(table, "limits").get("classes", {}), "limits.classes")
    refuse_unknown(classes, AgentClass, "limits.classes")
    for name, inner in classes.items():
        read_table(inner, ClassLimit, f"limits.classes.{name}")
    return read_table(table, LimitOptions, "limits")


class _ProjectTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[projects.NAME]`."""

    root: str


def _projects(table: object, base_dir: Path) -> dict[str, Path]:
    roots: dict[str, Path] = {}
    for name, inner in require_table(table, "projects").items():
        where = f"projects.{_identifier(name, 'projects')}"
        root = read_table(inner, _ProjectTable, where).root
        roots[name] = existing_directory(base_dir / expanded(root), f"{where}.root")
    return roots


def _identifier(name: str, where: str) -> str:
    if IDENTIFIER.fullmatch(name) is None:
        raise ConfigError(f"{name!r} in [{where}] is not an identifier", field=where, expected="an identifier")
    return name


def _agents(table: object, groups: object) -> SpawnerOptions:
    """`[agents]`, and the groups, which have tables of their own."""
    settings = require_table(table, "agents")
    known = set(SpawnerOptions.__struct_encode_fields__) - {"groups"}
    refuse_unknown(settings, known, "agents")
    named = {
        name: read_table(group, Group, f"groups.{_identifier(name, 'groups')}")
        for name, group in require_table(groups, "groups").items()
    }
    return msgspec.structs.replace(convert(settings, SpawnerOptions, "agents"), groups=named)


_CLASSES = tuple(each.value for each in AgentClass if each is not AgentClass.OPERATOR)


def _profiles(table: object, base_dir: Path) -> Profiles:
    return Profiles({name: _profile(name, inner, base_dir) for name, inner in require_table(table, "profiles").items()})


def _profile(name: str, table: object, base_dir: Path) -> Profile:
    """The built-in profile of the type, or of the class that the table names, overridden by the table's settings.

    base_dir: the folder of the configuration file, to which a relative `cwd` is relative.
    """
    where = f"profiles.{_identifier(name, 'profiles')}"
    settings = dict(require_table(table, where))
    known = set(Profile.__struct_encode_fields__) - {"agent_type", "agent_class"}
    refuse_unknown(settings, {*known, "class"}, where)
    agent_class = settings.pop("class", None)
    if agent_class is not None and agent_class not in _CLASSES:
        raise ConfigError(
            f"setting {where}.class is {agent_class!r}, expected one of {', '.join(_CLASSES)}",
            field=f"{where}.class",
            expected=list(_CLASSES),
        )
    base = built_in(name, AgentClass(agent_class) if agent_class is not None else None)
    profile = convert({**msgspec.to_builtins(base), **settings}, Profile, where)
    if "command" in settings and not (profile.command and profile.command[0]):
        raise ConfigError(f"setting {where}.command is empty", field=f"{where}.command", expected="a program")
    if not profile.cwd.startswith("{project_root}"):
        profile = msgspec.structs.replace(profile, cwd=str(base_dir / expanded(profile.cwd)))
    for pattern in profile.request_env:
        _require_possible(pattern, f"{where}.request_env")
    return profile


def _require_possible(pattern: str, setting: str) -> None:
    """Refuse a text that is no pattern of variables, or that can allow none. Raises ConfigError."""
    if not is_pattern(pattern):
        expected = "names such as TASK_ID, with * for any characters"
        raise ConfigError(f"setting {setting} holds {pattern!r}, expected {expected}", field=setting, expected=expected)
    if "*" not in pattern and (pattern in SET_BY_SIDECAR or changes_code(pattern)):
        why = "the sidecar sets it" if pattern in SET_BY_SIDECAR else "it can change what code runs"
        raise ConfigError(
            f"setting {setting} holds {pattern}, which no request may set: {why}", field=setting, expected="other names"
        )


def _triggers(tables: object) -> tuple[Trigger, ...]:
    if not isinstance(tables, list):
        raise ConfigError(
            "triggers is not a list of tables, written [[triggers]]", field="triggers", expected="[[triggers]]"
        )
    return tuple(_trigger(table, f"triggers[{number}]") for number, table in enumerate(tables))


def _trigger(table: object, where: str) -> Trigger:
    trigger = read_table(table, Trigger, where)
    _identifier(trigger.on, f"{where}.on")
    _identifier(trigger.spawn, f"{where}.spawn")
    try:
        compile_filter(trigger.filter)
    except InvalidFilter as error:
        raise ConfigError(f"setting {where}.filter: {error.message}", field=f"{where}.filter") from None
    return trigger
