"""Whatever ends in whichever moment, agents, Spawner or sidecar: nobody is lost or runs twice, and no answer is untrue.

Several clients spawn, stop, restart and kill agents while actors are restarted and the sidecar is killed and started
again. What they were told is compared with the processes that are there, and the events with what can happen.
"""

from __future__ import annotations

import random
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.supervision.process_identity import send_signal
from sidecar.supervision.process_tree import TreeProcess
from tests.fleet import Fleet, wait_until
from tests.served import Served, start_served

CLIENTS = 3
FOREVER = "max_restarts = 100000\nbackoff_initial_seconds = 0.02\nbackoff_max_seconds = 0.05"
SETTINGS = f"""
[agents]
max_concurrent = 20
spawns_per_second = 1000
spawn_burst = 1000
[profiles.steady]
command = ["sleep", "600"]
{FOREVER}
[profiles.leaves]
command = ["sh", "-c", "setsid sleep 600 & exec sleep 600"]
{FOREVER}
[profiles.fails]
command = ["sh", "-c", "sleep 1.1; exit 3"]
{FOREVER}
[profiles.done]
command = ["sh", "-c", "sleep 0.3"]
{FOREVER}
[profiles.first]
command = ["sleep", "600"]
{FOREVER}
[profiles.second]
command = ["sleep", "600"]
{FOREVER}
[groups.team]
agents = ["first", "second"]
strategy = "one_for_all"
max_restarts = 100000
"""
KINDS = ("steady", "leaves", "fails", "done", "first", "second")
STAY = ("steady", "leaves", "first", "second")  # they end for nothing but a signal
ISSUES = ("one", "two")

# What may follow what in the events of an agent. A sidecar may die before it has noted a start, so that "lost" is the
# first that is told of it.
FOLLOWS = {
    "": {"agent_spawned", "agent_queued", "agent_lost", "agent_stopped"},
    "agent_queued": {"agent_spawned", "agent_started", "agent_lost", "agent_stopped"},
    "agent_spawned": {"agent_started"},
    "agent_started": {"agent_adopted", "agent_lost", "agent_exited"},
    "agent_adopted": {"agent_adopted", "agent_lost", "agent_exited"},
    "agent_lost": {"agent_exited"},
    # Asked to run again, an agent that has ended may have to wait for a slot.
    "agent_exited": {"agent_restarting", "agent_stopped", "agent_started", "agent_queued", "agent_lost"},
    "agent_restarting": {"agent_started", "agent_spawned", "agent_queued", "agent_lost", "agent_stopped"},
    "agent_stopped": {"agent_started", "agent_spawned", "agent_queued", "agent_lost", "agent_stopped"},
}
LAST = ("agent_exited", "agent_stopped")


class Sidecar:
    """One that may be killed and started again at any time."""

    def __init__(self, directory: Path, project: Path) -> None:
        self.storage = directory / "storage"
        self._project = project
        self._log = directory / "log"
        self._served: Served | None = None

    def start(self) -> None:
        self._served = start_served(self.storage, self._project, self._log)

    def end(self, number: int) -> None:
        assert self._served is not None
        self._served.end(number)
        assert self._served.process.stdout is not None
        self._served.process.stdout.close()

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Again and again, as a client does, until there is an answer other than 503."""

        def answer() -> httpx.Response | None:
            assert self._served is not None
            try:
                answer = self._served.client.request(method, path, **more)
            except httpx.TransportError:
                return None
            return answer if answer.status_code != 503 else None

        return wait_until(answer, within_s=60)

    def agents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/api/agents").json()["agents"]
        return found

    def events(self) -> dict[str, list[dict[str, Any]]]:
        """What is told of each agent, in order."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        page: dict[str, Any] = {"next_cursor": None}
        listed: list[dict[str, Any]] = []
        while not listed or page["next_cursor"] is not None:
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] is not None else {}
            page = self.ask("GET", "/api/events", params={"limit": 1000, **cursor}).json()
            listed += page["events"]
        for event in reversed(listed):
            found[event["data"]["agent_id"]].append(event)
        return found


class Clients:
    """What several clients do to the agents at a time, and what they were told."""

    def __init__(self, sidecar: Sidecar, dice: random.Random, acts: int) -> None:
        self.sidecar = sidecar
        self.stopped: set[str] = set()
        self.spawned: set[str] = set()
        self.restarted: set[str] = set()
        self._dice = dice
        self._left = acts
        self._lock = threading.Lock()
        self._busy: set[str] = set()  # somebody is about to stop or restart it
        self._fleet = Fleet(sidecar.storage)

    @property
    def left(self) -> int:
        return self._left

    def run(self) -> None:
        while True:
            with self._lock:
                if not self._left:
                    return
                self._left -= 1
                number = self._left
            acts = [self._spawn, self._spawn, self._stop, self._restart, self._kill, self._kill]
            self._dice.choice(acts)(number)

    def _spawn(self, number: int) -> None:
        body = {"agent_type": self._dice.choice(KINDS), "issue_id": self._dice.choice(ISSUES)}
        answer = self.sidecar.ask(
            "POST", "/api/agents/spawn", json=body, headers={"Idempotency-Key": f"spawn-{number}"}
        )
        assert answer.status_code in (200, 201), answer.text
        with self._lock:
            self.spawned.add(answer.json()["agent_id"])

    def _stop(self, _: int) -> None:
        if (agent_id := self._pick()) is None:
            return
        answer = self.sidecar.ask("DELETE", f"/api/agents/{agent_id}")
        assert answer.status_code in (200, 409), answer.text
        if answer.status_code == 200:
            assert answer.json()["state"] == "stopped"
            assert agent_id not in self._fleet.trees(), "it was said to be stopped"
            with self._lock:
                self.stopped.add(agent_id)
        self._leave(agent_id)

    def _restart(self, _: int) -> None:
        if (agent_id := self._pick()) is None:
            return
        with self._lock:
            self.restarted.add(agent_id)
        answer = self.sidecar.ask("POST", f"/api/agents/{agent_id}/restart")
        assert answer.status_code in (200, 202, 409), answer.text
        with self._lock:
            self.stopped.discard(agent_id)
        self._leave(agent_id)

    def _kill(self, _: int) -> None:
        processes = [process for tree in self._fleet.trees().values() for process in tree]
        if processes:
            send_signal(self._dice.choice(processes).identity, signal.SIGKILL)

    def _pick(self) -> str | None:
        with self._lock:
            free = sorted(self.spawned - self._busy)
            agent_id = self._dice.choice(free) if free else None
            if agent_id is not None:
                self._busy.add(agent_id)
            return agent_id

    def _leave(self, agent_id: str) -> None:
        with self._lock:
            self._busy.discard(agent_id)


def disturb(sidecar: Sidecar, clients: Clients, dice: random.Random, times: int) -> None:
    """Restart an actor, or kill the sidecar and start the next, now and then while the clients are at work."""
    all_of_it = clients.left
    for left in sorted((dice.randrange(all_of_it) for _ in range(times)), reverse=True):
        wait_until(lambda left=left: clients.left <= left, within_s=120)  # type: ignore[misc]
        match dice.choice(["kill", "kill", "spawner", "event_bus"]):
            case "kill":
                sidecar.end(signal.SIGKILL)
                sidecar.start()
            case actor:
                sidecar.ask("POST", f"/api/actors/{actor}/restart")


@pytest.fixture
def sidecar(tmp_path: Path, project: Path) -> Iterator[Sidecar]:
    (project / "sidecar.toml").write_text(SETTINGS)
    sidecar = Sidecar(tmp_path, project)
    sidecar.start()
    yield sidecar
    sidecar.end(signal.SIGTERM)


def under_fire(sidecar: Sidecar, *, seed: int, acts: int, disturbances: int) -> None:
    dice = random.Random(seed)
    clients = Clients(sidecar, dice, acts)
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        disturbing = pool.submit(disturb, sidecar, clients, dice, disturbances)
        for working in [pool.submit(clients.run) for _ in range(CLIENTS)]:
            working.result()
        disturbing.result()
    fleet = Fleet(sidecar.storage)
    agents = wait_until(lambda: listed_as_they_run(sidecar, fleet), what="who is to run does, once, and is listed so")
    assert {agent["agent_id"] for agent in agents} == clients.spawned
    assert {agent["state"] for agent in agents if agent["agent_id"] in clients.stopped} <= {"stopped"}
    for agent_id in clients.spawned:
        if sidecar.ask("DELETE", f"/api/agents/{agent_id}").status_code == 200:
            assert agent_id not in fleet.trees()
    wait_until(lambda: fleet.processes() == [], what="what those left that ended by themselves")
    last = wait_until(lambda: stories if told_whole(stories := sidecar.events()) else None)
    for agent in sidecar.agents():
        agent_id = agent["agent_id"]
        check_story(agent, last[agent_id], is_asked_for=agent_id in clients.restarted)


def listed_as_they_run(sidecar: Sidecar, fleet: Fleet) -> list[dict[str, Any]] | None:
    """The agents, if what is listed is so: an end is told a moment after it was seen. A queue may be of any length."""
    agents, trees = sidecar.agents(), fleet.trees()
    stay = [agent for agent in agents if agent["agent_type"] in STAY]
    is_so = {agent["state"] for agent in stay} <= {"running", "stopped", "queued"} and all(
        runs_once(agent, trees.get(agent["agent_id"], ())) for agent in stay if agent["state"] == "running"
    )
    return agents if is_so else None


def runs_once(agent: dict[str, Any], tree: tuple[TreeProcess, ...]) -> bool:
    return (
        {process.incarnation for process in tree} == {agent["incarnation"]}
        and agent["process_id"] in {process.identity.pid for process in tree}
        and len(tree) <= (2 if agent["agent_type"] == "leaves" else 1)
    )


def told_whole(stories: dict[str, list[dict[str, Any]]]) -> bool:
    """Events come a moment after what they tell of."""
    return all(story[-1]["event_type"] in LAST for story in stories.values())


def check_story(agent: dict[str, Any], story: list[dict[str, Any]], *, is_asked_for: bool) -> None:
    """is_asked_for: somebody asked for a restart."""
    shown = "\n".join(f"{e['event_type']} {e['data']['incarnation']} {e['data'].get('exit_code')}" for e in story)
    kinds = [event["event_type"] for event in story]
    for before, after in pairwise(["", *kinds]):
        assert after in FOLLOWS[before], f"{after} after {before!r} in\n{shown}"
    numbers = [event["data"]["incarnation"] for event in story]
    assert numbers == sorted(numbers), shown
    assert kinds.count("agent_spawned") <= 1, shown
    for kind in ("agent_started", "agent_exited"):
        of_kind = [number for number, each in zip(numbers, kinds, strict=True) if each == kind]
        assert len(of_kind) == len(set(of_kind)), shown
    runs = [event for event in story if event["event_type"] in ("agent_started", "agent_exited")]
    codes = [event["data"].get("exit_code") for event in runs]
    assert is_asked_for or 0 not in codes[:-1], f"it was done, and run again\n{shown}"
    if agent["state"] == "completed":
        assert story[-1]["data"]["exit_code"] == 0, shown


def test_a_fleet_under_fire_loses_and_doubles_nobody(sidecar: Sidecar) -> None:
    under_fire(sidecar, seed=1, acts=150, disturbances=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_fleet_under_long_fire_loses_and_doubles_nobody(sidecar: Sidecar, seed: int) -> None:
    under_fire(sidecar, seed=seed, acts=600, disturbances=40)
