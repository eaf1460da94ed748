"""Where a workflow plays: a scratch project under git, and a sidecar whose agents all run the workflow's own file."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sidecar.examples.demo.project import PROJECT_ID, make_project
from sidecar.examples.demo.server import ServerProcess
from sidecar.http.access.minting import mint_operator_token
from sidecar.http.sdk import Agent, Client, Event

ISSUE_ID = "issue-1"
FOLLOWED_WITHIN_S = 60.0

Role = Callable[[Agent], None]


class Stage:
    """client: an operator's. project: the root of the scratch project."""

    def __init__(self, place: Path) -> None:
        self.project = place / "linkbook"
        self._place = place
        self.server = self._serve(port=0)
        token = mint_operator_token(self.server.storage, os.environ, project_id=PROJECT_ID, ttl_s=3600)
        self.client = Client(self.server.url, token.text)
        self._cursor = "earliest"

    def _serve(self, *, port: int) -> ServerProcess:
        return ServerProcess(
            storage=self._place / "storage",
            project_root=self.project,
            config=self._place / "sidecar.toml",
            log=self._place / "sidecar.log",
            port=port,
        )

    def spawn(self, agent_type: str, *, task: str = "", **environment: str) -> str:
        """Start an agent of the workflow; returns its id."""
        return self.client.spawn(
            agent_type, ISSUE_ID, task=task, project_id=PROJECT_ID, environment=environment
        ).agent_id

    def events(self, *event_types: str, within_s: float = FOLLOWED_WITHIN_S) -> Iterator[Event]:
        """Every event from here on, each printed in one line; those of these types are given out.

        Raises TimeoutError when none came for `within_s`, RuntimeError when an agent gave up.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            batch = self.client.wait(since=self._cursor, timeout_s=1.0, limit=1, project_id=PROJECT_ID)
            self._cursor = batch.next_cursor or self._cursor
            for event in batch.events:
                say(event)
                if event.event_type == "agent_failed":
                    raise RuntimeError(f"{event.data['agent_id']} gave up: {event.data.get('last_lines')}")
                if event.event_type in event_types:
                    deadline = time.monotonic() + within_s
                    yield event
        raise TimeoutError(f"no {' or '.join(event_types)} within {within_s:g} s")

    def kill_and_restart_the_sidecar(self) -> None:
        """SIGKILL, then the same again on the same port and storage. Its agents go on meanwhile."""
        port = int(self.server.url.rpartition(":")[2])
        self.server.kill()
        self.server = self._serve(port=port)

    def close(self) -> None:
        self.client.close()
        self.server.stop()


@contextmanager
def stage(file: str, agent_types: Sequence[str], *, settings: str = "") -> Iterator[Stage]:
    """A stage on which agents of these types run `file`. settings: more of sidecar.toml. All of it is gone after."""
    with tempfile.TemporaryDirectory(prefix="sidecar-example-") as folder:
        place = Path(folder)
        make_project(place / "linkbook")
        command = msgspec.json.encode([sys.executable, str(Path(file).resolve())]).decode()
        profiles = "".join(f"\n[profiles.{name}]\ncommand = {command}\n" for name in agent_types)
        (place / "sidecar.toml").write_text(settings + profiles)
        played = Stage(place)
        try:
            yield played
        finally:
            played.close()


def play(roles: Mapping[str, Role], direct: Callable[[], None]) -> None:
    """One file is the whole workflow: started by a sidecar it is the agent of its type, started by hand it directs."""
    if os.environ.get("AGENT_ID"):
        with Agent() as agent:
            roles[agent.type](agent)
    else:
        direct()


def say(event: Event) -> None:
    """One line for an event."""
    about = event.data.get("agent_id", event.publisher) if event.publisher == "sidecar" else event.publisher
    told = {name: value for name, value in event.data.items() if name in ("task", "cause", "exit_code", "delay_ms")}
    if event.publisher != "sidecar":
        told = {name: value for name, value in event.data.items() if name not in ("issue_id", "agent_id", "agent_type")}
    shown = ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
    print(f"{event.timestamp:%H:%M:%S.%f}"[:-3], f"{about:<30} {event.event_type:<20} {shown[:120]}", flush=True)
