"""Served: `serve` in a process of its own, to be sent signals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from sidecar.http.access.minting import mint_operator_token

START = """
import os, sys
from pathlib import Path
from sidecar.http.config import Flags, load
from sidecar.http.serve import serve
flags = Flags(port=0, storage=Path(sys.argv[1]), project_root=Path(sys.argv[2]))
raise SystemExit(serve(load(flags, os.environ, working_dir=Path(sys.argv[2]))))
"""


_started: list[subprocess.Popen[str]] = []


def end_what_is_left() -> None:
    """End every server that a test has left running, as a test that fails does."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)


class Served:
    """`serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, storage: Path) -> None:
        self.process = process
        self.url = url
        self.storage = storage
        token = mint_operator_token(storage, {}).text
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, verify=False)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Exit code, and how long it took from the signal on."""
        started = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        return code, time.monotonic() - started


def start_served(storage: Path, project: Path, log: Path, *, before: str = "") -> Served:
    """Once it listens, on a free port. before: Python that is run in it first."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + START, str(storage), str(project)],
        stdout=subprocess.PIPE,
        stderr=log.open("a"),
        text=True,
    )
    _started.append(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert match, (line, log.read_text())
    return Served(process, match[0], storage)
