"""However a process is started, by one call of the C library or by `subprocess`, it finds itself in the same world."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.http.access.minting import mint_operator_token
from sidecar.http.client.client import Client
from sidecar.state.errors import SpawnFailed
from sidecar.supervision import known_state, quick_start
from sidecar.supervision.known_state import allow_many_descriptors
from sidecar.supervision.launch import Launch
from sidecar.supervision.process import LogFiles, Prepared, StartedProcess
from sidecar.supervision.process_exit import reap
from tests.fleet import wait_until

# Everything a program can see of how it was started.
LOOKS = r"""
import json, os, resource, signal, sys
print(json.dumps({
    "argv": sys.argv[1:],
    "cwd": os.getcwd(),
    "env": {name: value for name, value in os.environ.items() if name.startswith("X_")},
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
    "input": os.readlink("/proc/self/fd/0"),
    "leads_session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "ignored": next(line for line in open("/proc/self/status") if line.startswith("SigIgn")).split()[1],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "oom": open("/proc/self/oom_score_adj").read().strip(),
}))
sys.stderr.write("said on stderr")
"""

both_ways = pytest.mark.usefixtures("way")


@pytest.fixture(params=["quick", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "long":
        monkeypatch.setattr(quick_start, "IS_POSSIBLE", False)


@contextmanager
def started(directory: Path, launch: Launch) -> Iterator[StartedProcess]:
    logs = LogFiles(directory / "out", directory / "err")
    try:
        running = Prepared(launch, logs).start()
    finally:
        logs.close()
    yield running
    wait_until(lambda: reap(running.identity.pid), what="its end")
    os.close(running.pidfd or 0)


def launch(directory: Path, *command: str, **env: str) -> Launch:
    return Launch(argv=command, env={"PATH": os.environ["PATH"], **env}, cwd=str(directory))


def what_it_sees(directory: Path, *arguments: str, **env: str) -> dict[str, Any]:
    with started(directory, launch(directory, sys.executable, "-c", LOOKS, *arguments, **env)):
        pass
    assert (directory / "err").read_text() == "said on stderr"
    seen: dict[str, Any] = json.loads((directory / "out").read_text())
    return seen


def ignored_here() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("SigIgn")).split()[1], 16)


@both_ways
def test_a_process_finds_what_its_launch_says_and_nothing_else(tmp_path: Path) -> None:
    inherited = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        seen = what_it_sees(tmp_path, "two words", "ünï {task}\n", X_TEXT="a=b\nc", X_EMPTY="", X_ODD="\udcff")
    finally:
        os.close(inherited)
    assert seen["argv"] == ["two words", "ünï {task}\n"]
    assert seen["env"] == {"X_TEXT": "a=b\nc", "X_EMPTY": "", "X_ODD": "\udcff"}
    assert seen["cwd"] == str(tmp_path)
    assert (seen["descriptors"], seen["input"]) == ([0, 1, 2], "/dev/null")
    assert seen["leads_session"]
    assert seen["blocked"] == []
    glibc_ignores = {32, 33}  # its own, in whatever it spawns; a program that has threads handles them
    # As what starts it: nohup ignores SIGHUP. SIGPIPE and SIGXFSZ are ignored by Python, here and there.
    may_ignore = ignored_here() | sum(1 << number - 1 for number in glibc_ignores)
    assert int(seen["ignored"], 16) & ~may_ignore == 0
    assert seen["oom"] == "500"


@both_ways
def test_a_closed_pipe_ends_a_shell_as_it_would_in_a_terminal(tmp_path: Path) -> None:
    """Python ignores SIGPIPE; a program that inherits that writes into closed pipes for ever."""
    command = launch(tmp_path, "sh", "-c", "trap '' HUP; grep SigIgn /proc/$$/status")
    with started(tmp_path, command):
        pass
    ignored = int((tmp_path / "out").read_text().split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@both_ways
def test_a_process_gets_the_limit_of_descriptors_that_the_sidecar_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = (256, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, low)
    monkeypatch.setattr(known_state, "_at_start", low)
    monkeypatch.setattr(known_state, "_raised", None)
    try:
        allow_many_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
        assert what_it_sees(tmp_path)["files"] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@both_ways
@pytest.mark.parametrize(
    ("first_line", "named"),
    [
        (b"#!/bin/sh\r\n", r"names the interpreter '/bin/sh\\r', which is missing"),
        (b"#! /no/such/interpreter -x\n", "names the interpreter '/no/such/interpreter'"),
    ],
)
@pytest.mark.parametrize("command", ["./script", "script"])
def test_a_script_whose_interpreter_is_missing_is_said_to_be_that(
    tmp_path: Path, first_line: bytes, named: str, command: str
) -> None:
    script = tmp_path / "script"
    script.write_bytes(first_line + b"echo hi\n")
    script.chmod(0o755)
    with pytest.raises(SpawnFailed, match=named), started(tmp_path, launch(tmp_path, command, PATH=str(tmp_path))):
        pass


@both_ways
@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("/no/such/program",), "program cannot be run"),
        (("no-such-program",), "no-such-program"),
        (("./no-such-program",), "./no-such-program"),
        (("./a-text",), "./a-text"),
        (("/",), "/"),
        (("./no-format",), "./no-format"),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path: Path, command: tuple[str, ...], named: str) -> None:
    (tmp_path / "a-text").write_text("no program")
    (tmp_path / "no-format").write_text("no program")
    (tmp_path / "no-format").chmod(0o755)
    with pytest.raises(SpawnFailed, match="cannot be run") as refused, started(tmp_path, launch(tmp_path, *command)):
        pass
    assert named in refused.value.message
    assert "/no/such" not in refused.value.message  # agents read it, and are not to learn where things lie


@both_ways
def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = Launch(argv=("true",), env=dict(os.environ), cwd=str(tmp_path / "gone"))
    with pytest.raises(SpawnFailed, match="folder gone cannot be entered") as refused, started(tmp_path, gone):
        pass
    assert str(tmp_path) not in refused.value.message


def test_a_user_that_the_sidecar_may_not_switch_to_is_named(tmp_path: Path) -> None:
    other = Launch(argv=("true",), env={"PATH": os.environ["PATH"]}, cwd="/", user="daemon")
    logs = LogFiles(tmp_path / "out", tmp_path / "err")
    prepared, uid = Prepared(other, logs), os.geteuid()
    try:
        if uid == 0:
            os.seteuid(pwd.getpwnam("nobody").pw_uid)
        with pytest.raises(SpawnFailed, match="the sidecar may not switch to user daemon"):
            prepared.start()
    finally:
        os.seteuid(uid)
        logs.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch to another user")
def test_what_another_user_may_not_run_is_named(tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    other = Launch(argv=(str(program),), env={"PATH": os.environ["PATH"]}, cwd="/", user="nobody")
    with pytest.raises(SpawnFailed, match="mine cannot be run: Permission denied"), started(tmp_path, other):
        pass


@both_ways
def test_a_command_is_found_by_the_path_it_will_have(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "mine"
        program.write_text(f"#!/bin/sh\necho {folder}\n")
        program.chmod(0o755)
    (tmp_path / "first/mine").chmod(0o644)  # there, but no program
    with started(tmp_path, launch(tmp_path, "mine", PATH=f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second")):
        pass
    with started(tmp_path, launch(tmp_path, "mine", PATH="none:second")):  # seen from its own folder
        pass
    with started(tmp_path, launch(tmp_path, "second/mine")):
        pass
    assert (tmp_path / "out").read_text().split() == ["second"] * 3


def test_what_cannot_be_watched_for_want_of_descriptors_does_not_run(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path / "out", tmp_path / "err")
    prepared = Prepared(launch(tmp_path, "sleep", "600"), logs)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    while not taken or taken[-1] < highest:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, before[1]))
    try:
        with pytest.raises(SpawnFailed, match="cannot be watched: Too many open files"):
            prepared.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        logs.close()
        for descriptor in taken:
            os.close(descriptor)
    assert not [child for child in psutil.Process().children() if child.name() == "sleep"]


def test_the_quick_way_is_taken_where_it_can_be(tmp_path: Path) -> None:
    """Or nothing of the above says anything of it."""
    where = {"stdin": 10, "stdout": 11, "stderr": 12}
    assert quick_start.prepare(launch(tmp_path, "true"), **where) is not None
    assert quick_start.prepare(launch(tmp_path, "true", X="a\0b"), **where) is None
    assert quick_start.prepare(launch(tmp_path, "true"), stdin=0, stdout=11, stderr=12) is None
    assert quick_start.prepare(Launch(argv=("true",), env={}, cwd="/", user="nobody"), **where) is None


SERVE = """
import os, sys
from pathlib import Path
from sidecar.http.config import Flags, load
from sidecar.http.serve import serve
here = Path(sys.argv[1])
raise SystemExit(serve(load(Flags(port=0, storage=here / "storage", project_root=here), {}, working_dir=here)))
"""


def test_a_server_that_raised_its_own_limit_does_not_raise_its_agents(tmp_path: Path) -> None:
    """Programs that use select() break when a descriptor is beyond 1023."""
    # It has its limit some milliseconds after its start, more on a busy machine.
    command = """['sh', '-c', 'until [ "$(ulimit -Sn)" = 512 ]; do sleep 0.01; done; touch limit']"""
    (tmp_path / "sidecar.toml").write_text(f"[profiles.looks]\ncommand = {command}\n")
    started = ["sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh", sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            token = mint_operator_token(tmp_path / "storage", {}).text
            with Client(url, token) as client:
                client.spawn("looks", "issue-1")
            wait_until(lambda: (tmp_path / "limit").exists(), what="the agent's own limit is 512")
            limits = Path(f"/proc/{server.pid}/limits").read_text()
            own = next(line for line in limits.splitlines() if line.startswith("Max open files"))
            assert int(own.split()[3]) > 512
        finally:
            server.terminate()
