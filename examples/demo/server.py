"""A sidecar as a process of its own, as `sidecar serve` starts it; its output goes to a file next to its storage."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from sidecar.state.errors import SidecarError

LISTENS_WITHIN_S = 20.0
ENDS_WITHIN_S = 15.0
_URL = re.compile(r"https?://[^\s/]+:\d+")


class NotListening(SidecarError):
    """The server of the demo does not listen, or ended at once."""

    code = "not_listening"


class ServerProcess:
    """A running `sidecar serve`. url: where it listens.

    It is a session of its own: a Ctrl-C in the terminal is the demo's to answer.
    """

    def __init__(self, *, storage: Path, project_root: Path, config: Path, log: Path, port: int = 0) -> None:
        self.storage = storage
        self.log = log
        argv = [sys.executable, "-m", "sidecar.http.cli.main", "serve", "--port", str(port)]
        argv += ["--storage", str(storage), "--project-root", str(project_root), "--config", str(config)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self.url = self._listening()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listening(self) -> str:
        deadline = time.monotonic() + LISTENS_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := _URL.search(self.log.read_text(errors="replace")):
                return found.group().rstrip(".,;)")
            time.sleep(0.02)
        raise NotListening(f"the sidecar does not listen:\n{self.last_lines()}")

    def last_lines(self, count: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def kill(self) -> None:
        """SIGKILL: nothing is drained, its agents go on without it."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, as an operator would; returns the exit code. It stops its agents first."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait()
