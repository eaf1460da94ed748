"""`sidecar demo`: a scratch project, a real sidecar, a real team of agents, from nothing to committed work."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from sidecar.examples.demo.project import AGENTS, ISSUE_ID, PROJECT_ID, TASK, TEAM, make_project, write_configuration
from sidecar.examples.demo.report import show_report
from sidecar.examples.demo.server import ServerProcess
from sidecar.examples.demo.story import Story
from sidecar.examples.demo.view import View
from sidecar.http.access.minting import mint_operator_token
from sidecar.http.client.client import Client
from sidecar.http.visible import lines
from sidecar.state.errors import SidecarError

DONE_WITHIN_S = 60.0
_POLL_S = 1.0


def run(*, keep: bool) -> int:
    """The whole demo; the exit code is 0 only if every agent completed. keep: leave server and project."""
    if not AGENTS.is_dir():
        raise click.ClickException(f"the example agents are not installed: {AGENTS} is missing")
    if shutil.which("git") is None:
        raise click.ClickException("the demo's project is under git, and git is not installed")
    story = Story(TEAM)
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        place = Path(stack.enter_context(_scratch(keep=keep)))
        project = place / "linkbook"
        make_project(project)
        write_configuration(place / "sidecar.toml", project)
        server = ServerProcess(
            storage=place / "storage", project_root=project, config=place / "sidecar.toml", log=place / "sidecar.log"
        )
        if not keep:
            stack.callback(server.stop)
        token = mint_operator_token(server.storage, os.environ, project_id=PROJECT_ID)
        client = stack.enter_context(Client(server.url, token.text))
        try:
            _tell(story, client, server.url)
        except SidecarError as error:
            click.echo(lines(f"Error: {error.message}\n{server.last_lines()}"), err=True)
            return 1
        show_report(story, client, project)
        if keep:
            _say_what_was_kept(server, project)
        _say_how_to_begin()
    return 0 if story.is_good else 1


def _tell(story: Story, client: Client, url: str) -> None:
    """Spawn the first two of the team, the triggers do the rest; follow the events until all is done."""
    for agent_type in ("chief-architect", "test-engineer"):
        client.spawn(agent_type, ISSUE_ID, task=TASK, project_id=PROJECT_ID)
    cursor = "earliest"
    deadline = time.monotonic() + DONE_WITHIN_S
    with View(story, url) as view:
        while not story.is_over and time.monotonic() < deadline:
            batch = client.wait(since=cursor, timeout_s=_POLL_S, project_id=PROJECT_ID)
            cursor = batch.next_cursor or cursor
            for event in batch.events:
                view.add(story.see(event))


@contextmanager
def _scratch(*, keep: bool) -> Iterator[str]:
    place = tempfile.mkdtemp(prefix="sidecar-demo-")
    try:
        yield place
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: everything it has started is stopped on the way out."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        # A second signal must not cut the cleaning up short.
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_what_was_kept(server: ServerProcess, project: Path) -> None:
    click.echo(
        f"\nThe sidecar goes on as process {server.pid}, and the project is in {project}:\n"
        f"  export SIDECAR_URL={server.url} SIDECAR_STORAGE={server.storage}\n"
        f"  {_command()} agent list\n"
        f"  {_command()} agent logs ID\n"
        f"  {_command()} stop\n"
    )


def _say_how_to_begin() -> None:
    programs = shlex.quote(str(Path(sys.executable).parent))
    click.echo(
        "For a project of your own:\n"
        f"  export PATH={programs}:$PATH     # `python` and `sidecar`, also for agents\n"
        "  cd YOUR-PROJECT && sidecar serve      # no configuration needed\n"
        "  sidecar token --operator              # for curl, or an agent started by hand\n"
        "Which command runs for which agent type stands in sidecar.toml; the agents you have just seen are in\n"
        f"  {AGENTS}"
    )


def _command() -> str:
    """How this very command is called from anywhere."""
    called = Path(sys.argv[0])
    is_elsewhere = called.name == "sidecar" and shutil.which("sidecar") is None
    return str(called.absolute()) if is_elsewhere else "sidecar"
