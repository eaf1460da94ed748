"""The demo on a terminal: the team and the last events, live; plain lines where standard output is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.examples.demo.story import Line, Story
from sidecar.http.cli.terminal import STATE_STYLES, console, on_terminal, printable, show

_STYLES = {**STATE_STYLES, "crashed": "bold red", "awaited": "dim"}
_LIVE_LINES = 14
_TYPE_WIDTH = 22


class View:
    """Shows a story while it happens; used with `with`."""

    def __init__(self, story: Story, url: str) -> None:
        self._story = story
        self._url = url
        self._live = Live(console=console(), refresh_per_second=12, transient=True) if on_terminal() else None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self._live.update(self._screen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, line: Line) -> None:
        if self._live is None:
            show(as_text(line))
        else:
            self._live.update(self._screen())

    def _screen(self) -> RenderableType:
        team = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), expand=True)
        for title in ("AGENT", "STATE", "PID", "RUN"):
            team.add_column(title, no_wrap=True, header_style="dim")
        team.add_column("", no_wrap=True, ratio=1, overflow="ellipsis")
        for member in self._story.members.values():
            team.add_row(
                member.agent_type,
                Text(member.state, style=_STYLES.get(member.state, "")),
                str(member.process_id or ""),
                str(member.incarnation or ""),
                Text(printable(member.did)),
            )
        seconds = time.monotonic() - self._started
        heading = Text.assemble((" sidecar demo ", "bold reverse"), f"  {self._url}  {seconds:.1f} s")
        lines = [as_text(line) for line in self._story.lines[-_LIVE_LINES:]]
        return Group(heading, "", team, "", *lines)


def as_text(line: Line) -> Text:
    """One event in one line."""
    style = "red" if line.is_bad else ""
    return Text.assemble(
        (f"{line.at_s:6.2f} s  ", "dim"),
        (f"{line.subject:<{_TYPE_WIDTH}}", "bold"),
        (f"{line.event.event_type:<25}", "cyan" if line.event.topic not in ("system", "error") else "dim"),
        (printable(line.text), style),
        no_wrap=True,
        overflow="ellipsis",
    )
