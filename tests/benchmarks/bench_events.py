"""Events beside nchan, and FastAPI and Starlette on uvicorn (uvloop, httptools): publish, wake, fan-out, parked.

Servers are processes of their own and take turns within each round, so that noise of the machine hits all; medians
over the rounds are compared. The load comes from one further process. The sidecar does all it does in production:
journal, tokens, limits, mailboxes, receipts; the peers verify the same tokens and keep events in memory.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from sidecar.http.access.minting import mint_agent_token
from sidecar.http.storage import prepare
from tests.benchmarks.nchan_peer import is_installed, nchan

HERE = Path(__file__).parent
PEERS_VENV = HERE.parent.parent / "build" / "event-peers"
PEERS_NEED = ("fastapi>=0.110", "starlette", "uvicorn[standard]", "PyJWT")
SECRET = "a secret of the benchmark, of more than 32 bytes"
BODY = json.dumps({"data": {"issue_id": "issue-1", "status": "success", "number": 1, "text": "x" * 240}})
START_S = 20.0

Numbers = dict[str, float]


class Load:
    """The process that makes the load; one job at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "http_load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, job: str, **arguments: Any) -> Numbers:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load process ended during {job}")
        numbers: Numbers = json.loads(line)
        return numbers

    def close(self) -> None:
        self._process.communicate(timeout=START_S)


class Peer:
    """A server under load, and the requests that agents send to it."""

    def __init__(self, name: str, process: subprocess.Popen[Any], port: int, tokens: list[str]) -> None:
        self.name = name
        self.process = process
        self.port = port
        self.tokens = tokens

    def request(self, method: str, path: str, agent: int = 0, body: str = "") -> str:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"Authorization: Bearer {self.tokens[agent]}"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines) + "\r\n\r\n" + body

    def event(self, event_type: str) -> str:
        return self.request("POST", f"/api/events/{event_type}", body=BODY)

    def wait(self, event_type: str, agent: int = 0) -> str:
        return self.request("GET", f"/api/events/wait/{event_type}?timeout=300000", agent)

    def crowd(self, event_type: str, count: int) -> list[str]:
        """What that many agents send to wait, and the publish that wakes them."""
        return [*(self.wait(event_type, agent) for agent in range(count)), self.event(event_type)]

    def rss_mb(self) -> float:
        """Of the server and its own processes."""
        server = psutil.Process(self.process.pid)
        return float(sum(process.memory_info().rss for process in (server, *server.children())) / 1e6)


@contextmanager
def started(name: str, argv: list[str], tokens: list[str], **environ: str) -> Iterator[Peer]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ})
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        port = json.loads(line)["port"] if line.startswith("{") else int(line.rsplit(":", 1)[1])
        yield Peer(name, process, port, tokens)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def peers_python() -> Path:
    python = PEERS_VENV / "bin" / "python"
    if not (PEERS_VENV / "ready").exists():
        venv.create(PEERS_VENV, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS_NEED]
        subprocess.run(install, check=True)
        (PEERS_VENV / "ready").touch()
    return python


@contextmanager
def sidecar(agents: int) -> Iterator[Peer]:
    """The sidecar as its command starts it, and the tokens of that many agents without a rate limit."""
    with tempfile.TemporaryDirectory(prefix="bench-events-") as directory:
        storage, project = Path(directory) / "storage", Path(directory) / "project"
        project.mkdir()
        prepare(storage)
        environ = {"SIDECAR_JWT_SECRET": SECRET}
        tokens = [
            mint_agent_token(storage, environ, agent_id=f"agent-{n}", agent_type="chief-architect").text
            for n in range(agents)
        ]
        argv = [sys.executable, "-c", "from sidecar.http.cli.main import main; main()", "serve", "--port", "0"]
        argv += ["--storage", str(storage), "--project-root", str(project), "--log-level", "error"]
        with started("sidecar", argv, tokens, **environ) as peer:
            yield peer


@contextmanager
def servers(agents: int) -> Iterator[list[Peer]]:
    python, peers = str(peers_python()), str(HERE / "event_peers.py")
    with ExitStack() as stack:
        ours = stack.enter_context(sidecar(agents))
        everyone = [
            ours,
            stack.enter_context(started("FastAPI", [python, peers, "fastapi", SECRET], ours.tokens)),
            stack.enter_context(started("Starlette", [python, peers, "starlette", SECRET], ours.tokens)),
        ]
        if is_installed():
            everyone.append(Peer("nchan", *stack.enter_context(nchan()), ours.tokens))
        yield everyone


Measure = Callable[[Peer], Numbers]


def in_turns(peers: list[Peer], measure: Measure, rounds: int) -> dict[str, Numbers]:
    """The median of each number over the rounds, by peer."""
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for peer in peers:
            for number, value in measure(peer).items():
                seen[peer.name][number].append(value)
    return {name: {key: statistics.median(values) for key, values in of.items()} for name, of in seen.items()}


def show(console: Console, title: str, results: dict[str, Numbers], columns: dict[str, str], main: str) -> None:
    """columns: heading by number. main: the number whose ratio to FastAPI is shown."""
    table = Table(title=title, title_justify="left")
    for heading in ("", *columns.values(), "to FastAPI"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, numbers in results.items():
        ratio = f"{numbers[main] / results['FastAPI'][main]:.2f}"
        table.add_row(name, *(f"{numbers[key]:,.4g}" for key in columns), ratio)
    console.print(table)


def settle_s(crowd: int) -> float:
    """Time enough for every server to have read so many requests, on a busy machine too."""
    return 0.5 + crowd / 1_000


class Trial:
    """How long and how often each thing is measured."""

    def __init__(self, quick: bool) -> None:
        self.console = Console()
        self.load = Load()
        self.rounds, self.seconds, self.samples = (1, 0.5, 20) if quick else (5, 2.0, 150)
        self.crowd_rounds = 1 if quick else 3
        self.crowds = (100,) if quick else (100, 1_000)
        self.parked = (200,) if quick else (1_000, 5_000, 10_000)

    def publish(self, peer: Peer, connections: int) -> Numbers:
        requests = [peer.event("news")]
        return self.load("publish", port=peer.port, requests=requests, connections=connections, seconds=self.seconds)

    def wake(self, peer: Peer) -> Numbers:
        requests = [peer.wait("woken"), peer.event("woken")]
        return self.load("wake", port=peer.port, requests=requests, samples=self.samples, settle_s=0.003)

    def fan_out(self, peer: Peer, crowd: int) -> Numbers:
        requests = peer.crowd(f"all-{crowd}", crowd)
        return self.load("fan_out", port=peer.port, requests=requests, rounds=5, settle_s=settle_s(crowd))

    def park(self, crowd: int) -> dict[str, Numbers]:
        """Memory and publishing while a crowd waits. Fresh servers, so that the memory is the crowd's."""
        results: dict[str, Numbers] = {}
        with servers(crowd) as peers:
            alone = in_turns(peers, partial(self.publish, connections=16), self.crowd_rounds)
            for peer in peers:  # one crowd at a time: both ends' descriptors count
                before = peer.rss_mb()
                self.load("park", port=peer.port, requests=peer.crowd("parked", crowd), settle_s=settle_s(crowd))
                rss = peer.rss_mb()
                while_parked = in_turns([peer], partial(self.publish, connections=16), self.crowd_rounds)
                kept = while_parked[peer.name]["per_s"] / alone[peer.name]["per_s"]
                results[peer.name] = {"rss": rss, "more": rss - before, "kept": kept, **self.load("unpark")}
        return results


LATENCY = {"p50_us": "p50 µs", "p99_us": "p99 µs"}


def run(quick: bool) -> None:
    trial = Trial(quick)
    console = trial.console
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {trial.rounds} rounds")
    with servers(max(trial.crowds)) as peers:
        for connections in (1, 16, 64):
            results = in_turns(peers, partial(trial.publish, connections=connections), trial.rounds)
            show(console, f"publish, {connections} connections", results, {"per_s": "events/s", **LATENCY}, "per_s")
        show(
            console,
            "publish sent until the waiter has it",
            in_turns(peers, trial.wake, trial.rounds),
            LATENCY,
            "p50_us",
        )
        for crowd in trial.crowds:
            results = in_turns(peers, partial(trial.fan_out, crowd=crowd), trial.crowd_rounds)
            show(console, f"one publish until the last of {crowd:,} waiters has it", results, {"ms": "ms"}, "ms")
    for crowd in trial.parked:
        columns = {"rss": "RSS MB", "more": "of it for them", "kept": "publishes kept", "ms": "all woken ms"}
        show(console, f"{crowd:,} waiters parked", trial.park(crowd), columns, "rss")
    trial.load.close()
