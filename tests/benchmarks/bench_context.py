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
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sidecar.actors.asking import ask
from sidecar.actors.context.build import build
from sidecar.actors.context.fragments import FragmentCache
from sidecar.actors.context.index_client import IndexClient
from sidecar.actors.context.project import Project
from sidecar.actors.messages import BuildContext
from sidecar.state.models import AgentId
from sidecar.state.projects import Projects
from tests.benchmarks.context_quality import judge, report
from tests.context_world import contexts, order, repository

QUERIES = "CONTEXT_QUERIES"  # names the file of queries where no argument does
_BODY = "".join(f"def step_{n}(value):\n    # Adds {n} to it.\n    return value + {n}\n\n\n" for n in range(40))
_CAP = 10 * 1024 * 1024


def run(quick: bool) -> None:
    """Speed on generated projects of 200 and 5,000 files (quick: 200 alone)."""
    with tempfile.TemporaryDirectory() as scratch:
        for files in (200,) if quick else (200, 5000):
            root = repository(Path(scratch) / f"files-{files}", _generated(files))
            _speed(root, rounds=3 if quick else 7)


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


def _speed(root: Path, *, rounds: int) -> None:
    packed = {"sidecar, cold": _cold, **_peers()}
    took: dict[str, list[float]] = {name: [] for name in packed}
    for _ in range(rounds):
        for name, act in packed.items():
            took[name].append(act(root))
    table = Table(title=f"{root.name}: everything up to 10 MiB, median of {rounds}")
    for column in ("", "ms", "ratio to files-to-prompt"):
        table.add_column(column, justify="left" if column == "" else "right")
    middle = {name: statistics.median(times) for name, times in took.items()}
    peer = middle.get("files-to-prompt")
    for name, ms in middle.items():
        table.add_row(name, f"{ms:,.1f}", f"{ms / peer:.3f}" if peer else "")
    console = Console()
    console.print(table)
    _warm(root, console, rounds * 40)


def _cold(root: Path) -> float:
    """Milliseconds of a first request: git, files, packing. The index is told, and warms beside whatever comes next."""
    index = IndexClient()
    before = time.perf_counter()
    project = Project(root, FragmentCache(64 << 20), max_file_bytes=1 << 20, exclude=(), watches=False)
    build(order("chief-architect", "step 7 adds too much", max_bytes=_CAP), project, index, None)
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


def _warm(root: Path, console: Console, rounds: int) -> None:
    """Repeated requests to a running ContextBuilder, without HTTP; and while another file is written all the time."""
    with contexts(Projects(root)) as builder:

        def once(query: str, max_bytes: int) -> float:
            request = BuildContext(
                issue_id="bench",
                agent_type="python-specialist",
                agent_id=AgentId("bench"),
                project_id="default",
                query=query,
                max_bytes=max_bytes,
            )
            before = time.perf_counter()
            ask(builder.handle, request, timeout_s=60)
            return (time.perf_counter() - before) * 1000

        started = time.monotonic()
        while builder.answer(max_bytes=65_536)["index"] != "ready":
            if time.monotonic() - started > 60:
                console.print("the index was not ready within 60 s")
                return
        ready_s = time.monotonic() - started
        table = Table(title=f"{root.name}, warm, {rounds} requests, without HTTP; index ready after {ready_s:.1f} s")
        for column in ("", "median ms", "p99 ms"):
            table.add_column(column, justify="left" if column == "" else "right")
        for name, max_bytes in (("128 KiB", 131_072), ("10 MiB", _CAP)):
            once("step 7 adds too much", max_bytes)
            times = [once("step 7 adds too much", max_bytes) for _ in range(rounds)]
            table.add_row(f"same task, {name}", *_shown(times))
        times = [once(f"step {n} adds too much", 131_072) for n in range(min(rounds, 40))]
        table.add_row("a new task each time, 128 KiB", *_shown(times))
        times = []
        for n in range(min(rounds, 40)):
            (root / "src" / "area_1" / "part_1.py").write_text(f"# {n}\n{_BODY}")
            times.append(once("step 7 adds too much", 131_072))
        table.add_row("same task, a file written before each", *_shown(times))
        console.print(table)
    subprocess.run(["git", "checkout", "-q", "."], cwd=root, check=True)


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
