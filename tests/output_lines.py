"""The lines of a process's standard output, each awaited with a deadline."""

from __future__ import annotations

import queue
import subprocess
import threading


class OutputLines:
    """Reads in a thread of its own, so that a line that is there is never missed and one that is not never hangs."""

    def __init__(self, process: subprocess.Popen[str], *, within_s: float) -> None:
        self._within_s = within_s
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def next(self) -> str:
        """The next line with its line break; "" at the end."""
        try:
            return self._lines.get(timeout=self._within_s)
        except queue.Empty:
            raise AssertionError(f"no further line within {self._within_s:g} s") from None

    def next_with(self, text: str) -> str:
        while line := self.next():
            if text in line:
                return line
        raise AssertionError(f"it ended without {text!r}")

    def rest(self) -> str:
        """Everything that is still to come, until the end."""
        lines = []
        while line := self.next():
            lines.append(line)
        return "".join(lines)
