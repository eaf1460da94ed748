"""Supervisors to compare with: each is given the same child, and is started, stopped and killed the same way."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path

from sidecar.http.access.minting import mint_operator_token
from tests.benchmarks.http_load import Connection

VENV = Path("build/.bench-venv")
CLIENTS = 4
FOREVER = {"max_restarts": 1_000_000, "restart_window_seconds": 1}


class Peer(ABC):
    """One supervisor with `count` children; `command` runs a child, which is told its number as its last argument."""

    name = ""

    def __init__(self, directory: Path, command: Path, count: int, environ: dict[str, str]) -> None:
        self.directory = directory
        self.command = command
        self.count = count
        self.environ = environ
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)
        self.configure()

    @staticmethod
    def is_here() -> bool:
        return True

    @abstractmethod
    def configure(self) -> None:
        """Write what it reads when it starts."""

    @abstractmethod
    def argv(self) -> list[str]: ...

    def start(self) -> None:
        """Launch it; its children come by and by."""
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self.argv(), cwd=self.directory, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> None:
        """As its manual says; returns when it has ended."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Ours(Peer):
    """The whole sidecar with HTTP, bus, storage and sampling, as a user has installed it.

    Its agents are no part of its settings: they are spawned over HTTP, as soon as it says that it listens, by four
    clients at once.
    """

    name = "sidecar"
    has_spawned = False

    @staticmethod
    def is_here() -> bool:
        return has_venv() and has_ours()

    def configure(self) -> None:
        options = "".join(f"{name} = {value}\n" for name, value in FOREVER.items())
        (self.directory / "sidecar.toml").write_text(
            f"[agents]\nmax_concurrent = 1000\nspawn_burst = 1000\n"
            f"[profiles.child]\ncommand = ['{self.command}', '{{task}}']\nrestart = 'always'\n{options}",
            encoding="utf-8",
        )
        self.environ = {name: value for name, value in self.environ.items() if name != "PYTHONPATH"}
        self._token = mint_operator_token(self.directory / "storage", {}).text

    def argv(self) -> list[str]:
        where = ["--storage", "storage", "--project-root", ".", "--config", "sidecar.toml", "--port", "0"]
        return [str(VENV.absolute() / "bin/sidecar"), "serve", *where]

    def start(self) -> None:
        before = self._log_size()
        super().start()
        port = int(self._url(before).rpartition(":")[2])
        if not self.has_spawned:
            self.has_spawned = True
            spawn_over_http(port, self._token, self.count)

    def _log_size(self) -> int:
        log = self.directory / "log"
        return log.stat().st_size if log.exists() else 0

    def _url(self, since: int) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for word in (self.directory / "log").read_bytes()[since:].decode(errors="replace").split():
                if word.startswith("http://"):
                    return word.strip().rstrip(".,")
            time.sleep(0.001)
        raise RuntimeError(f"the sidecar did not say where it listens; see {self.directory / 'log'}")


def spawn_over_http(port: int, token: str, count: int) -> None:
    """Each of the clients asks for one agent after the other. Raw sockets: what is measured is the sidecar."""
    numbers = iter(range(count))
    with select.epoll() as ready:
        clients = {client.sock.fileno(): client for client in (Connection(port) for _ in range(min(CLIENTS, count)))}
        for fd, client in clients.items():
            ready.register(fd, select.EPOLLIN)
            client.ask(_spawn_request(port, token, next(numbers)))
        while clients:
            for fd, _ in ready.poll(30.0):
                client = clients[fd]
                if client.has_answer():
                    if (number := next(numbers, None)) is None:
                        del clients[fd]
                        ready.unregister(fd)
                        client.sock.close()
                    else:
                        client.ask(_spawn_request(port, token, number))


def _spawn_request(port: int, token: str, number: int) -> bytes:
    body = f'{{"agent_type": "child", "issue_id": "bench", "task": "{number}"}}'
    head = f"POST /api/agents/spawn HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Supervisord(Peer):
    name = "supervisord"

    @staticmethod
    def is_here() -> bool:
        return has_venv()

    def configure(self) -> None:
        (self.directory / "conf").write_text(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=supervisord.pid\n"
            f"[program:child]\ncommand={self.command} %(process_num)d\nprocess_name=%(process_num)d\n"
            f"numprocs={self.count}\nautorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n",
            encoding="utf-8",
        )

    def argv(self) -> list[str]:
        return [str(VENV.absolute() / "bin/supervisord"), "-c", "conf"]


class Circus(Peer):
    name = "circus"

    @staticmethod
    def is_here() -> bool:
        return has_venv()

    def configure(self) -> None:
        sockets = "".join(
            f"{name} = ipc://{self.directory}/{name}\n" for name in ("endpoint", "pubsub_endpoint", "stats_endpoint")
        )
        (self.directory / "conf").write_text(
            f"[circus]\n{sockets}\n[watcher:child]\ncmd = {self.command}\nargs = $(circus.wid)\n"
            f"numprocesses = {self.count}\ncopy_env = true\n",
            encoding="utf-8",
        )

    def argv(self) -> list[str]:
        return [str(VENV.absolute() / "bin/circusd"), "conf"]


class Runit(Peer):
    name = "runit"

    @staticmethod
    def is_here() -> bool:
        return shutil.which("runsvdir") is not None

    def configure(self) -> None:
        for number in range(self.count):
            service = self.directory / "services" / str(number)
            service.mkdir(parents=True)
            run = service / "run"
            run.write_text(f"#!/bin/sh\nexec {self.command} {number}\n", encoding="utf-8")
            run.chmod(0o755)

    def argv(self) -> list[str]:
        return ["runsvdir", "-P", str(self.directory / "services")]

    def stop(self) -> None:
        self.send(signal.SIGHUP)


class S6(Runit):
    name = "s6"

    @staticmethod
    def is_here() -> bool:
        return shutil.which("s6-svscan") is not None

    def argv(self) -> list[str]:
        return ["s6-svscan", str(self.directory / "services")]

    def stop(self) -> None:
        self.send(signal.SIGTERM)


class Pm2(Peer):
    """Its daemon leaves the process that starts it."""

    name = "pm2"

    @staticmethod
    def is_here() -> bool:
        return shutil.which("pm2") is not None

    def configure(self) -> None:
        self.environ = {**self.environ, "PM2_HOME": str(self.directory / "home")}
        apps = ", ".join(
            f"{{name: '{n}', script: '{self.command}', args: '{n}', interpreter: 'none', max_restarts: 1000000}}"
            for n in range(self.count)
        )
        (self.directory / "ecosystem.config.js").write_text(f"module.exports = {{apps: [{apps}]}}", encoding="utf-8")

    def argv(self) -> list[str]:
        return ["pm2", "start", "ecosystem.config.js"]

    def stop(self) -> None:
        subprocess.run(["pm2", "kill"], env=self.environ, capture_output=True, check=False)

    def kill(self) -> None:
        os.kill(int((self.directory / "home/pm2.pid").read_text()), signal.SIGKILL)


PEERS: tuple[type[Peer], ...] = (Ours, Runit, S6, Supervisord, Circus, Pm2)


@cache
def has_venv() -> bool:
    """Whether supervisord and circus are there; they are installed on first use."""
    if not (VENV / "done").exists():
        VENV.parent.mkdir(exist_ok=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
            _install("supervisor", "circus", "setuptools<81", ".")
        except subprocess.CalledProcessError:
            return False
        (VENV / "done").touch()
    return True


@cache
def has_ours() -> bool:
    """Whether the sidecar could be installed as it is now, compiled and without what only its development needs."""
    try:
        _install(".")  # whatever it needs that is not there yet
        _install("--no-deps", "--force-reinstall", ".")
    except subprocess.CalledProcessError:
        return False
    return True


def _install(*what: str) -> None:
    try:
        subprocess.run([VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", *what], check=True)
    finally:
        shutil.rmtree("build/lib", ignore_errors=True)  # a file that was deleted would be packed from here
