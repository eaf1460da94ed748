"""Adoption: a sidecar that starts takes over the agents that another one left, by identity, and never a second copy.

A process is who the registry says it is when boot, pid and start time agree. One that was started in the moment in
which the sidecar died is found by the marks in its environment. Who is neither has ended unseen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import msgspec

from ...state.agent_entries import AgentRecord
from ...state.agent_registry import AgentRegistry
from ...state.models import AgentId, AgentState, ProcessIdentity
from ...supervision.agent_logs import AgentLogs
from ...supervision.lifecycle import Occurrence
from ...supervision.process import StartedProcess
from ...supervision.process_exit import ExitStatus
from ...supervision.process_exits import Exited
from ...supervision.process_identity import HAS_PIDFD, boot_id, is_alive, open_pidfd
from ...supervision.process_tree import Trees, kill_all
from ...supervision.profile import Profiles
from ...supervision.restart import Decision, RestartVerdict
from .agent import HOLDS_SLOT, RUNS, SupervisedAgent
from .launching import AgentExited, RestartAttempt
from .supervisor import AgentSupervisor

log = logging.getLogger(__name__)


class UnrecordedStart(msgspec.Struct, frozen=True):
    """Which incarnation of an agent runs, as which process."""

    incarnation: int
    process: ProcessIdentity


def newest(record: AgentRecord, trees: Trees) -> UnrecordedStart | None:
    """The incarnation that runs although the registry does not know its process; None if there is none.

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


def recover_lost(
    keeper: AgentSupervisor, trees: Trees, *, registry: AgentRegistry, profiles: Profiles, logs: AgentLogs
) -> None:
    """Recover running agents of which the registry has lost every record. Call it before `adopt`.

    The environment of their processes says who they are. Any other process with our marks is ended.
    """
    for agent_id, processes in trees.items():
        if AgentId(agent_id) in keeper.book.agents:
            continue
        leaders = [process for process in processes if process.session == process.identity.pid]
        leader = min(leaders, key=lambda process: (-process.incarnation, process.identity.start_ticks), default=None)
        record = keeper.launcher.record_of_lost(leader, profiles, registry, logs) if leader is not None else None
        if record is None:
            log.warning("processes of an unknown agent ended agent_id=%s count=%d", agent_id, len(processes))
            kill_all(processes)
            continue
        log.warning(
            "agent adopted that the registry had lost agent_id=%s incarnation=%d pid=%d",
            agent_id,
            record.incarnation,
            leader.identity.pid if leader is not None else 0,
        )
        agent = SupervisedAgent(record, profiles.of(record.spec.agent_type))
        keeper.book.add(agent)
        keeper.book.remember(agent)


def adopt(keeper: AgentSupervisor, trees: Trees, ends: Iterable[AgentExited]) -> None:
    """Take over every agent that had a process or was to have one. Before anything is started.

    trees: what runs now. ends: ends that a Spawner of this sidecar had received and not handled before it
    ended.
    """
    started = time.monotonic()
    seen = {(exited.agent_id, exited.incarnation): exited for exited in ends}
    adopted = lost = 0
    for agent in tuple(keeper.book.agents.values()):
        record = agent.record
        if record.state in HOLDS_SLOT and record.boot_id != boot_id():
            # What it remembers of the clock is of another boot.
            keeper.book.remember(agent, deaths=(), in_a_row=0, resume_at=0.0, started_monotonic=time.monotonic())
        exited = seen.get((agent.id, record.incarnation))
        if exited is not None and keeper.exited(exited):
            continue
        if _take_over(keeper, agent, trees):
            adopted += 1
        else:
            left = trees.get(agent.id, ())
            kill_all(left)
            if agent.record.state is AgentState.BACKING_OFF:
                keeper.tell_after(agent.record.resume_at - time.monotonic(), agent, "backed_off")
            elif agent.record.state in RUNS:
                _lost(keeper, agent, up_to=max((process.incarnation for process in left), default=0))
                lost += 1
    keeper.go_on_with_groups()
    if adopted or lost:
        took_ms = (time.monotonic() - started) * 1000
        log.info("agents adopted count=%d lost=%d took_ms=%.1f", adopted, lost, took_ms)


def _process_of(identity: ProcessIdentity) -> StartedProcess | None:
    """The process with that identity, also as a zombie whose exit status can still be read; None if it has gone."""
    pidfd = open_pidfd(identity)
    if pidfd is not None:
        return StartedProcess(identity, pidfd)
    return StartedProcess(identity, None) if not HAS_PIDFD and is_alive(identity) else None


def _take_over(keeper: AgentSupervisor, agent: SupervisedAgent, trees: Trees) -> bool:
    """False if no process of it is there to be taken over."""
    record = agent.record
    found = newest(record, trees)
    identity = found.process if found is not None else record.process if record.state in RUNS else None
    process = _process_of(identity) if identity is not None else None
    if process is None:
        return False
    if found is not None:
        _note_start(keeper, agent, found.incarnation, process)
    else:
        keeper.book.change(agent, Occurrence.ADOPTED)
        keeper.book.runs(agent)
        keeper.watch(agent, process)
        keeper.book.tell_subscribed(agent)
        if record.state is AgentState.STOPPING:
            keeper.go_on_ending(agent)
    log.info(
        "agent adopted agent_id=%s incarnation=%d process_id=%d",
        agent.id,
        agent.record.incarnation,
        process.identity.pid,
    )
    keeper.book.announcer.announce("agent_adopted", agent.record)
    return True


def _note_start(keeper: AgentSupervisor, agent: SupervisedAgent, incarnation: int, process: StartedProcess) -> None:
    """It was started, which could not be written down: do now what was to follow then."""
    record = agent.record
    begun = keeper.launcher.recover_started(record, agent.profile, process)
    if record.state is AgentState.STARTING and record.incarnation == incarnation:
        keeper.started(agent, begun)
        return
    if record.state is AgentState.STARTING:
        keeper.book.change(agent, Occurrence.ADOPTED)
    elif record.state.has_ended:
        keeper.book.change(agent, Occurrence.START_ASKED)
    # There may have been others between the two, of which nothing is known.
    keeper.book.remember(agent, incarnation=incarnation - 1)
    match agent.record.state:
        case AgentState.RUNNING:
            unseen: AgentExited = Exited(agent.id, incarnation - 1, ExitStatus(), begun.at, None)
            decision = keeper.launcher.decide(agent.record, agent.profile.restart_policy, None, at=begun.at)
            restarted = Decision(verdict=RestartVerdict.RESTART, history=decision.history)
            keeper.died(agent, unseen, RestartAttempt(decision=restarted, started=begun))
        case AgentState.STOPPING:
            keeper.end_successor(agent, begun)
        case state:
            is_restart = state is AgentState.BACKING_OFF
            keeper.book.starts(agent, Occurrence.BACKED_OFF if is_restart else Occurrence.TURN_CAME, begun.token)
            keeper.started(agent, begun)


def _lost(keeper: AgentSupervisor, agent: SupervisedAgent, *, up_to: int) -> None:
    """It ended while no sidecar looked: how is not known, so the policy treats it as a failure.

    up_to: the newest incarnation of which anything was left.
    """
    if up_to > agent.record.incarnation:  # its number is not to be given twice
        keeper.book.remember(agent, incarnation=up_to)
    record, now = agent.record, time.monotonic()
    log.warning("agent lost agent_id=%s incarnation=%d: it ended while no sidecar ran", agent.id, record.incarnation)
    keeper.book.announcer.announce("agent_lost", agent.record)
    exited: AgentExited = Exited(agent.id, record.incarnation, ExitStatus(), now, None)
    if record.state is AgentState.STOPPING:
        keeper.gone(agent, exited)
    else:
        if record.state is AgentState.STARTING:
            keeper.book.change(agent, Occurrence.ADOPTED)
        keeper.died(agent, exited, None)
