"""A sidecar that dies takes nobody along: the next one goes on with the same agents, and never with two of one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.actors import messages as m
from sidecar.actors.agents import adoption
from sidecar.actors.agents.launching import Launcher
from sidecar.actors.spawner import Spawner
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.clock import utc_now
from sidecar.state.identity import TokenKey
from sidecar.state.models import AgentId, AgentState, ExitCause, ProcessIdentity
from sidecar.supervision.process import StartedProcess
from sidecar.supervision.process_exit import ExitStatus
from sidecar.supervision.process_exits import Exited, ExitWatcher
from sidecar.supervision.process_identity import identity_of, is_alive, open_pidfd
from sidecar.supervision.process_tree import TreeProcess
from tests.fleet import SECRET, SLEEPS, DoomedSidecar, Fleet, does, runs, wait_until

WRITES = """
import time
n = 0
while True:
    n += 1
    print(n, flush=True)
    time.sleep(0.02)
"""
ENDS_WHEN_TOLD = """
import os, pathlib, sys, time
told = pathlib.Path(os.environ["PROJECT_ROOT"], "told")
while not told.exists():
    time.sleep(0.01)
sys.exit(int(told.read_text()))
"""
PROFILES: dict[str, dict[str, Any]] = {
    "sleeps": does(*SLEEPS),
    "writes": runs(WRITES),
    "told": runs(ENDS_WHEN_TOLD, backoff_initial_seconds=30),
    "waits": does("sh", "-c", "exit 3", backoff_initial_seconds=30),
    "ignores": does("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", stop_timeout_seconds=0.3),
}


def next_sidecar(directory: Path, **options: Any) -> Fleet:
    return Fleet(directory, options=options, **PROFILES)


def test_agents_outlive_the_sidecar_and_the_next_one_takes_them_over(tmp_path: Path) -> None:
    first = DoomedSidecar(tmp_path, ("sleeps", "writes"), **PROFILES)
    sleeps, writes = first.agents
    first.kill()
    with next_sidecar(tmp_path) as fleet:
        before = {agent: fleet.status(agent) for agent in first.agents}
        assert {s.state for s in before.values()} == {AgentState.RUNNING}
        assert {s.incarnation for s in before.values()} == {1}
        assert sorted(fleet.processes()) == sorted(s.process_id for s in before.values() if s.process_id)
        fleet.wait_for_event(sleeps, "agent_adopted")
        said = len(fleet.log(writes, tail=100_000).splitlines())
        wait_until(lambda: len(fleet.log(writes, tail=100_000).splitlines()) > said)
        numbers = [int(line) for line in fleet.log(writes, tail=100_000).splitlines()]
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_tokens_of_adopted_agents_stay_good_until_they_end(tmp_path: Path) -> None:
    first = DoomedSidecar(tmp_path, ("sleeps",), **PROFILES)
    first.kill()
    with next_sidecar(tmp_path) as fleet:
        status = fleet.status(first.agents[0])
        caller = fleet.token_of(status.agent_id)
        assert (caller.agent_id, caller.issue_id) == (status.agent_id, "issue-1")
        assert not fleet.revocations.is_revoked(caller.token_id, now=utc_now())
        fleet.stop(status.agent_id)
        assert fleet.revocations.is_revoked(caller.token_id, now=utc_now())
        fleet.vanish()
        fleet.revocations = type(fleet.revocations)()
        fleet.open()
        assert fleet.revocations.is_revoked(caller.token_id, now=utc_now())


def test_those_that_died_meanwhile_are_restarted(tmp_path: Path) -> None:
    first = DoomedSidecar(tmp_path, ("sleeps", "sleeps"), **PROFILES)
    with AgentsAt(tmp_path, first) as pids:
        first.kill()
        os.kill(pids[0], signal.SIGKILL)
        # Until init has reaped it: as long as it is a zombie, how it ended can still be seen.
        wait_until(lambda: not Path(f"/proc/{pids[0]}").exists(), within_s=60)
    with next_sidecar(tmp_path) as fleet:
        lost, kept = first.agents
        wait_until(lambda: fleet.status(lost).incarnation == 2)
        assert fleet.status(kept).process_id == pids[1]
        fleet.wait_for_event(lost, "agent_started", count=2)
        assert [e for e in fleet.story(lost) if e in ("agent_lost", "agent_restarting")] == [
            "agent_lost",
            "agent_restarting",
        ]
        data = fleet.wait_for_event(lost, "agent_exited")
        assert (data["exit_code"], data["signal"], data["cause"]) == (None, None, None)


class AgentsAt:
    """The pids of a doomed sidecar's agents, in the order of its agents."""

    def __init__(self, directory: Path, sidecar: DoomedSidecar) -> None:
        self.directory, self.sidecar = directory, sidecar

    def __enter__(self) -> list[int]:
        # A process that is just being started shows no environment for a moment.
        found = wait_until(lambda: found if len(found := self._found()) == len(self.sidecar.agents) else None)
        return [found[place] for place in sorted(found)]

    def _found(self) -> dict[int, int]:
        marks = {b"AGENT_ID=" + agent.encode(): place for place, agent in enumerate(self.sidecar.agents)}
        found: dict[int, int] = {}
        for pid in Fleet(self.directory).processes():
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found |= {place: pid for mark, place in marks.items() if mark in environ}
        return found

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("code", "state"), [(0, AgentState.COMPLETED), (3, AgentState.BACKING_OFF)])
def test_how_an_adopted_agent_ends_is_seen(tmp_path: Path, code: int, state: AgentState) -> None:
    first = DoomedSidecar(tmp_path, ("told",), **PROFILES)
    first.kill()
    with next_sidecar(tmp_path) as fleet:
        (tmp_path / "telling").write_text(str(code))
        (tmp_path / "telling").rename(tmp_path / "told")
        status = fleet.wait_for_state(first.agents[0], state)
        assert (status.exit_code, status.cause) == (code, ExitCause.EXIT)


def test_how_a_stranger_ended_is_seen_before_its_parent_reaps_it() -> None:
    """The parent of an adopted agent is init, which may take seconds."""
    ends_when_told = "exec 3<&0; sh -c 'read told; exit 7' <&3 3<&- & echo $!; exec sleep 600"
    exits: list[Exited] = []
    watcher = ExitWatcher(exits.append)
    watcher.start()
    with subprocess.Popen(["sh", "-c", ends_when_told], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdin is not None
            assert parent.stdout is not None
            identity = identity_of(int(parent.stdout.readline()))
            assert identity is not None
            # A shell might still reap it.
            wait_until(lambda: Path(f"/proc/{parent.pid}/comm").read_text() == "sleep\n")
            watcher.watch("stranger", 1, StartedProcess(identity, open_pidfd(identity)))
            parent.stdin.write(b"now\n")
            parent.stdin.flush()
            wait_until(lambda: exits, within_s=3.0)  # less than the watcher waits for a parent
            assert exits[0].status == ExitStatus(exit_code=7)
            assert not is_alive(identity)
            assert Path(f"/proc/{identity.pid}").exists()  # nobody has reaped it
        finally:
            watcher.stop()
            parent.kill()


def test_an_adopted_agent_that_is_killed_is_restarted(tmp_path: Path) -> None:
    first = DoomedSidecar(tmp_path, ("sleeps",), **PROFILES)
    first.kill()
    with next_sidecar(tmp_path) as fleet:
        os.kill(fleet.status(first.agents[0]).process_id or 0, signal.SIGKILL)
        wait_until(lambda: fleet.status(first.agents[0]).incarnation == 2)
        fleet.wait_for_state(first.agents[0], AgentState.RUNNING)
        wait_until(lambda: len(fleet.processes()) == 1, what="one process each")


DIES_BEFORE_NOTING_A_START = """
from sidecar.actors.agents.records import AgentRecords
AgentRecords.started = lambda self, agent, started: os.kill(os.getpid(), signal.SIGKILL)
"""
DIES_AFTER_RESTARTING_AT_ONCE = """
from sidecar.actors.agents.supervisor import AgentSupervisor
AgentSupervisor.exited = lambda self, exited, again: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_was_started_but_not_noted_is_found(tmp_path: Path) -> None:
    DoomedSidecar(tmp_path, ("sleeps",), sabotage=DIES_BEFORE_NOTING_A_START, **PROFILES).wait()
    with next_sidecar(tmp_path) as fleet:
        (status,) = fleet.ask(m.ListAgents(project_id=None))
        assert (status.state, status.incarnation) == (AgentState.RUNNING, 1)
        assert fleet.processes() == [status.process_id]


DIES_BEFORE_A_START = """
from sidecar.actors.agents.launching import Launcher
Launcher.start = lambda *about: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_agent_whose_first_start_was_lost_is_spawned_by_the_second(tmp_path: Path) -> None:
    DoomedSidecar(tmp_path, ("sleeps",), sabotage=DIES_BEFORE_A_START, **PROFILES).wait()
    with next_sidecar(tmp_path) as fleet:
        (status,) = fleet.ask(m.ListAgents(project_id=None))
        fleet.wait_for_event(status.agent_id, "agent_started")
        assert fleet.story(status.agent_id) == [
            "agent_lost",
            "agent_exited",
            "agent_restarting",
            "agent_spawned",
            "agent_started",
        ]


def killed_between_a_restart_at_once_and_its_note(directory: Path, **profile: Any) -> tuple[AgentId, int, str]:
    """The agent, the pid of its second process, and the id of the token that its first one had."""
    profiles = {"sleeps": does(*SLEEPS, **profile)}
    first = DoomedSidecar(directory, ("sleeps",), sabotage=DIES_AFTER_RESTARTING_AT_ONCE, **profiles)
    with AgentsAt(directory, first) as (pid,):
        token_id = token_id_in(pid)
        # Long enough alive to be restarted at once, by the watcher, before the registry hears of it.
        wait_until(lambda: psutil_age_s(pid) > 1.1)
        os.kill(pid, signal.SIGKILL)
        first.wait()
    with AgentsAt(directory, first) as (second,):
        assert second != pid
        return first.agents[0], second, token_id


def token_id_in(pid: int) -> str:
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (text,) = (entry[len(b"JWT_TOKEN=") :] for entry in environ if entry.startswith(b"JWT_TOKEN="))
    return TokenKey(SECRET).verify(text.decode(), now=utc_now()).token_id


def test_a_restart_that_was_not_noted_is_found(tmp_path: Path) -> None:
    agent, pid, _ = killed_between_a_restart_at_once_and_its_note(tmp_path)
    with next_sidecar(tmp_path) as fleet:
        status = fleet.status(agent)
        assert (status.state, status.incarnation) == (AgentState.RUNNING, 2)
        assert fleet.processes() == [status.process_id] == [pid]


def test_what_was_to_follow_a_restart_that_was_not_noted_follows_it(tmp_path: Path) -> None:
    agent, pid, first_token = killed_between_a_restart_at_once_and_its_note(tmp_path, max_restarts=1)
    second_token = token_id_in(pid)
    with Fleet(tmp_path, sleeps=does(*SLEEPS, max_restarts=1)) as fleet:
        fleet.wait_for_event(agent, "agent_adopted")
        assert fleet.story(agent) == [
            "agent_spawned",
            "agent_started",
            "agent_exited",
            "agent_restarting",
            "agent_started",
            "agent_adopted",
        ]
        started_at = fleet.status(agent).started_at
        assert started_at is not None
        assert abs((utc_now() - started_at).total_seconds() - psutil_age_s(pid)) < 0.1
        now = utc_now()
        assert fleet.revocations.is_revoked(first_token, now=now)
        assert not fleet.revocations.is_revoked(second_token, now=now)
        os.kill(pid, signal.SIGKILL)  # its second death, and one restart is allowed
        fleet.wait_for_state(agent, AgentState.FAILED)
        assert fleet.revocations.is_revoked(second_token, now=utc_now())


def test_a_number_whose_start_was_not_noted_is_not_given_twice(tmp_path: Path) -> None:
    """Its process has ended, but what that left shows that it was there."""
    agent, pid, _ = killed_between_a_restart_at_once_and_its_note(tmp_path)
    environ = dict(
        entry.split(b"=", 1) for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if b"=" in entry
    )
    with subprocess.Popen(SLEEPS, env=environ) as left:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), within_s=60)
        with next_sidecar(tmp_path) as fleet:
            assert left.wait(timeout=10) == -signal.SIGKILL
            wait_until(lambda: fleet.status(agent).incarnation == 3)


def test_what_a_lost_agent_left_is_killed_before_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = {"parent": does("sh", "-c", "sleep 600 & echo $!; wait")}
    first = DoomedSidecar(tmp_path, ("parent",), **profiles)
    (agent,) = first.agents
    log = tmp_path / "logs" / "000001.stdout.log"
    child = int(wait_until(lambda: log.read_text().strip()))
    (parent,) = {int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])}
    first.kill()
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{parent}").exists(), within_s=60)
    killed_at_start: list[set[int]] = []
    killed: set[int] = set()
    real_kill, real_start = adoption.kill_all, Launcher.start

    def kill_all(processes: Iterable[TreeProcess]) -> tuple[TreeProcess, ...]:
        doomed = tuple(processes)
        killed.update(process.identity.pid for process in doomed)
        return real_kill(doomed)

    def start(*about: Any) -> Any:
        killed_at_start.append(set(killed))
        return real_start(*about)

    monkeypatch.setattr(adoption, "kill_all", kill_all)
    monkeypatch.setattr(Launcher, "start", start)
    with Fleet(tmp_path, **profiles) as fleet:
        wait_until(lambda: fleet.status(agent).incarnation == 2)
        assert killed_at_start[0] == {child}


WRITES_NO_START_OF_THE_SECOND = """
from sidecar.actors.agents.records import AgentRecords
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.errors import StorageUnavailable
real, starts = AgentRegistry.commit, AgentRecords.starts
def commit(self):
    if full:
        raise StorageUnavailable("no space left")
    real(self)
def disk_is_full_from_now_on(self, agent, occurrence, token):
    global full
    full = True
    starts(self, agent, occurrence, token)
full, AgentRegistry.commit, AgentRecords.starts = False, commit, disk_is_full_from_now_on
"""


def test_a_start_that_could_not_be_written_down_is_not_made_twice(tmp_path: Path) -> None:
    waits_for_sleeps = {**PROFILES, "after": does(*SLEEPS, depends_on=("sleeps",))}
    first = DoomedSidecar(tmp_path, ("after", "sleeps"), sabotage=WRITES_NO_START_OF_THE_SECOND, **waits_for_sleeps)
    with AgentsAt(tmp_path, first) as pids:
        first.kill()
    with Fleet(tmp_path, **waits_for_sleeps) as fleet:
        statuses = [fleet.status(agent) for agent in first.agents]
        assert [(s.state, s.incarnation, s.process_id) for s in statuses] == [
            (AgentState.RUNNING, 1, pid) for pid in pids
        ]
        assert sorted(fleet.processes()) == sorted(pids)


def psutil_age_s(pid: int) -> float:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_s - ticks / os.sysconf("SC_CLK_TCK")


DIES_WHEN_THE_BUS_HAS_AN_EVENT = """
from sidecar.actors.agents.announcer import Announcer
Announcer.handle = lambda self, fact: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_event_whose_answer_was_never_read_is_not_told_twice(tmp_path: Path) -> None:
    DoomedSidecar(tmp_path, ("sleeps",), sabotage=DIES_WHEN_THE_BUS_HAS_AN_EVENT, **PROFILES).wait()
    with next_sidecar(tmp_path) as fleet:
        (status,) = fleet.ask(m.ListAgents(project_id=None))
        fleet.wait_for_event(status.agent_id, "agent_adopted")
        assert fleet.story(status.agent_id) == ["agent_spawned", "agent_started", "agent_adopted"]


def test_a_process_of_an_agent_that_nobody_knows_is_ended(tmp_path: Path) -> None:
    registry = AgentRegistry(tmp_path / "registry")
    instance_id = registry.instance_id
    registry.close()
    marks = {"AGENT_ID": "sleeps-00000000", "AGENT_INCARNATION": "1", "SIDECAR_INSTANCE": instance_id}
    with subprocess.Popen(SLEEPS, env={**os.environ, **marks}) as stray, next_sidecar(tmp_path):
        assert stray.wait(timeout=10) == -signal.SIGKILL


def test_after_a_reboot_no_recorded_process_is_signalled(tmp_path: Path) -> None:
    with next_sidecar(tmp_path) as fleet:
        agent = fleet.spawn_id("sleeps")
        fleet.stop(agent)
        fleet.vanish()
        registry = AgentRegistry(tmp_path / "registry")
        with subprocess.Popen(SLEEPS) as innocent:
            now_there = identity_of(innocent.pid)
            assert now_there is not None
            registry.put(
                msgspec.structs.replace(
                    registry.agents[agent],
                    state=AgentState.RUNNING,
                    boot_id="the-boot-before",
                    process=ProcessIdentity("the-boot-before", innocent.pid, now_there.start_ticks),
                )
            )
            registry.commit()
            registry.close()
            fleet.open()
            fleet.wait_for_event(agent, "agent_lost")
            wait_until(lambda: fleet.status(agent).incarnation == 2)
            fleet.stop(agent)
            assert innocent.poll() is None
            innocent.kill()


def test_an_agent_that_was_being_stopped_is_stopped(tmp_path: Path) -> None:
    fleet = next_sidecar(tmp_path)
    fleet.open()
    agent = fleet.spawn_id("ignores")
    fleet.wait_for_log(agent, "ready")
    fleet.spawner.request(m.StopAgent(agent_id=agent, project_id=None, timeout_s=60))
    fleet.wait_for_state(agent, AgentState.STOPPING)
    fleet.vanish()
    with next_sidecar(tmp_path) as fleet:
        stopped = fleet.wait_for_state(agent, AgentState.STOPPED)
        assert stopped.last_error is not None
        assert stopped.last_error.startswith("it was stopped by request")


def test_an_agent_that_was_being_stopped_and_died_meanwhile_is_stopped(tmp_path: Path) -> None:
    fleet = next_sidecar(tmp_path)
    fleet.open()
    agent = fleet.spawn_id("ignores")
    fleet.wait_for_log(agent, "ready")
    fleet.spawner.request(m.StopAgent(agent_id=agent, project_id=None, timeout_s=60))
    pid = fleet.wait_for_state(agent, AgentState.STOPPING).process_id or 0
    fleet.vanish()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with next_sidecar(tmp_path) as fleet:
        fleet.wait_for_state(agent, AgentState.STOPPED)


def test_who_was_backing_off_is_restarted_when_its_time_comes(tmp_path: Path) -> None:
    soon = {"soon": does("sh", "-c", "exit 3", backoff_initial_seconds=0.5, max_restarts=1)}
    fleet = Fleet(tmp_path, **soon)
    fleet.open()
    agent = fleet.spawn_id("soon")
    fleet.wait_for_state(agent, AgentState.BACKING_OFF)
    fleet.vanish()
    with Fleet(tmp_path, **soon) as fleet:
        assert fleet.wait_for_state(agent, AgentState.FAILED).incarnation == 2


def test_who_was_queued_or_backing_off_still_is(tmp_path: Path) -> None:
    fleet = next_sidecar(tmp_path, max_concurrent=2)
    fleet.open()
    waits, sleeps, queued = (fleet.spawn_id(agent_type) for agent_type in ("waits", "sleeps", "sleeps"))
    fleet.wait_for_state(waits, AgentState.BACKING_OFF)
    fleet.vanish()
    with next_sidecar(tmp_path, max_concurrent=2) as fleet:
        states = [fleet.status(agent).state for agent in (waits, sleeps, queued)]
        assert states == [AgentState.BACKING_OFF, AgentState.RUNNING, AgentState.QUEUED]
        fleet.stop(sleeps)
        fleet.wait_for_state(queued, AgentState.RUNNING)


def test_agents_whose_profile_has_lost_its_command_end_instead_of_the_sidecar(tmp_path: Path) -> None:
    fleet = next_sidecar(tmp_path, max_concurrent=1)
    fleet.open()
    runs_on, queued = (fleet.spawn_id("sleeps") for _ in range(2))
    fleet.vanish()
    with Fleet(tmp_path, options={"max_concurrent": 1}) as fleet:
        assert fleet.status(runs_on).state is AgentState.RUNNING
        fleet.stop(runs_on)
        failed = fleet.wait_for_state(queued, AgentState.FAILED)
        assert (failed.cause, failed.last_error) == (
            ExitCause.START_FAILED,
            "the profile of sleeps has no command any more",
        )
        assert fleet.spawner.status().restarts == 0


def test_a_sidecar_told_to_detach_leaves_its_agents_for_the_next(tmp_path: Path) -> None:
    fleet = next_sidecar(tmp_path, on_shutdown="detach")
    fleet.open()
    agent = fleet.spawn("sleeps").status
    fleet.close()
    assert fleet.processes() == [agent.process_id]
    with next_sidecar(tmp_path) as fleet:
        assert fleet.status(agent.agent_id).process_id == agent.process_id


def test_a_spawner_that_is_restarted_touches_no_agent(tmp_path: Path) -> None:
    with next_sidecar(tmp_path) as fleet:
        agents = [fleet.spawn("sleeps").status for _ in range(5)]
        fleet.supervisor.restart("spawner", "a test says so")
        wait_until(lambda: fleet.spawner.status().restarts == 1 and fleet.spawner.status().state == "running")
        again = [fleet.status(agent.agent_id) for agent in agents]
        assert [s.process_id for s in again] == [s.process_id for s in agents]
        os.kill(again[0].process_id or 0, signal.SIGTERM)
        data = fleet.wait_for_event(again[0].agent_id, "agent_exited")
        assert data["signal"] == signal.SIGTERM


def test_how_agents_ended_just_before_the_spawner_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with next_sidecar(tmp_path) as fleet:
        agents = [fleet.spawn("told").status for _ in range(5)]
        go_on = threading.Event()
        real = Spawner.handle

        def handle(spawner: Spawner, message: Any) -> Any:
            if isinstance(message, m.CountAgents):
                go_on.wait(timeout=10)
            return real(spawner, message)

        monkeypatch.setattr(Spawner, "handle", handle)
        fleet.spawner.request(m.CountAgents(project_id=None))
        fleet.supervisor.restart("spawner", "a test says so")
        (tmp_path / "telling").write_text("0")
        (tmp_path / "telling").rename(tmp_path / "told")
        # Seen by the Spawner that is to end, and reaped: nobody can see it any more.
        wait_until(lambda: not any(Path(f"/proc/{agent.process_id}").exists() for agent in agents))
        wait_until(lambda: fleet.spawner.status().mailbox_depth >= 1 + len(agents))
        go_on.set()
        wait_until(lambda: fleet.spawner.status().restarts == 1 and fleet.spawner.status().state == "running")
        for agent in agents:
            assert fleet.wait_for_state(agent.agent_id, AgentState.COMPLETED).incarnation == 1
            assert "agent_lost" not in fleet.story(agent.agent_id)


def rounds_of_death(directory: Path, *, rounds: int, agents: int) -> None:
    sidecar = DoomedSidecar(directory, ("sleeps",) * agents, **PROFILES)
    known = set(sidecar.agents)
    pids = wait_until(lambda: found if len(found := sorted(Fleet(directory).processes())) == agents else None)
    for _ in range(rounds):
        sidecar.kill()
        sidecar = DoomedSidecar(directory, (), **PROFILES)
        assert sorted(Fleet(directory).processes()) == pids
    sidecar.kill()
    with next_sidecar(directory) as fleet:
        statuses = [fleet.status(AgentId(agent)) for agent in known]
        assert {(s.state, s.incarnation) for s in statuses} == {(AgentState.RUNNING, 1)}
        assert sorted(s.process_id or 0 for s in statuses) == pids


def test_a_spawner_that_is_restarted_leaves_no_second_watcher(tmp_path: Path) -> None:
    def watchers() -> list[str]:
        return sorted(t.name for t in threading.enumerate() if t.name.startswith(("exits-", "census")))

    with next_sidecar(tmp_path) as fleet:
        fleet.spawn("sleeps")
        before = watchers()
        assert before
        fleet.supervisor.restart("spawner", "a test says so")
        wait_until(lambda: fleet.spawner.status().restarts == 1 and fleet.spawner.status().state == "running")
        fleet.ask(m.ListAgents(project_id=None))
        wait_until(lambda: watchers() == before)


def test_three_deaths_of_the_sidecar_lose_and_double_nobody(tmp_path: Path) -> None:
    rounds_of_death(tmp_path, rounds=3, agents=20)


@pytest.mark.soak
def test_fifty_deaths_of_the_sidecar_lose_and_double_none_of_a_hundred(tmp_path: Path) -> None:
    rounds_of_death(tmp_path, rounds=50, agents=100)
