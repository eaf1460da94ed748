"""Adoption: a starting sidecar takes over the agents that another one left, by identity, and never starts a second
copy.

A process is the one in the registry if boot, pid and start time match. A process that was started just as the sidecar
died is found by the marks in its environment. Any other agent has ended unseen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

import msgspec

from ...state.agent_entries import AgentRecord
from ...state.agent_registry import AgentRegistry
from ...state.models import AgentId, AgentState, ProcessIdentity
from ...supervision.after_exit import is_news, on_exit
from ...supervision.agent_logs import AgentLogs
from ...supervision.lifecycle import Occurrence
from ...supervision.process import StartedProcess
from ...supervision.process_exit import ExitStatus
from ...supervision.process_exits import Exited
from ...supervision.process_identity import HAS_PIDFD, boot_id, is_alive, open_pidfd
from ...supervision.process_tree import Trees, kill_all
from ...supervision.profile import Profiles
from ...supervision.restart import Decision, RestartVerdict
from ...supervision.steps import (
    AcceptStart,
    Adopt,
    AdvanceGroups,
    AgentExited,
    JudgeExit,
    KillSuccessor,
    RestartAttempt,
    Step,
    Wake,
)
from .agent import HOLDS_SLOT, RUNS, SupervisedAgent
from .launching import Launcher
from .records import AgentRecords

log = logging.getLogger(__name__)


class UnrecordedStart(msgspec.Struct, frozen=True):
    """Which incarnation of an agent runs, as which process."""

    incarnation: int
    process: ProcessIdentity


def newest(record: AgentRecord, trees: Trees) -> UnrecordedStart | None:
    """The running incarnation whose process the registry does not know; None if there is none.

    The first process of an incarnation leads a session; a daemon that made itself one is younger.
    """
    # The intent to start it is written before its process is there; in any other state a daemon has outlived it.
    is_starting = record.state is AgentState.STARTING and record.process is None
    unknown = [
        UnrecordedStart(process.incarnation, process.identity)
        for process in trees.get(record.spec.agent_id, ())
        if process.session == process.identity.pid
        # The exit watcher starts the next one before anything is written.
        and (process.incarnation > record.incarnation or is_starting)
    ]
    last = max((found.incarnation for found in unknown), default=0)
    if last < record.incarnation or last == 0:
        return None
    return min((f for f in unknown if f.incarnation == last), key=lambda found: found.process.start_ticks)


class Adoption:
    """Takes over the agents of another sidecar, before anything is started. trees: what runs now."""

    def __init__(self, records: AgentRecords, launcher: Launcher, trees: Trees) -> None:
        self._records = records
        self._launcher = launcher
        self._trees = trees

    def recover_lost(self, registry: AgentRegistry, profiles: Profiles, logs: AgentLogs) -> None:
        """Recover running agents of which the registry has lost every record. Call it before `steps`.

        The environment of their processes says who they are. Any other process with our marks is ended.
        """
        for agent_id, processes in self._trees.items():
            if AgentId(agent_id) in self._records.index.agents:
                continue
            leaders = [process for process in processes if process.session == process.identity.pid]
            leader = min(leaders, key=lambda each: (-each.incarnation, each.identity.start_ticks), default=None)
            record = self._launcher.record_of_lost(leader, profiles, registry, logs) if leader is not None else None
            if record is None or leader is None:
                log.warning("processes of an unknown agent ended agent_id=%s count=%d", agent_id, len(processes))
                kill_all(processes)
                continue
            log.warning(
                "agent adopted that the registry had lost agent_id=%s incarnation=%d pid=%d",
                agent_id,
                record.incarnation,
                leader.identity.pid,
            )
            agent = SupervisedAgent(record, profiles.of(record.spec.agent_type))
            self._records.index.add(agent)
            self._records.remember(agent)

    def steps(self, exits: Iterable[AgentExited]) -> Iterator[Step]:
        """Take over every agent that had a process or should have one.

        exits: those that a Spawner of this sidecar had received and not handled before it ended.
        """
        started = time.monotonic()
        unhandled = {(exited.agent_id, exited.incarnation): exited for exited in exits}
        adopted = lost = 0
        for agent in tuple(self._records.index.agents.values()):
            record = agent.record
            if record.state in HOLDS_SLOT and record.boot_id != boot_id():
                # What it remembers of the clock is of another boot.
                clean = {"deaths": (), "in_a_row": 0, "resume_at": 0.0, "started_monotonic": time.monotonic()}
                self._records.remember(agent, **clean)
            exited = unhandled.get((agent.id, record.incarnation))
            if exited is not None and is_news(agent.record, exited):
                yield from on_exit(agent.record, exited)
                continue
            found = newest(agent.record, self._trees)
            process = _process_of(agent.record, found)
            if process is not None:
                yield from self._take_over(agent, found, process)
                adopted += 1
                continue
            left = self._trees.get(agent.id, ())
            kill_all(left)
            if agent.record.state is AgentState.BACKING_OFF:
                yield Wake(agent.id, agent.record.resume_at - time.monotonic())
            elif agent.record.state in RUNS:
                yield self._lose(agent, up_to=max((process.incarnation for process in left), default=0))
                lost += 1
        yield AdvanceGroups()  # another sidecar was restarting them
        if adopted or lost:
            took_ms = (time.monotonic() - started) * 1000
            log.info("agents adopted count=%d lost=%d took_ms=%.1f", adopted, lost, took_ms)

    def _take_over(
        self, agent: SupervisedAgent, found: UnrecordedStart | None, process: StartedProcess
    ) -> Iterator[Step]:
        yield self._recover_start(agent, found.incarnation, process) if found is not None else Adopt(agent.id, process)
        log.info(
            "agent adopted agent_id=%s incarnation=%d process_id=%d",
            agent.id,
            agent.record.incarnation,
            process.identity.pid,
        )
        self._records.announcer.announce("agent_adopted", agent.record)

    def _recover_start(self, agent: SupervisedAgent, incarnation: int, process: StartedProcess) -> Step:
        """The agent was started, but that could not be recorded: do now what should have followed."""
        record = agent.record
        started = self._launcher.recover_started(record, agent.profile, process)
        if record.state is AgentState.STARTING and record.incarnation == incarnation:
            return AcceptStart(agent.id, started, None)
        if record.state is AgentState.STARTING:
            self._records.change(agent, Occurrence.ADOPTED)
        elif record.state.has_ended:
            self._records.change(agent, Occurrence.START_ASKED)
        # There may have been others between the two, of which nothing is known.
        self._records.remember(agent, incarnation=incarnation - 1)
        match agent.record.state:
            case AgentState.RUNNING:
                unseen = ExitStatus()
                decision = self._launcher.decide(agent.record, agent.profile.restart_policy, unseen, at=started.at)
                restarted = Decision(verdict=RestartVerdict.RESTART, history=decision.history)
                attempt = RestartAttempt(decision=restarted, started=started)
                return JudgeExit(agent.id, Exited(agent.id, incarnation - 1, unseen, started.at, attempt))
            case AgentState.STOPPING:
                return KillSuccessor(agent.id, started)
            case AgentState.BACKING_OFF:
                return AcceptStart(agent.id, started, Occurrence.BACKED_OFF)
            case _:
                return AcceptStart(agent.id, started, Occurrence.TURN_CAME)

    def _lose(self, agent: SupervisedAgent, *, up_to: int) -> Step:
        """The agent ended while no sidecar was running. The cause is unknown, so the policy treats it as a failure.

        up_to: the newest incarnation of which anything was left.
        """
        if up_to > agent.record.incarnation:  # its number must not be given twice
            self._records.remember(agent, incarnation=up_to)
        record, now = agent.record, time.monotonic()
        log.warning(
            "agent lost agent_id=%s incarnation=%d: it ended while no sidecar ran", agent.id, record.incarnation
        )
        self._records.announcer.announce("agent_lost", record)
        if record.state is AgentState.STARTING:
            self._records.change(agent, Occurrence.ADOPTED)
        return JudgeExit(agent.id, Exited(agent.id, record.incarnation, ExitStatus(), now, None))


def _process_of(record: AgentRecord, found: UnrecordedStart | None) -> StartedProcess | None:
    """The process of an agent, also as a zombie whose exit status can still be read; None if it has gone."""
    identity = found.process if found is not None else record.process if record.state in RUNS else None
    if identity is None:
        return None
    pidfd = open_pidfd(identity)
    if pidfd is not None:
        return StartedProcess(identity, pidfd)
    return StartedProcess(identity, None) if not HAS_PIDFD and is_alive(identity) else None
