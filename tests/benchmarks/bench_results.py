"""Storing and finding results beside what else one would use: the same disk, the same actor, the same run.

Every peer takes its turn in each round, so that noise of the machine hits all; the medians are compared as ratios.
Writers are threads that ask an actor and wait, as the server's request threads do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sidecar.actors.results.compaction import PAUSE_S
from sidecar.actors.runtime.actor_supervisor import ActorHandle
from sidecar.actors.runtime.asking import ask
from sidecar.state.models import event_id
from tests.benchmarks.result_peers import BACKENDS, BODY, Put, Sidecar, StockTinyDB, load, peers, result

ASK_S = 30.0


def inserts_per_s(
    store: ActorHandle, writers: int, seconds: float, numbers: Iterator[int]
) -> tuple[float, list[float]]:
    """Acknowledged inserts per second of `writers` threads, and how long each took in seconds."""
    took: list[float] = []
    begin = threading.Barrier(writers + 1)
    end = 0.0

    def write() -> None:
        begin.wait()
        while (before := time.perf_counter()) < end:
            ask(store, Put(result(next(numbers))), timeout_s=ASK_S)
            took.append(time.perf_counter() - before)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    end = started + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    return len(took) / (time.perf_counter() - started), took


def raw_appends_per_s(directory: Path, seconds: float) -> float:
    """What the disk allows one writer: append 1.5 KB, fdatasync."""
    descriptor = os.open(directory / "raw", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        os.write(descriptor, BODY)
        os.fdatasync(descriptor)
        done += 1
    os.close(descriptor)
    return done / (time.perf_counter() - started)


def bench_inserts(directory: Path, documents: int, *, rounds: int, seconds: float) -> Table:
    table = Table(title=f"Durable inserts/s into {documents:,} results (median of {rounds}; ratio sidecar : peer)")
    for column in ("peer", "1 writer", "16 writers", "64 writers"):
        table.add_column(column, justify="right" if "writer" in column else "left")
    backends = dict(BACKENDS)
    if documents > 1000:
        del backends["file per result"]
    else:
        backends["stock TinyDB"] = StockTinyDB
    rates: dict[str, dict[int, list[float]]] = {}
    numbers = count(documents)
    with peers(directory, backends, documents) as running:
        for writers in (1, 16, 64):
            for _ in range(rounds):
                if writers == 1:
                    raw = raw_appends_per_s(directory, seconds)
                    rates.setdefault("raw append + fdatasync", {}).setdefault(1, []).append(raw)
                for peer in running:
                    if peer.name == "stock TinyDB" and writers > 1:
                        continue
                    rate, _ = inserts_per_s(peer.store, writers, seconds, numbers)
                    rates.setdefault(peer.name, {}).setdefault(writers, []).append(rate)
    for name, by_writers in rates.items():
        cells = []
        for writers in (1, 16, 64):
            if writers not in by_writers:
                cells.append("")
                continue
            # The ratio of each round, so that a noisy moment hits both of its sides.
            ratios = [
                ours / theirs for ours, theirs in zip(rates["sidecar"][writers], by_writers[writers], strict=True)
            ]
            cells.append(f"{statistics.median(by_writers[writers]):,.0f}  ({statistics.median(ratios):.2f})")
        table.add_row(name, *cells)
    return table


def bench_reads(directory: Path, documents: int, *, rounds: int) -> Table:
    table = Table(title=f"Reads among {documents:,} results, µs (median of {rounds} rounds of 200; ratio to sqlite)")
    for column in ("read", "sidecar", "sqlite", "ratio"):
        table.add_column(column, justify="left" if column == "read" else "right")
    backends = {name: BACKENDS[name] for name in ("sidecar", "sqlite FULL, grouped")}
    with peers(directory, backends, documents) as (ours, theirs):
        reads: dict[str, Callable[[Any, int], int]] = {
            "by issue, 10 results": lambda backend, n: backend.by_issue(f"issue-{n * 7919 % (documents // 10)}"),
            "newest 50": lambda backend, _: backend.newest(50),
        }
        for name, read in reads.items():
            took: dict[str, list[float]] = {"sidecar": [], "sqlite": []}
            for _ in range(rounds):
                for label, peer in (("sidecar", ours), ("sqlite", theirs)):
                    before = time.perf_counter()
                    for n in range(200):
                        assert read(peer.backend, n) >= 10
                    took[label].append((time.perf_counter() - before) / 200 * 1e6)
            ratio = statistics.median(mine / other for mine, other in zip(took["sidecar"], took["sqlite"], strict=True))
            mine, other = statistics.median(took["sidecar"]), statistics.median(took["sqlite"])
            table.add_row(name, f"{mine:.0f}", f"{other:.0f}", f"{ratio:.2f}")
    return table


OPEN_AND_WEIGH = """
import sys, time, psutil
from pathlib import Path
from sidecar.state.results.stored_results import StoredResults
me = psutil.Process()
before = me.memory_info().rss
started = time.perf_counter()
cpu = time.process_time()
results = StoredResults(Path(sys.argv[1]))
took, cpu = time.perf_counter() - started, time.process_time() - cpu
print(took, cpu, me.memory_info().rss - before, *results.count(None))
"""


def bench_opening(directory: Path, documents: int) -> Table:
    backend = Sidecar(directory)
    load(backend, map(result, range(documents)))
    for place in backend.results.unannounced():
        backend.results.mark_announced([(place, event_id(place))])
    backend.close()
    runs = []
    for _ in range(3):
        output = subprocess.run(
            [sys.executable, "-c", OPEN_AND_WEIGH, str(directory / "sidecar")],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout.split()
        runs.append([float(value) for value in output])
    seconds, cpu, memory, found, size = (statistics.median(run[place] for run in runs) for place in range(5))
    disk = sum(path.stat().st_size for path in (directory / "sidecar").glob("s*.jsonl"))
    table = Table(title=f"Opening {documents:,} results (a new process, median of 3)")
    for column in ("seconds", "of CPU", "memory/result", "of its JSON", "disk, of the JSON"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{seconds:.2f}", f"{cpu:.2f}", f"{memory / found:,.0f} B", f"{memory / size:.2f}", f"{disk / size:.2f}"
    )
    return table


def bench_compaction(directory: Path, documents: int, *, seconds: float) -> Table:
    """How much writers feel a compaction beside them: 16 of them, with and without."""
    table = Table(title=f"16 writers while {documents:,} results are compacted")
    for column in ("", "inserts/s", "p50 ms", "p99 ms", "longest ms"):
        table.add_column(column, justify="right")
    numbers = count(documents)
    with peers(directory, {"sidecar": Sidecar}, documents) as (peer,):
        for name in ("without", "with"):
            done = threading.Event()
            thread = None
            if name == "with":
                store = peer.backend.results.store
                compaction, records = store.begin_compaction()

                def compact(compaction: Any = compaction, records: Any = records, done: Any = done) -> None:
                    compaction.write(records, lambda: _pause(PAUSE_S))
                    done.set()

                thread = threading.Thread(target=compact)
                thread.start()
            rates, took = [], []
            while True:
                rate, each = inserts_per_s(peer.store, 16, seconds / 4, numbers)
                rates.append(rate)
                took += each
                if done.is_set() or (thread is None and len(rates) == 4):
                    break
            if thread is not None:
                thread.join()
            took.sort()
            at = [took[int(len(took) * part)] * 1000 for part in (0.5, 0.99)]
            table.add_row(name, f"{statistics.mean(rates):,.0f}", *(f"{ms:.1f}" for ms in at), f"{took[-1] * 1000:.0f}")
    return table


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def run(quick: bool) -> None:
    """Print the tables. quick: fewer rounds and 10,000 results instead of 100,000."""
    console = Console(width=110)
    many = 10_000 if quick else 100_000
    # Short turns, many of them: where others use the machine too, what is noise for one is noise for the next.
    rounds, seconds = (3, 0.2) if quick else (21, 0.15)
    scratch = Path(tempfile.mkdtemp(prefix="sidecar-bench-"))

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=scratch))

    try:
        for documents in (1_000, many):
            console.print(bench_inserts(fresh(), documents, rounds=rounds, seconds=seconds))
        console.print(bench_reads(fresh(), many, rounds=rounds))
        console.print(bench_opening(fresh(), many))
        console.print(bench_compaction(fresh(), many, seconds=1.6))
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    run("--quick" in sys.argv)
