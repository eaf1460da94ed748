"""Contexts: how fast they are built beside packers that send everything, and how much of what matters is in them.

Speed is measured on a generated project, every peer on the same files in the same run; ratios are what counts.
Quality needs clones of public repositories and a file of queries: see `context_quality`.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table

from sidecar.actors.context.build import build
from sidecar.actors.context.fragments import FragmentCache
from sidecar.actors.context.index.client import IndexClient
from sidecar.actors.context.project import Project
from sidecar.http.access.minting import mint_agent_token
from sidecar.http.storage import prepare
from tests.benchmarks.bench_events import started
from tests.benchmarks.context_quality import judge, report
from tests.context_world import commit, order, repository

QUERIES = "CONTEXT_QUERIES"  # names the file of queries where no argument does
_BODY = "".join(f"def step_{n}(value):\n    # Adds {n} to it.\n    return value + {n}\n\n\n" for n in range(40))
_CAP = 10 * 1024 * 1024
_IGNORED = (
    "__pycache__/\n*.py[cod]\n*.so\nbuild/\ndist/\n*.egg-info/\n.venv/\n.env\n.coverage\nhtmlcov/\n.idea/\n*.log\n"
)
_TASK = "step 7 adds too much"


def run(quick: bool) -> None:
    """Speed on generated projects of 200 and 5,000 files (quick: 200 alone)."""
    rounds = 3 if quick else 7
    with tempfile.TemporaryDirectory() as scratch:
        for files in (200,) if quick else (200, 5000):
            root = repository(Path(scratch) / f"files-{files}", _generated(files))
            # Packers match every path with every pattern; where there is none, they only read and write.
            _speed(root, f"{files:,} files, no .gitignore", rounds=rounds)
            commit(root, {".gitignore": _IGNORED}, "Ignore what is made")
            _speed(root, f"{files:,} files", rounds=rounds)
            _warm(root, Console(), rounds * 60)


def main(repos: str | Path, queries: str | Path | None = None, *, every: int = 1) -> None:
    """Quality on the clones under `repos`. queries: as `context_quality` reads them, else $CONTEXT_QUERIES."""
    path = queries or os.environ.get(QUERIES)
    if not path:
        raise SystemExit(f"name a file of queries, or set {QUERIES}; docs/context.md says what is in it")
    with tempfile.TemporaryDirectory() as scratch:
        found = judge(Path(repos), Path(path), Path(scratch), every=every)
    if not found:
        raise SystemExit(f"no clone of a repository of {path} is under {repos}")
    report(found)


def _generated(files: int) -> dict[str, str]:
    return {f"src/area_{n % 50}/part_{n}.py": f'"""Part {n}."""\n\n\n{_BODY}' for n in range(files)}


def _speed(root: Path, title: str, *, rounds: int) -> None:
    packed = {"sidecar, cold": _cold, **_peers()}
    took: dict[str, list[float]] = {name: [] for name in packed}
    for _ in range(rounds):
        for name, act in packed.items():
            took[name].append(act(root))
    table = Table(title=f"{title}: everything up to 10 MiB, median of {rounds}")
    for column in ("", "ms", "ratio to files-to-prompt"):
        table.add_column(column, justify="left" if column == "" else "right")
    middle = {name: statistics.median(times) for name, times in took.items()}
    peer = middle.get("files-to-prompt")
    for name, ms in middle.items():
        table.add_row(name, f"{ms:,.1f}", f"{ms / peer:.3f}" if peer else "")
    Console().print(table)


def _cold(root: Path) -> float:
    """Milliseconds of a first request: git, files, packing. The index is told, and warms beside whatever comes next."""
    index = IndexClient()
    before = time.perf_counter()
    project = Project(root, FragmentCache(64 << 20), max_file_bytes=1 << 20, exclude=(), watches=False)
    build(order("chief-architect", _TASK, max_bytes=_CAP), project, index, None)
    took = (time.perf_counter() - before) * 1000
    index.close()
    return took


def _peers() -> dict[str, Callable[[Path], float]]:
    """Packers that are installed, in process, writing to memory; milliseconds."""
    found: dict[str, Callable[[Path], None]] = {}
    if importlib.util.find_spec("files_to_prompt") is not None:
        from files_to_prompt import cli

        def files_to_prompt(root: Path) -> None:
            out = io.StringIO()
            cli.global_index = 1
            rules = cli.read_gitignore(str(root))
            with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
                cli.process_path(str(root), (), False, False, False, rules, (), out.write, False, False)

        found["files-to-prompt"] = files_to_prompt
    if importlib.util.find_spec("gitingest") is not None:
        from gitingest import ingest

        def gitingest(root: Path) -> None:
            ingest(str(root))

        found["gitingest"] = gitingest
    return {name: _timed(act) for name, act in found.items()}


def _timed(act: Callable[[Path], None]) -> Callable[[Path], float]:
    def timed(root: Path) -> float:
        before = time.perf_counter()
        act(root)
        return (time.perf_counter() - before) * 1000

    return timed


class _Agent:
    """An agent without a rate limit, of a sidecar that is a process of its own and serves one project."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._answer = bytearray(_CAP + 4096)

    def get(self, query: str, max_bytes: int) -> tuple[float, bytes]:
        """Milliseconds from the first byte asked to the last one answered, and the answer."""
        path = "/api/context/bench/python-specialist?" + urlencode({"q": query, "max_bytes": max_bytes})
        before = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        view, length = memoryview(self._answer), 0
        while read := response.readinto(view[length:]):
            length += read
        took = (time.perf_counter() - before) * 1000
        answer = bytes(view[:length])
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer[:300]!r}")
        return took, answer


@contextmanager
def _served(root: Path) -> Iterator[_Agent]:
    with tempfile.TemporaryDirectory(prefix="bench-context-") as directory:
        storage = Path(directory) / "storage"
        prepare(storage)
        environ = {"SIDECAR_JWT_SECRET": "benchmark-" * 4}
        token = mint_agent_token(storage, environ, agent_id="bench", agent_type="chief-architect").text
        argv = [sys.executable, "-c", "from sidecar.http.cli.main import main; main()", "serve", "--port", "0"]
        argv += ["--storage", str(storage), "--project-root", str(root), "--log-level", "error"]
        with started("sidecar", argv, [token], **environ) as peer:
            yield _Agent(peer.port, token)


def _warm(root: Path, console: Console, rounds: int) -> None:
    """Requests to a running sidecar over HTTP, on one connection; and while another file is written all the time."""
    with _served(root) as agent:
        began = time.monotonic()
        first, _ = agent.get(_TASK, 131_072)
        while b'"index":"ready"' not in agent.get(_TASK, 8192)[1]:
            if time.monotonic() - began > 60:
                console.print("the index was not ready within 60 s")
                return
            time.sleep(0.05)  # an agent that asks all the time takes the second core from the index
        ready_s = time.monotonic() - began
        title = f"{root.name} over HTTP; the first request took {first:.0f} ms, index ready after {ready_s:.1f} s"
        table = Table(title=title)
        for column in ("", "median ms", "p99 ms", "KiB"):
            table.add_column(column, justify="left" if column == "" else "right")

        def add(name: str, ask: Callable[[int], tuple[float, bytes]], times: int) -> None:
            asked = [ask(n) for n in range(times)]
            table.add_row(name, *_shown([took for took, _ in asked]), f"{len(asked[-1][1]) // 1024:,}")

        def after_a_write(n: int) -> tuple[float, bytes]:
            written.write_text(f"# {n}\n{_BODY}")
            return agent.get(_TASK, 131_072)

        written = root / "src" / "area_1" / "part_1.py"
        for name, max_bytes in (("128 KiB", 131_072), ("10 MiB", _CAP)):
            agent.get(_TASK, max_bytes)
            add(f"same task, {name}", lambda _, max_bytes=max_bytes: agent.get(_TASK, max_bytes), rounds)  # type: ignore[misc]
        add("a new task each time, 128 KiB", lambda n: agent.get(f"step {n} adds too much", 131_072), rounds // 2)
        if written.exists():
            add("same task, a file written before each", after_a_write, rounds // 2)
            subprocess.run(["git", "checkout", "-q", "."], cwd=root, check=True)
        console.print(table)


def _shown(times: list[float]) -> tuple[str, str]:
    ordered = sorted(times)
    return f"{statistics.median(ordered):.2f}", f"{ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench-context", description=__doc__)
    parser.add_argument("repos", type=Path, help="a folder of clones, named like their repositories")
    parser.add_argument("queries", type=Path, nargs="?", help=f"JSON of queries; else ${QUERIES}")
    parser.add_argument("--every", type=int, default=1, help="every n-th query only")
    arguments = parser.parse_args()
    main(arguments.repos, arguments.queries, every=arguments.every)
