"""Who may say where a sidecar listens and keeps its data: never a file that an agent of the project can change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.http.config import Config, Flags, load
from sidecar.state.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has written no configuration yet."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def project(tmp_path: Path, settings: str, name: str = "sidecar.toml") -> Path:
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(settings)
    return folder


def own(tmp_path: Path, settings: str) -> Path:
    file = tmp_path / "config" / "sidecar" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(settings)
    return file


def read(folder: Path, home: dict[str, str], **flags: Any) -> Config:
    return load(Flags(**flags), home, working_dir=folder)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.1", "example.org", "127.0.0.1.example.org", ""])
def test_a_projects_file_opens_no_sidecar_to_a_network(tmp_path: Path, home: dict[str, str], host: str) -> None:
    folder = project(tmp_path, f"[server]\nhost = '{host}'\n")
    for named in (None, folder / "sidecar.toml"):
        with pytest.raises(ConfigError, match="is not a loopback address"):
            read(folder, home, config=named)
    assert read(folder, home, host="0.0.0.0").host == "0.0.0.0"
    assert read(folder, home | {"SIDECAR_HOST": "::1"}).host == "::1"


@pytest.mark.parametrize("storage", ["../other", "/srv/other", "link", "a/../../other", "~/other"])
def test_a_projects_file_names_no_storage_outside_the_project(
    tmp_path: Path, home: dict[str, str], storage: str
) -> None:
    folder = project(tmp_path, f"[server]\nstorage = '{storage}'\n")
    (folder / "link").symlink_to("../other")
    for named in (None, folder / "sidecar.toml"):
        with pytest.raises(ConfigError, match="lies outside the project"):
            read(folder, home, config=named)
    assert read(folder, home, storage=tmp_path / "named").storage == tmp_path / "named"
    assert read(folder, home | {"SIDECAR_STORAGE": "/srv/named"}).storage == Path("/srv/named")


def test_a_projects_file_names_a_storage_of_its_own(tmp_path: Path, home: dict[str, str]) -> None:
    folder = project(tmp_path, "[server]\nstorage = 'state'\n")
    assert read(folder, home).storage == folder / "state"
    (folder / "state").mkdir(mode=0o777)
    (folder / "state").chmod(0o777)
    with pytest.raises(ConfigError, match="can be changed by everyone"):
        read(folder, home)


def test_a_projects_file_names_no_root_outside_its_folder(tmp_path: Path, home: dict[str, str]) -> None:
    folder = project(tmp_path, "[server]\nproject_root = '..'\n")
    with pytest.raises(ConfigError, match="lies outside"):
        read(folder, home)
    assert read(folder, home, project_root=folder).projects.default == folder


def test_a_file_that_was_named_and_lies_outside_the_project_is_the_operators(
    tmp_path: Path, home: dict[str, str]
) -> None:
    folder = project(tmp_path, "")
    file = tmp_path / "production.toml"
    file.write_text("[server]\nhost = '0.0.0.0'\nstorage = 'data'\nproject_root = 'project'\n")
    config = read(folder, home, config=file)
    assert (config.host, config.storage, config.projects.default) == ("0.0.0.0", tmp_path / "data", folder)
    file.chmod(0o666)
    with pytest.raises(ConfigError, match=r"no loopback address|lies outside"):
        read(folder, home, config=file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = " + b"[" * 5000, "nested too deep"),
        (b"a = " + b"1" * 5000, "is not TOML"),
        (b"# \xff", "is not UTF-8"),
        (b"#" * 1_000_001, "larger than"),
    ],
    ids=["deep", "long number", "bytes", "large"],
)
def test_a_projects_file_that_cannot_be_read_is_told_as_that(
    tmp_path: Path, home: dict[str, str], content: bytes, said: str
) -> None:
    folder = project(tmp_path, "")
    (folder / "sidecar.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read(folder, home)


def test_the_users_own_configuration_names_host_and_storage(tmp_path: Path, home: dict[str, str]) -> None:
    folder = project(tmp_path, "")
    own(tmp_path, f"[server]\nhost = '0.0.0.0'\nport = 7\n[roots.'{folder}']\nstorage = '/srv/shop'\n")
    config = read(folder, home)
    assert (config.host, config.port, config.storage) == ("0.0.0.0", 7, Path("/srv/shop"))
    project(tmp_path, "[server]\nhost = '127.0.0.1'\nport = 8\nstorage = '/srv/other'\n")
    config = read(folder, home)
    assert (config.host, config.port, config.storage) == ("127.0.0.1", 8, Path("/srv/shop"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert read(elsewhere, home).storage.parent == tmp_path / "state" / "sidecar"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[servr]\n", "did you mean server?"),
        ("[server]\nhots = '::1'\n", "did you mean host?"),
        ("[server]\nproject_root = '/'\n", "unknown setting server.project_root"),
        ("[profiles.x]\ncommand = ['x']\n", "unknown setting profiles"),
        ("[server\n", "is not TOML"),
    ],
)
def test_a_slip_in_the_users_own_configuration_is_named_with_its_file(
    tmp_path: Path, home: dict[str, str], settings: str, said: str
) -> None:
    file = own(tmp_path, settings)
    with pytest.raises(ConfigError) as caught:
        read(project(tmp_path, ""), home)
    assert str(file) in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(("mode", "who"), [(0o666, "everyone"), (0o664, "group 54321")])
def test_a_file_that_others_can_change_is_refused_until_it_is_named(
    tmp_path: Path, home: dict[str, str], mode: int, who: str
) -> None:
    folder = project(tmp_path, "[agents]\nmax_concurrent = 3\n")
    file = folder / "sidecar.toml"
    if os.geteuid() == 0:
        os.chown(file, 0, 54321)
    elif "group" in who:
        pytest.skip("only root may give a file to a group of others")
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"can be changed by {who}"):
        read(folder, home)
    assert read(folder, home, config=file).agents.max_concurrent == 3
    mine = own(tmp_path, "[server]\nport = 5\n")
    mine.chmod(0o666)
    with pytest.raises(ConfigError, match="make it yours alone"):
        read(folder, home, config=file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to others")
def test_a_file_of_another_user_is_refused_until_it_is_named(tmp_path: Path, home: dict[str, str]) -> None:
    folder = project(tmp_path, "[agents]\nmax_concurrent = 3\n")
    os.chown(folder / "sidecar.toml", 54321, 54321)
    with pytest.raises(ConfigError, match="user 54321, who owns"):
        read(folder, home)
    assert read(folder, home, config=Path("sidecar.toml")).agents.max_concurrent == 3


NOBODY = """
import os, pwd, sys

def none(_):
    raise KeyError("no such user")

pwd.getpwuid = none
os.environ.pop("HOME", None)
from sidecar.http.cli.main import main
main(prog_name="sidecar")
"""


@pytest.mark.parametrize(
    "command", [("status",), ("token", "--operator"), ("stop",), ("doctor",), ("serve", "--port", "0")], ids=" ".join
)
def test_a_user_without_a_home_folder_and_an_entry_in_passwd_is_told_what_to_name(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    unset = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "SIDECAR_STORAGE", "SIDECAR_URL", "JWT_TOKEN")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    argv = [sys.executable, "-c", NOBODY, *command]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert "no home folder" in said
    assert "--storage" in said
    assert "Traceback" not in said
    assert done.returncode in (1, 2)


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("token --operator", ("secret",)),
        ("status", ("URL", "LOCK", "MANIFEST")),
        ("doctor", ("secret", "URL", "LOCK", "MANIFEST")),
    ],
)
def test_no_command_follows_what_was_planted_in_a_storage(
    tmp_path: Path, home: dict[str, str], kind: str, command: str, names: tuple[str, ...]
) -> None:
    folder = project(tmp_path, '[server]\nstorage = "kept"\n')
    storage = folder / "kept"
    storage.mkdir(mode=0o700)
    (storage / "secret").write_text("ab" * 32)
    (storage / "secret").chmod(0o600)
    users_own = tmp_path / "the-users-own"
    users_own.write_text("cd" * 32)
    users_own.chmod(0o644)
    for name in names:
        (storage / name).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(storage / name)
        else:
            (storage / name).symlink_to(users_own)
    done = subprocess.run(
        [sys.executable, "-c", "from sidecar.http.cli.command import run; run()", *command.split()],
        cwd=folder,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert (users_own.read_text(), users_own.stat().st_mode & 0o777) == ("cd" * 32, 0o644)
    if command.startswith("token"):
        assert (done.returncode, done.stdout) == (2, "")
        assert "SIDECAR_JWT_SECRET" in done.stderr
