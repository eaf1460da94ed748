"""Runs what a page of the docs says, block by block, as a newcomer would: in a terminal, in a scratch directory.

The rules, which hold for README.md, docs/tutorial.md and docs/how-to.md:

- A `sh` block is typed into a terminal. Variables and the directory stay, as they do for a reader. A line
  `<!-- terminal: NAME -->` in front of it says in which one; the usual one is `main`.
- A block under a line that ends with "`PATH`:" is saved there.
- A `text` block under a `sh` block is what that prints, line by line. A line `…` stands for any lines, `…` in a line
  for any text. Ids, process numbers, times, durations and sizes are compared by their form.
- A `sh` block in another terminal than `main` may go on after that; it then has to be printed within the deadline.
- `<!-- not run: why -->` in front of a block takes it out.
- Port 3001 is replaced by a free one, in blocks and by SIDECAR_PORT. Nothing else is.
"""

from __future__ import annotations

import os
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PAGES_PORT = "3001"
DEADLINE_S = 60.0
MAIN = "main"

_SAVED_AS = re.compile(r"`([\w./-]+)`[^`]*:\n*$")
_TERMINAL = re.compile(r"<!-- terminal: (\w+) -->")
_NOT_RUN = re.compile(r"<!-- not run: .+ -->")

# What differs from one run to the next, in this order, and what stands for it.
_FORMS = (
    (r"\d\d:\d\d:\d\d(?:\.\d+)?", "TIME"),
    (r"\b(evt|res)-[0-9a-z-]+", r"\1-ID"),
    (r"(?<=[a-z]-)[0-9a-f]{8}\b", "ID"),
    (r"\b\d[\d,.]*(?= ?(?:%|MB|GB|s|ms|bytes|files tracked)(?!\w))", "N"),
    (r"(?<![\w-])\d{3,}(?![\w-])", "N"),
    (r"[ \t]+", " "),
)


class Block(NamedTuple):
    """One fenced block. line: where it begins. saved_as: its path, for one that is a file."""

    language: str
    text: str
    line: int
    terminal: str
    saved_as: str | None
    is_run: bool


def blocks_of(markdown: str) -> list[Block]:
    """Every fenced block of a page, with what the lines in front of it say of it."""
    blocks = []
    for fence in re.finditer(r"^```(\w+)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        before = markdown[: fence.start()].rstrip("\n").rpartition("\n\n")[2] + "\n"
        terminal, saved_as = _TERMINAL.search(before), _SAVED_AS.search(before)
        blocks.append(
            Block(
                language=fence[1],
                text=fence[2],
                line=markdown.count("\n", 0, fence.start()) + 1,
                terminal=terminal[1] if terminal else MAIN,
                saved_as=saved_as[1] if saved_as and fence[1] not in ("sh", "text") else None,
                is_run=_NOT_RUN.search(before) is None,
            )
        )
    return blocks


def headings(markdown: str) -> list[str]:
    return re.findall(r"^## .+$", markdown, re.MULTILINE)


def section(markdown: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^{level} |\Z)", markdown, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found[1]


def form_of(line: str) -> str:
    for pattern, stands_for in _FORMS:
        line = re.sub(pattern, stands_for, line)
    return line.strip()


def says(claimed: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether lines that were printed are those that the page claims, by the rules above."""
    if not claimed:
        return not printed
    first, rest = claimed[0].strip(), claimed[1:]
    if first == "…":
        return any(says(rest, printed[at:]) for at in range(len(printed) + 1))
    if not printed:
        return False
    claim = ".*".join(re.escape(part) for part in form_of(first).split("…"))
    return re.fullmatch(claim, form_of(printed[0])) is not None and says(rest, printed[1:])


class Terminal:
    """One bash, which is told one block after the other."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._ended = 0
        self._begun = 0
        self._tell("set -o pipefail; trap 'FAILED+=(\"$BASH_COMMAND\")' ERR\n")

    def run(self, block: str, claimed: Sequence[str] | None, *, may_go_on: bool) -> None:
        """Type a block; wait for its end, or until what is claimed is printed by one that may go on."""
        while self._ended < self._begun:  # the block before this one went on until now
            self._next(self._deadline())
        self._begun += 1
        mark = f"--- block {self._begun} ended ---"
        self._tell(f"FAILED=()\n{{\n{block}}} </dev/null\necho '{mark}' \"${{FAILED[@]}}\"\n")
        printed: list[str] = []
        deadline = self._deadline()
        while True:
            line = self._next(deadline, printed)
            if line.startswith(mark):
                failed = line.removeprefix(mark).strip()
                assert not failed, f"{failed!r} failed:\n{chr(10).join(printed)}"
                assert claimed is None or says(claimed, printed), _difference(claimed, printed)
                return
            printed.append(line)
            if may_go_on and claimed is not None and says(claimed, printed):
                return

    def close(self) -> None:
        """End bash and what runs in it."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if self._bash.poll() is None:
                os.killpg(self._bash.pid, ending)
                try:
                    self._bash.wait(DEADLINE_S / 4)
                except subprocess.TimeoutExpired:
                    continue
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()

    def _tell(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text)
        self._bash.stdin.flush()

    def _read(self) -> None:
        assert self._bash.stdout is not None
        with self._bash.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _next(self, deadline: float, printed: Sequence[str] = ()) -> str:
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"not at its end after {DEADLINE_S:g} s:\n" + "\n".join(printed)) from None
        assert line is not None, "the terminal has ended:\n" + "\n".join(printed)
        if re.match(r"--- block \d+ ended ---", line):
            self._ended += 1
        return line

    @staticmethod
    def _deadline() -> float:
        return time.monotonic() + DEADLINE_S


def _difference(claimed: Sequence[str], printed: Sequence[str]) -> str:
    return "\n".join(["the page claims:", *claimed, "and this was printed:", *printed])


def environment_for(home: Path, port: int) -> dict[str, str]:
    """A newcomer's: a home of its own, `sidecar` and `python` on the PATH, nothing of the sidecar set but its port."""
    bin_ = home / ".local" / "bin"
    bin_.mkdir(parents=True)
    for name, more in (("python", ""), ("sidecar", "-P -m sidecar.http.cli.main ")):
        script = bin_ / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {more}"$@"\n')
        script.chmod(0o755)
    person = {"NAME": "Ada", "EMAIL": "ada@example.org"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SIDECAR_", "AGENT_", "GIT_", "XDG_")) and name not in ("JWT_TOKEN", "TERM")
    }
    return {
        **kept,
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in person.items()},
        "HOME": str(home),
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "SIDECAR_PORT": str(port),
        "LC_ALL": "C.UTF-8",
    }


def free_port() -> int:
    """One that nobody has now. The page's server names it a moment later, as a person would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Reader:
    """Does what a page says, in a directory. port: what stands for 3001."""

    def __init__(self, directory: Path, environment: dict[str, str], port: int) -> None:
        self._directory = directory
        self._environment = environment
        self._port = str(port)
        self._terminals: dict[str, Terminal] = {}

    def follow(self, markdown: str) -> Iterator[Block]:
        """Each block as it is done; raises AssertionError naming the line of one that does not do what it says."""
        blocks = blocks_of(markdown)
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if not block.is_run or not (block.language == "sh" or block.saved_as):
                continue
            claims = following is not None and following.language == "text" and following.is_run
            claimed = following.text.splitlines() if following is not None and claims else None
            try:
                self._do(block, claimed)
            except AssertionError as error:
                raise AssertionError(f"the block at line {block.line}:\n{block.text}\n{error}") from None
            yield block

    def close(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()

    def _do(self, block: Block, claimed: list[str] | None) -> None:
        text = block.text.replace(PAGES_PORT, self._port)
        if block.saved_as is None:
            terminal = self._terminal(block.terminal)
            theirs = None if claimed is None else [line.replace(PAGES_PORT, self._port) for line in claimed]
            terminal.run(text, theirs, may_go_on=block.terminal != MAIN)
        else:
            folder = shlex.quote(str(Path(block.saved_as).parent))
            end = "END OF THE FILE"
            save = f"mkdir -p {folder}\ncat > {shlex.quote(block.saved_as)} <<'{end}'\n{text}{end}\n"
            self._terminal(MAIN).run(save, None, may_go_on=False)

    def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            self._terminals[name] = Terminal(self._directory, self._environment)
        return self._terminals[name]
