"""Settings: where they come from, which beats which, and that a wrong one is named before anything is served."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.actors.context.options import ContextOptions
from sidecar.actors.event_bus import EventOptions
from sidecar.actors.result_store import ResultOptions
from sidecar.http.access.limits import LimitOptions
from sidecar.http.access.minting import mint_agent_token, mint_operator_token
from sidecar.http.config import Config, Flags, ServerOptions, load
from sidecar.http.errors import ROWS
from sidecar.http.place import default_storage
from sidecar.http.serve import running
from sidecar.http.storage import locked, prepare, token_key
from sidecar.state import errors
from sidecar.state.errors import ConfigError, InvalidRequest, SidecarError, StorageInUse
from sidecar.state.identity import AgentClass
from sidecar.supervision.fleet import SpawnerOptions, Trigger
from sidecar.supervision.profile import Profile
from sidecar.supervision.strategy import Group

ROOT = Path(__file__).resolve().parent.parent


def read(
    here: Path, settings: str = "", *, flags: Flags | None = None, environ: dict[str, str] | None = None
) -> Config:
    if settings:
        (here / "sidecar.toml").write_text(settings)
    return load(flags or Flags(), environ or {}, working_dir=here)


def refusal(here: Path, settings: str = "", **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(here, settings, environ=environ)
    return caught.value


# --- Which beats which ------------------------------------------------------------------------------------------


def test_without_any_setting_everything_has_its_default(tmp_path: Path) -> None:
    config = read(tmp_path, environ={"XDG_STATE_HOME": "/xdg"})
    assert (config.host, config.port, config.log_level) == ("127.0.0.1", 3001, "info")
    assert config.projects.default == tmp_path.resolve()
    assert config.storage.parent == Path("/xdg/sidecar")
    assert (config.events, config.agents, config.context) == (EventOptions(), SpawnerOptions(), ContextOptions())
    assert config.source is None


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = "[server]\nport = 1\nhost = '127.0.0.2'\nlog_level = 'debug'\n"
    assert (read(tmp_path, file).port, read(tmp_path).host, read(tmp_path).log_level) == (1, "127.0.0.2", "debug")
    environ = {"SIDECAR_PORT": "2", "SIDECAR_HOST": "127.0.0.3", "SIDECAR_LOG_LEVEL": "error"}
    config = read(tmp_path, environ=environ)
    assert (config.port, config.host, config.log_level) == (2, "127.0.0.3", "error")
    flags = Flags(port=0, host="127.0.0.4", log_level="warning")
    config = read(tmp_path, flags=flags, environ=environ)
    assert (config.port, config.host, config.log_level) == (0, "127.0.0.4", "warning")


def test_storage_and_root_come_from_the_same_four_places(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("flag", "variable", "file", "here")}
    for root in roots.values():
        root.mkdir()
    file = tmp_path / "other.toml"
    file.write_text("[server]\nproject_root = 'file'\nstorage = 'file-storage'\n")
    here = roots["here"]
    config = load(Flags(), {"SIDECAR_CONFIG": str(file)}, working_dir=here)
    assert (config.projects.default, config.storage) == (roots["file"], tmp_path / "file-storage")
    environ = {
        "SIDECAR_CONFIG": str(file),
        "SIDECAR_PROJECT_ROOT": str(roots["variable"]),
        "SIDECAR_STORAGE": "variable-storage",
    }
    config = load(Flags(), environ, working_dir=here)
    assert (config.projects.default, config.storage) == (roots["variable"], here / "variable-storage")
    flags = Flags(project_root=roots["flag"], storage=tmp_path / "flag-storage")
    config = load(flags, environ, working_dir=here)
    assert (config.projects.default, config.storage) == (roots["flag"], tmp_path / "flag-storage")


def test_the_projects_own_file_is_found(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "sidecar.toml").write_text("[agents]\nmax_concurrent = 3\n")
    config = load(Flags(project_root=Path("project")), {}, working_dir=tmp_path)
    assert (config.agents.max_concurrent, config.source) == (3, project / "sidecar.toml")
    assert load(Flags(), {}, working_dir=project).agents.max_concurrent == 3


def test_each_root_has_a_storage_of_its_own_outside_of_it(tmp_path: Path) -> None:
    one, two = default_storage(Path("/a/shop"), {}), default_storage(Path("/b/shop"), {})
    assert one != two
    assert one == default_storage(Path("/a/shop"), {})
    assert one.name.startswith("shop-")
    assert one.parent == Path("~/.local/state/sidecar").expanduser()
    assert default_storage(Path("/a"), {"XDG_STATE_HOME": "relative"}).is_absolute()
    assert not read(tmp_path).storage.is_relative_to(tmp_path.resolve())


# --- Every section ----------------------------------------------------------------------------------------------

PROTOCOL = """
[server]
host = "127.0.0.1"
port = 3001
storage = "state"
log_level = "info"
[projects.project-abc]
root = "abc"
[limits]
enabled = true
classes.coding = {per_minute = 61, burst = 11}
[events]
retention_seconds = 86400
max_events = 10000
max_wait_ms = 300000
durability = "commit"
[context]
max_bytes = 1000000
max_file_bytes = 100000
cache_mb = 10
exclude = ["*.lock"]
[results]
retention_days = 30
[agents]
max_concurrent = 10
[profiles.python-specialist]
class = "coding"
command = ["python", "agents/python.py", "--task", "{task}"]
cwd = "{project_root}"
env = { EXTRA = "1" }
restart = "on-failure"
max_restarts = 5
restart_window_seconds = 60
backoff_initial_seconds = 0.5
backoff_max_seconds = 30
stop_timeout_seconds = 10
run_timeout_seconds = 0
heartbeat_timeout_seconds = 0
memory_limit_mb = 0
subscribes_to = ["architecture", "coordination", "error"]
next_agents = [{agent_type = "test-engineer", priority = "high", on = "success"}]
user = "agent"
[profiles.poet]
class = "qa"
[groups.database-work]
agents = ["sql-specialist", "python-specialist"]
strategy = "rest_for_one"
[[triggers]]
on = "implementation_complete"
filter = "status:success"
spawn = "test-engineer"
"""


def test_every_setting_of_the_protocol_is_read(tmp_path: Path) -> None:
    (tmp_path / "abc").mkdir()
    config = read(tmp_path, PROTOCOL)
    assert config.projects.root_of("project-abc") == tmp_path.resolve() / "abc"
    assert config.storage == tmp_path / "state"
    coding = config.limits.of(AgentClass.CODING)
    assert coding is not None
    assert (coding.per_minute, coding.burst) == (61, 11)
    assert config.events.durability == "commit"
    assert config.context.exclude == ("*.lock",)
    assert config.results.retention_days == 30
    profile = config.profiles.of("python-specialist")
    assert profile.command == ("python", "agents/python.py", "--task", "{task}")
    assert (profile.env, profile.user) == ({"EXTRA": "1"}, "agent")
    assert [follower.agent_type for follower in profile.next_agents] == ["test-engineer"]
    assert config.profiles.of("poet").agent_class is AgentClass.QA
    assert config.agents.groups["database-work"].agents == ("sql-specialist", "python-specialist")
    assert config.triggers == (Trigger(on="implementation_complete", filter="status:success", spawn="test-engineer"),)


def test_a_profile_keeps_what_the_file_does_not_say(tmp_path: Path) -> None:
    config = read(tmp_path, "[profiles.python-specialist]\nmax_restarts = 9\n")
    profile, built_in = (
        config.profiles.of("python-specialist"),
        read(tmp_path, "[agents]").profiles.of("python-specialist"),
    )
    assert profile == msgspec.structs.replace(built_in, max_restarts=9)


WRONG = [
    ("[servr]", "servr", "server"),
    ("[server]\nprot = 1", "server.prot", "port"),
    ("[server]\nport = '1'", "server.port", "int"),
    ("[server]\nport = 70000", "server.port", "65535"),
    ("[server]\nport = -1", "server.port", "0 or more"),
    ("[server]\nlog_level = 'loud'", "server.log_level", "loud"),
    ("[server]\nproject_root = 'nowhere'", "project_root", "nowhere"),
    ("server = 5", "server", "table"),
    ("[events]\nmax_event = 5", "events.max_event", "max_events"),
    ("[events]\nmax_events = 1.5", "events.max_events", "int"),
    ("[events]\ndurability = 'sometimes'", "events.durability", "sometimes"),
    ("[agents]\nmax_concurent = 5", "agents.max_concurent", "max_concurrent"),
    ("[agents]\nmax_concurrent = -5", "agents.max_concurrent", "0 or more"),
    ("[agents]\nsample_seconds = 0", "agents.sample_seconds", "0.05"),
    ("[agents]\nsample_seconds = inf", "agents.sample_seconds", "1000000000"),
    ("[agents]\nspawns_per_second = 0", "agents.spawns_per_second", "> 0"),
    ("[agents]\nspawn_burst = 0", "agents.spawn_burst", ">= 1"),
    ("[agents]\nlog_max_mb = 1e300", "agents.log_max_mb", "1000000000"),
    ("[profiles.poet]\nprobe_after_seconds = inf", "profiles.poet.probe_after_seconds", "1000000000"),
    ("[profiles.poet]\nstop_timeout_seconds = nan", "profiles.poet.stop_timeout_seconds", "1000000000"),
    ("[results]\nretention_days = 1e6", "results.retention_days", "36500"),
    ("[context]\nexclude = 'x'", "context.exclude", "array"),
    ("[results]\nretention = 5", "results.retention", "retention_days"),
    ("[limits]\nclasses.codign = {per_minute = 1}", "limits.classes.codign", "did you mean coding?"),
    ("[limits]\nclasses.coding = {per_minutes = 1}", "limits.classes.coding.per_minutes", "did you mean per_minute?"),
    ("[limits]\nclasses.coding = {burst = 1}", "limits.classes.coding", "per_minute"),
    ("[limits]\nclasses = 1", "limits.classes", "is not a table"),
    ("[projects.one]\nrot = '.'", "projects.one.rot", "root"),
    ("[projects.one]\nroot = 'nowhere'", "projects.one.root", "nowhere"),
    ("[projects.'a b']\nroot = '.'", "projects", "identifier"),
    ("[profiles.poet]\ncomand = ['x']", "profiles.poet.comand", "command"),
    ("[profiles.poet]\nagent_class = 'qa'", "profiles.poet.agent_class", "class"),
    ("[profiles.poet]\nclass = 'operator'", "profiles.poet.class", "architect"),
    ("[profiles.poet]\ncommand = []", "profiles.poet.command", "empty"),
    ("[profiles.poet]\ncommand = 'python x'", "profiles.poet.command", "array"),
    ("[profiles.poet]\nrestart = 'maybe'", "profiles.poet.restart", "maybe"),
    ("[profiles.poet]\nnext_agents = [{agent_typ = 'x'}]", "profiles.poet.next_agents[0]", "agent_typ"),
    ("[profiles.'../x']\nrestart = 'never'", "profiles", "identifier"),
    ("[groups.one]\nagents = ['a']\nstrateg = 'x'", "groups.one.strateg", "strategy"),
    ("[agents.groups.one]\nagents = ['a']", "agents.groups", "known here"),
    ("[triggers]\non = 'x'", "triggers", "[[triggers]]"),
    ("[[triggers]]\non = 'x'", "triggers[0]", "spawn"),
    ("[[triggers]]\non = 'x'\nspawn = 'y'\nwhen = 'z'", "triggers[0].when", "known here"),
    ("[[triggers]]\non = 'x'\nspawn = 'y'\nfilter = ':'", "triggers[0].filter", "filter"),
    ("[server", "config", "TOML"),
]


@pytest.mark.parametrize(("settings", "field", "hint"), WRONG)
def test_a_wrong_setting_is_named_with_its_file_and_what_was_expected(
    tmp_path: Path, settings: str, field: str, hint: str
) -> None:
    error = refusal(tmp_path, settings)
    assert str(tmp_path / "sidecar.toml") in error.message
    assert error.details["field"] == field or field in error.message
    assert hint in error.message


def test_what_the_environment_says_wrong_is_named(tmp_path: Path) -> None:
    assert "SIDECAR_PORT" in refusal(tmp_path, SIDECAR_PORT="many").message
    assert "loud" in refusal(tmp_path, SIDECAR_LOG_LEVEL="loud").message
    assert "gone.toml" in refusal(tmp_path, SIDECAR_CONFIG="gone.toml").message
    assert "nowhere" in refusal(tmp_path, SIDECAR_PROJECT_ROOT="nowhere").message


# --- What stops a start -----------------------------------------------------------------------------------------


def start(tmp_path: Path, **flags: Any) -> None:
    config = read(tmp_path, flags=Flags(**{"port": 0, "storage": tmp_path / "storage", **flags}))
    with running(config):
        pass


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use"):
            start(tmp_path, port=port)
    start(tmp_path, port=port)


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"203\.0\.113\.1"):
        start(tmp_path, host="203.0.113.1")


def test_a_second_sidecar_on_one_storage_is_told_who_holds_it(tmp_path: Path) -> None:
    config = read(tmp_path, flags=Flags(port=0, storage=tmp_path / "storage"))
    with running(config), pytest.raises(StorageInUse, match=f"in use by process {os.getpid()}"), running(config):
        pass
    start(tmp_path)


def test_a_storage_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("a file")
    with pytest.raises(ConfigError, match=f"{tmp_path}/storage"):
        start(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path}/storage/below"):
        start(tmp_path, storage=tmp_path / "storage" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        start(tmp_path)


def test_storage_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/proc/nothing/storage"):
        start(tmp_path, storage=Path("/proc/nothing/storage"))


def test_a_trigger_that_could_never_spawn_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "sidecar.toml").write_text("[[triggers]]\non = 'x'\nspawn = 'poet'\n")
    with pytest.raises(ConfigError, match="poet"):
        start(tmp_path)


def test_a_start_that_failed_leaves_nothing_locked(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "events").write_text("no directory")
    with pytest.raises((SidecarError, OSError)):
        start(tmp_path)
    (tmp_path / "storage" / "events").unlink()
    start(tmp_path)


def test_a_user_sees_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "sidecar.toml").write_text("[agents]\nmax_concurent = 5\n")
    environ = {**os.environ, "PYTHONPATH": str(Path(sys.modules["sidecar"].__file__ or "").parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar.http.cli.main", "serve", "--port", "0"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"Error: {tmp_path}/sidecar.toml: unknown setting agents.max_concurent; did you mean max_concurrent?"
    ]


# --- Storage and secret -----------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_storage_and_secret_are_the_users_own(tmp_path: Path) -> None:
    storage = tmp_path / "a" / "storage"
    token = mint_operator_token(storage, {}).text
    assert (mode(storage), mode(storage / "secret")) == (0o700, 0o600)
    secret = (storage / "secret").read_text()
    assert len(bytes.fromhex(secret)) == 32
    assert mint_operator_token(storage, {}).text != token
    assert (storage / "secret").read_text() == secret
    assert [path.name for path in storage.iterdir()] == ["secret"]


def test_everything_a_server_writes_is_the_users_own(tmp_path: Path) -> None:
    start(tmp_path)
    for path in [tmp_path / "storage", *(tmp_path / "storage").rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_a_secret_that_others_can_read_is_closed(tmp_path: Path) -> None:
    mint_operator_token(tmp_path, {})
    (tmp_path / "secret").chmod(0o644)
    mint_operator_token(tmp_path, {})
    assert mode(tmp_path / "secret") == 0o600


def test_the_environments_secret_goes_first_and_must_be_long_enough(tmp_path: Path) -> None:
    given = {"SIDECAR_JWT_SECRET": "x" * 32}
    token = mint_operator_token(tmp_path, given)
    assert not (tmp_path / "secret").exists()
    from sidecar.state.clock import utc_now

    assert token_key(tmp_path, given).verify(token.text, now=utc_now()).is_operator
    with pytest.raises(ConfigError, match="SIDECAR_JWT_SECRET has 31 bytes, expected at least 32"):
        token_key(tmp_path, {"SIDECAR_JWT_SECRET": "x" * 31})


@pytest.mark.parametrize("damaged", ["", "abc", "not hexadecimal", "ab" * 31])
def test_a_damaged_secret_is_named_and_never_replaced(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "secret").write_text(damaged)
    with pytest.raises(ConfigError, match=f"{tmp_path}/secret"):
        token_key(tmp_path, {})
    assert (tmp_path / "secret").read_text() == damaged


def test_a_lock_left_by_a_dead_process_holds_nobody_up(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "LOCK").write_text("999999\n")
    with locked(tmp_path):
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize(
    ("claims", "field"),
    [
        ({"agent_id": "a b"}, "agent_id"),
        ({"project_id": "../x"}, "project_id"),
        ({"issue_id": ""}, "issue_id"),
        ({"ttl_s": 0}, "ttl"),
        ({"ttl_s": 10**9}, "ttl"),
    ],
)
def test_a_token_for_what_is_no_identifier_is_not_minted(tmp_path: Path, claims: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        mint_agent_token(tmp_path, {}, **{"agent_id": "ada", "agent_type": "poet", **claims})
    assert caught.value.details["field"] == field


# --- Code and documentation -------------------------------------------------------------------------------------


def every_error() -> set[type[SidecarError]]:
    found = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SidecarError)}
    assert len(found) > 20
    return found


def test_every_error_has_a_row_and_every_row_an_error() -> None:
    assert {error.code for error in every_error()} == set(ROWS)


def test_every_error_code_has_a_line_in_the_documentation() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    documented = set(re.findall(r"^\| (\d{3}) \| `([A-Z]+_\d{3})` \| `(\w+)` \|", page, re.MULTILINE))
    assert documented == {(str(row.status), row.wire_code, row.word) for row in ROWS.values()}


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": ServerOptions,
    "limits": LimitOptions,
    "events": EventOptions,
    "context": ContextOptions,
    "results": ResultOptions,
    "agents": SpawnerOptions,
    "profiles.NAME": Profile,
    "groups.NAME": Group,
    "triggers": Trigger,
}


def test_every_setting_has_a_line_in_the_documentation_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name, type_ in SECTIONS.items():
        lines = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section_of(page, name), re.MULTILINE))
        fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
        if type_ is SpawnerOptions:
            del fields["groups"]
        if type_ is Profile:
            fields["class"] = fields.pop("agent_class")
            del fields["agent_type"]
        assert lines.keys() == fields.keys(), name
        for key, field in fields.items():
            if isinstance(field.default, bool | int | float | str):
                expected = msgspec.json.encode(field.default).decode().removesuffix(".0")
                assert lines[key].strip("`") == expected, f"{name}.{key}"


def section_of(page: str, name: str) -> str:
    heading = f"## `[[{name}]]`" if name == "triggers" else f"## `[{name}]`"
    assert heading in page, heading
    return page.partition(heading)[2].partition("\n## ")[0]


def test_a_relative_folder_of_a_profile_is_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    folders = {"a": "sub", "b": "~/work", "c": "/srv", "d": "{project_root}/x", "e": "{issue_id}"}
    settings = "".join(f'[profiles.{name}]\ncwd = "{folder}"\n' for name, folder in folders.items())
    (tmp_path / "sidecar.toml").write_text(settings)
    profiles = load(Flags(), {}, working_dir=tmp_path).profiles
    assert [profiles.of(name).cwd for name in folders] == [
        f"{tmp_path}/sub",
        "/home/ada/work",
        "/srv",
        "{project_root}/x",
        f"{tmp_path}/{{issue_id}}",
    ]
