"""`sidecar doctor`, `backup` and `restore`: what is wrong is found and named, and there is a way back."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.http.access.minting import mint_operator_token
from sidecar.http.cli.main import main
from sidecar.http.config import Flags, load
from sidecar.http.sdk import Client
from sidecar.http.serve import Sidecar, running
from sidecar.state.backup import back_up, restore
from sidecar.state.clock import utc_now
from sidecar.state.errors import StorageInUse
from sidecar.state.journal.inspection import inspect

SIDECAR = [sys.executable, "-m", "sidecar.http.cli.main"]

Run = Callable[..., Result]


@pytest.fixture
def run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the project; it sees the storage of the test and a port that is free."""
    monkeypatch.chdir(project)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"SIDECAR_STORAGE": str(tmp_path / "storage"), "SIDECAR_URL": None, "JWT_TOKEN": None}

    def invoke(*arguments: str, code: int = 0, **more: Any) -> Result:
        variables = env | {"SIDECAR_PORT": str(port)} | more
        done = CliRunner().invoke(main, arguments, env=variables, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture
def findings(run: Run) -> Callable[..., dict[str, dict[str, Any]]]:
    def examine(*options: str, code: int = 0, **env: Any) -> dict[str, dict[str, Any]]:
        listed = json.loads(run("doctor", "--format", "json", *options, code=code, **env).stdout)["findings"]
        return {finding["check"]: finding for finding in listed}

    return examine


Serving = Callable[..., AbstractContextManager[Sidecar]]


@pytest.fixture
def serving(project: Path, tmp_path: Path) -> Serving:
    """Sidecars of the project, one after the other, each until its `with` ends."""

    def begin(storage: str = "storage") -> AbstractContextManager[Sidecar]:
        return running(load(Flags(port=0, storage=tmp_path / storage, project_root=project), {}, working_dir=project))

    return begin


def client_of(sidecar: Sidecar) -> Client:
    return Client(sidecar.url, mint_operator_token(sidecar.config.storage, {}).text)


def fill(serving: Serving, count: int = 20) -> None:
    """A storage with results and events, and no server on it any more."""
    with serving() as sidecar, client_of(sidecar) as client:
        for n in range(count):
            client.store(
                {"status": "success", "n": n},
                agent_id="operator",
                agent_type="operator",
                issue_id="issue-1",
                project_id="default",
            )


class TestDoctor:
    def test_finds_nothing_wrong_where_nothing_is(self, findings: Callable[..., dict[str, dict[str, Any]]]) -> None:
        found = findings()
        assert {finding["verdict"] for finding in found.values()} <= {"ok", "warning"}
        assert found["project default"]["found"].endswith("main, 2 files tracked")
        assert "made at the first start" in found["storage"]["found"]

    def test_makes_nothing_by_looking(self, findings: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path) -> None:
        findings()
        assert not (tmp_path / "storage").exists()

    def test_reads_every_record_also_while_a_server_writes(
        self, findings: Callable[..., dict[str, dict[str, Any]]], serving: Serving
    ) -> None:
        with serving():
            journal = findings()["journal results"]
        assert journal["verdict"] == "ok"
        assert f"written by process {os.getpid()}" in journal["found"]

    def test_names_the_setting_that_is_wrong(
        self, findings: Callable[..., dict[str, dict[str, Any]]], project: Path
    ) -> None:
        (project / "sidecar.toml").write_text("[server]\nprot = 1\n")
        found = findings(code=1)
        assert "port" in found["configuration"]["found"]

    def test_looks_for_folder_and_program_as_the_agent_will(
        self, findings: Callable[..., dict[str, dict[str, Any]]], project: Path, tmp_path: Path
    ) -> None:
        (project / "sub").mkdir()
        (tmp_path / "bin").mkdir()
        tool = tmp_path / "bin" / "mytool"
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
        (project / "sub" / "mine").symlink_to(tool)
        (project / "sidecar.toml").write_text(
            '[profiles.a]\ncommand = ["./mine"]\ncwd = "sub"\n'
            f'[profiles.b]\ncommand = ["mytool"]\nenv = {{PATH = "{tmp_path}/bin"}}\n'
            '[profiles.c]\ncommand = ["true"]\ncwd = "gone"\n'
        )
        found = findings(code=1)
        assert [found[f"profile {name}"]["verdict"] for name in "abc"] == ["ok", "ok", "wrong"]
        assert f"{project}/gone" in found["profile c"]["found"]
        assert "profiles.c.cwd" in found["profile c"]["advice"]

    def test_names_the_program_that_is_not_there(
        self, findings: Callable[..., dict[str, dict[str, Any]]], project: Path
    ) -> None:
        (project / "sidecar.toml").write_text('[profiles.go-specialist]\ncommand = ["no-such-program"]\n')
        found = findings(code=1)
        assert "no-such-program" in found["profile go-specialist"]["found"]
        assert "profiles.go-specialist.command" in found["profile go-specialist"]["advice"]

    def test_sees_whose_port_it_is(
        self, findings: Callable[..., dict[str, dict[str, Any]]], serving: Serving, tmp_path: Path
    ) -> None:
        with serving() as sidecar:
            port = sidecar.url.rpartition(":")[2]
            for settings in ({"SIDECAR_PORT": port}, {}):
                assert findings(**settings)["server"]["found"] == f"process {os.getpid()} listens on {sidecar.url}"
            other = findings(SIDECAR_PORT=port, SIDECAR_STORAGE=str(tmp_path / "other"), code=1)["server"]["found"]
            assert other == f"another sidecar listens on {sidecar.url}"

    def test_sees_a_stranger_on_the_port(self, findings: Callable[..., dict[str, dict[str, Any]]]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            found = findings(SIDECAR_PORT=str(other.getsockname()[1]), code=1)
        assert "another program listens" in found["server"]["found"]

    def test_sees_storage_that_others_may_read(
        self, findings: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path, serving: Serving
    ) -> None:
        fill(serving, 1)
        (tmp_path / "storage").chmod(0o755)
        found = findings(code=1)
        assert "mint tokens" in found["storage"]["found"]
        assert "chmod" in found["storage"]["advice"]

    def test_sees_a_project_without_git(
        self, findings: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "plain").mkdir()
        monkeypatch.chdir(tmp_path / "plain")
        assert "under no git" in findings()["project default"]["found"]

    def test_repairs_only_when_told_to_and_keeps_what_it_was(
        self, findings: Callable[..., dict[str, dict[str, Any]]], run: Run, serving: Serving, tmp_path: Path
    ) -> None:
        fill(serving)
        victim = damage(tmp_path / "storage" / "results")
        damaged = victim.read_bytes()
        found = findings(code=1)["journal results"]
        assert found["verdict"] == "wrong"
        assert "--repair" in found["advice"]
        assert victim.read_bytes() == damaged
        said = run("doctor", "--repair").stderr
        assert "records kept; lost:" in said
        copy = Path(said.strip().rpartition("as it was: ")[2])
        assert (copy / victim.name).read_bytes() == damaged
        assert findings()["journal results"]["verdict"] == "ok"
        with serving() as sidecar, client_of(sidecar) as client:
            assert 0 < client.results().total < 20


def damage(journal: Path) -> Path:
    """One byte in the middle of a journal's longest file, which is returned."""
    victim = max(journal.glob("*.jsonl"), key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    middle = whole.index(b"\n", len(whole.rstrip(b"\0 \n")) // 2) + 10
    victim.write_bytes(whole[:middle] + b"#" + whole[middle + 1 :])
    return victim


class TestBackup:
    def test_taken_while_the_server_runs_brings_back_what_was_acknowledged(
        self, run: Run, serving: Serving, tmp_path: Path
    ) -> None:
        fill(serving)
        with serving() as sidecar, client_of(sidecar) as client:
            taken = run("backup", str(tmp_path / "it.tar.gz"))
            before = client.results().results
        assert "files" in taken.stdout
        assert len(before) == 20
        restored = run("restore", str(tmp_path / "it.tar.gz"), "--storage", str(tmp_path / "new"))
        assert "as of" in restored.stdout
        with serving("new") as sidecar, client_of(sidecar) as client:
            assert client.results().results == before

    def test_can_be_served_beside_the_original_if_it_is_restored_as_a_copy(
        self, run: Run, serving: Serving, tmp_path: Path
    ) -> None:
        fill(serving, 1)
        with serving() as sidecar, client_of(sidecar) as client:
            run("backup", str(tmp_path / "it.tar.gz"))
            run("restore", str(tmp_path / "it.tar.gz"), "--storage", str(tmp_path / "new"))
            with pytest.raises(StorageInUse, match="restore --copy"), serving("new"):
                pass
            run("restore", str(tmp_path / "it.tar.gz"), "--storage", str(tmp_path / "copy"), "--copy")
            with serving("copy") as beside, client_of(beside) as another:
                assert another.results().results == client.results().results

    def test_is_for_its_owners_eyes_and_holds_no_secret(self, run: Run, serving: Serving, tmp_path: Path) -> None:
        fill(serving, 1)
        file = tmp_path / "it.tar.gz"
        run("backup", str(file))
        assert file.stat().st_mode & 0o077 == 0
        run("restore", str(file), "--storage", str(tmp_path / "new"))
        assert not (tmp_path / "new" / "secret").exists()

    def test_replaces_no_file_and_no_storage(self, run: Run, serving: Serving, tmp_path: Path) -> None:
        fill(serving, 1)
        file = tmp_path / "it.tar.gz"
        run("backup", str(file))
        assert "is there already" in run("backup", str(file), code=1).stderr
        assert "holds journals already" in run("restore", str(file), code=1).stderr

    def test_of_a_damaged_storage_says_that_it_is_no_use(self, run: Run, serving: Serving, tmp_path: Path) -> None:
        fill(serving)
        victim = damage(tmp_path / "storage" / "results")
        said = run("backup", str(tmp_path / "it.tar.gz"), code=1).stderr
        assert "this backup cannot be restored" in said
        assert victim.name in said
        assert (
            "damaged" in run("restore", str(tmp_path / "it.tar.gz"), "--storage", str(tmp_path / "new"), code=1).stderr
        )
        run("doctor", "--repair")
        run("backup", str(tmp_path / "another.tar.gz"))

    def test_that_is_not_whole_is_not_restored(self, run: Run, serving: Serving, tmp_path: Path) -> None:
        fill(serving)
        file = tmp_path / "it.tar.gz"
        run("backup", str(file))
        file.write_bytes(file.read_bytes()[:-20])
        assert "not a whole backup" in run("restore", str(file), "--storage", str(tmp_path / "new"), code=1).stderr
        assert not list((tmp_path / "new").rglob("*.jsonl"))


class TestProgress:
    def test_of_a_copy_its_way_back_and_a_check_rises_to_the_whole(self, serving: Serving, tmp_path: Path) -> None:
        fill(serving, count=200)
        storage, file = tmp_path / "storage", tmp_path / "backup.tar.gz"
        told: dict[str, list[tuple[int, int]]] = {"copy": [], "back": [], "check": []}
        back_up(storage, file, now=utc_now(), progress=lambda *so_far: told["copy"].append(so_far))
        restore(file, tmp_path / "restored", progress=lambda *so_far: told["back"].append(so_far))
        inspect(storage, progress=lambda *so_far: told["check"].append(so_far))
        assert len(told["check"]) > len(list(storage.rglob("*.jsonl")))
        for of in told.values():
            assert of == sorted(of)
            assert len({total for _, total in of}) == 1
            assert of[-1][0] == of[-1][1] > 0

    def test_is_a_bar_on_a_terminal_and_nothing_in_a_pipe(self, serving: Serving, tmp_path: Path) -> None:
        fill(serving)
        storage = ["--storage", str(tmp_path / "storage")]
        for arguments, what in (
            (["backup", str(tmp_path / "backup.tar.gz"), *storage], "copying"),
            (
                ["restore", str(tmp_path / "backup.tar.gz"), "--storage", str(tmp_path / "restored")],
                "copying and checking",
            ),
            (["doctor", *storage], "reading every record"),
        ):
            printed, shown = with_stderr_on_a_terminal(arguments, tmp_path)
            assert what in shown
            assert "100%" in shown
            assert what not in printed
        piped = subprocess.run(
            [*SIDECAR, "backup", str(tmp_path / "second.tar.gz"), *storage], capture_output=True, text=True, timeout=60
        )
        assert piped.stderr == ""
        assert piped.stdout.startswith(f"{tmp_path}/second.tar.gz: ")


def with_stderr_on_a_terminal(arguments: list[str], place: Path) -> tuple[str, str]:
    """What a command prints, and what it shows on the terminal that is its standard error."""
    leader, terminal = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "24"}
    with subprocess.Popen(
        [*SIDECAR, *arguments], cwd=place, env=env, text=True, stdout=subprocess.PIPE, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = ""
        with suppress(OSError):  # Linux: the other end is closed
            while data := os.read(leader, 65536):
                shown += data.decode(errors="replace")
        os.close(leader)
        assert process.stdout is not None
        return process.stdout.read(), shown
