"""Fleet: a real Spawner and EventBus with real processes, for the tests of supervision. Leaves no process behind."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from sidecar.actors import messages as m
from sidecar.actors.event_bus import EventBus, EventOptions
from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import R, Request, ask
from sidecar.actors.runtime.timers import Timers
from sidecar.actors.spawner import Spawner, at_once
from sidecar.state.clock import utc_now
from sidecar.state.identity import Caller, Revocations, TokenKey
from sidecar.state.models import AgentId, AgentState, AgentStatus, Event
from sidecar.state.projects import Projects
from sidecar.supervision import process_table
from sidecar.supervision.fleet import SpawnerOptions, Trigger
from sidecar.supervision.process_tree import ProcessCensus, Trees
from sidecar.supervision.profile import Profile, Profiles, built_in
from sidecar.supervision.sole_instance import SoleInstance

WITHIN_S = 15.0
SECRET = b"a secret for tests, 32 bytes long"
T = TypeVar("T")

SLEEPS = ("sleep", "600")


def runs(code: str, **options: Any) -> dict[str, Any]:
    """A profile that runs a piece of Python."""
    return {"command": (sys.executable, "-u", "-c", code), **options}


def does(*command: str, **options: Any) -> dict[str, Any]:
    """A profile that runs a command."""
    return {"command": command, **options}


def wait_until(condition: Callable[[], T], *, what: str = "", within_s: float = WITHIN_S) -> T:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what or condition}"
        pause.wait(0.005)
    return found


class Fleet:
    """`profiles`: by agent type, what differs from the built-in profile. `open` and `close` may be repeated."""

    def __init__(
        self,
        directory: Path,
        *,
        triggers: tuple[Trigger, ...] = (),
        options: Mapping[str, Any] | None = None,
        input_read: Callable[[Callable[[], None]], None] = at_once,
        **profiles: Mapping[str, Any],
    ) -> None:
        self.directory = directory
        self.options = SpawnerOptions(
            **{"max_concurrent": 1000, "spawn_burst": 1000, "max_spawns_per_issue": 0, **(options or {})}
        )
        self.triggers = triggers
        self.input_read = input_read
        self.profiles = profiles
        self.key = TokenKey(SECRET)
        self.revocations = Revocations()
        self.given_up: list[str] = []
        self.draining = threading.Event()

    def __enter__(self) -> Fleet:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert self.processes() == [], "an agent's process outlived the sidecar"

    def open(self) -> None:
        self.timers = Timers()
        self.timers.start()
        self.supervisor = ActorSupervisor(gave_up=lambda name, reason: self.given_up.append(f"{name}: {reason}"))
        self.sole = SoleInstance()
        self.bus: ActorHandle = self.supervisor.handle("event_bus", self._make_bus)
        self.spawner: ActorHandle = self.supervisor.handle("spawner", self._make_spawner)
        self.supervisor.start()

    def close(self) -> None:
        """As the server does: every agent is stopped first."""
        if self.spawner.status().state != "stopped":  # by a test, on purpose
            ask(self.spawner, m.Drain(timeout_s=2.0), timeout_s=WITHIN_S)
        self.vanish()

    def vanish(self) -> None:
        """Stop the actors and leave the agents alone, as a sidecar that dies."""
        self.supervisor.stop()
        self.timers.stop()
        self.sole.release()

    def _make_bus(self) -> EventBus:
        types = frozenset(trigger.on for trigger in self.triggers)
        return EventBus(
            journal_dir=self.directory / "events",
            options=EventOptions(),
            timers=self.timers,
            spawner=self.spawner,
            trigger_types=types,
        )

    def _make_spawner(self) -> Spawner:
        return Spawner(
            storage=self.directory,
            projects=Projects(self.directory),
            profiles=Profiles({name: self._profile(name, options) for name, options in self.profiles.items()}),
            options=self.options,
            triggers=self.triggers,
            key=self.key,
            revocations=self.revocations,
            bus=self.bus,
            timers=self.timers,
            base_url="http://127.0.0.1:1",
            draining=self.draining,
            input_read=self.input_read,
            sole=self.sole,
        )

    def _profile(self, name: str, options: Mapping[str, Any]) -> Profile:
        return msgspec.structs.replace(built_in(name), **options)

    # --- requests

    def ask(self, request: Request[R], timeout_s: float = WITHIN_S) -> R:
        return ask(self.spawner, request, timeout_s=timeout_s)

    def spawn(self, agent_type: str, **more: Any) -> m.SpawnedAgent:
        about = {"issue_id": "issue-1", "project_id": "p", "requested_by": AgentId("someone"), **more}
        return self.ask(m.SpawnAgent(agent_type=agent_type, **about))

    def spawn_id(self, agent_type: str, **more: Any) -> AgentId:
        return self.spawn(agent_type, **more).status.agent_id

    def status(self, agent_id: AgentId) -> AgentStatus:
        return self.ask(m.GetAgent(agent_id=agent_id, project_id=None))

    def stop(self, agent_id: AgentId, **more: Any) -> AgentStatus:
        return self.ask(m.StopAgent(agent_id=agent_id, project_id=None, **more))

    def restart(self, agent_id: AgentId) -> AgentStatus:
        return self.ask(m.RestartAgent(agent_id=agent_id, project_id=None))

    def log(self, agent_id: AgentId, stream: Any = "stdout", **more: Any) -> str:
        return self.ask(m.ReadLogs(agent_id=agent_id, project_id=None, stream=stream, **more)).data.decode()

    def wait_for_state(self, agent_id: AgentId, state: AgentState, **more: Any) -> AgentStatus:
        return wait_until(
            lambda: status if (status := self.status(agent_id)).state is state else None,
            what=f"{agent_id} is {state}",
            **more,
        )

    def wait_for_log(self, agent_id: AgentId, text: str) -> str:
        return wait_until(lambda: said if text in (said := self.log(agent_id)) else None, what=f"log says {text}")

    def events(self, agent_id: AgentId | None = None, event_type: str | None = None) -> list[Event]:
        """Lifecycle events, oldest first."""
        page = ask(
            self.bus,
            m.ListEvents(
                project_id=None, event_type=event_type, filter=f"agent_id:{agent_id}" if agent_id else "", limit=10_000
            ),
            timeout_s=WITHIN_S,
        )
        return list(reversed(page.events))

    def story(self, agent_id: AgentId) -> list[str]:
        """The types of an agent's events, in order."""
        return [event.event_type for event in self.events(agent_id)]

    def wait_for_event(self, agent_id: AgentId, event_type: str, *, count: int = 1, **more: Any) -> dict[str, Any]:
        """The data of the count-th such event."""
        found = wait_until(
            lambda: events if len(events := self.events(agent_id, event_type)) >= count else None,
            what=f"{count} × {event_type} of {agent_id}",
            **more,
        )
        data: dict[str, Any] = msgspec.json.decode(found[count - 1].data)
        return data

    def token_of(self, agent_id: AgentId) -> Caller:
        """Whom the token speaks for that the agent's process was started with."""
        pid = self.status(agent_id).process_id or 0
        environment = process_table.variables(process_table.environ(pid, until=time.monotonic() + WITHIN_S))
        return self.key.verify(environment[b"JWT_TOKEN"].decode(), now=utc_now())

    # --- what the machine says

    def processes(self) -> list[int]:
        """Every living process that bears the marks of this storage's agents."""
        return [p.identity.pid for tree in self.trees().values() for p in tree]

    def trees(self) -> Trees:
        """The same, by agent."""
        registry = self.directory / "registry"
        instances = [line for line in _lines(registry) if b'"entry":"instance"' in line]
        if not instances:
            return {}
        instance = instances[-1]
        start = instance.index(b'"instance_id":"') + len(b'"instance_id":"')
        instance_id = instance[start : start + 16].decode()
        return ProcessCensus(instance_id).take({})

    def zombies(self) -> list[int]:
        children = psutil.Process(os.getpid()).children()
        return [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]


class DoomedSidecar:
    """A Fleet in a process of its own, to be killed. sabotage: Python that is run in it first."""

    def __init__(self, directory: Path, spawn: tuple[str, ...], *, sabotage: str = "", **profiles: Mapping[str, Any]):
        about = {"directory": str(directory), "spawn": spawn, "sabotage": sabotage, "profiles": profiles}
        root = Path(__file__).parents[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet", msgspec.json.encode(about).decode()],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.directory = directory
        atexit.register(self._clean_up)
        assert self.process.stdout is not None
        self.agents = []
        # The line "up" comes last, or nothing more where it was killed by its sabotage.
        while (line := self.process.stdout.readline().strip()) not in ("up", ""):
            self.agents.append(AgentId(line))

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> None:
        self.process.wait(WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _clean_up(self) -> None:
        """After a test that failed before it had killed the sidecar, or taken over its agents."""
        self.process.kill()
        self.process.wait()
        for pid in Fleet(self.directory).processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class _Doomed(msgspec.Struct):
    directory: str
    spawn: list[str]
    sabotage: str
    profiles: dict[str, dict[str, Any]]


def main() -> None:
    about = msgspec.json.decode(sys.argv[1], type=_Doomed)
    exec(about.sabotage, {"os": os, "signal": signal})
    fleet = Fleet(Path(about.directory), **about.profiles)
    fleet.open()
    for agent_type in about.spawn:
        print(fleet.spawn_id(agent_type), flush=True)
    print("up", flush=True)
    signal.pause()


def _lines(directory: Path) -> list[bytes]:
    return [line for path in sorted(directory.rglob("*")) if path.is_file() for line in path.read_bytes().splitlines()]


if __name__ == "__main__":
    main()
