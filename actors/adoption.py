"""Adoption: a sidecar that starts takes over the agents that another one left, by identity, and never a second copy.

A process is who the registry says it is when boot, pid and start time agree. One that was started in the moment in
which the sidecar died is found by the marks in its environment. Who is neither has ended unseen.
"""

from __future__ import annotations

import logging
import time

import msgspec

from ..state.agent_registry import AgentRecord
from ..state.models import AgentState, ProcessIdentity
from ..supervision.lifecycle import Occurrence
from ..supervision.process import HAS_PIDFD, ExitStatus, StartedProcess, boot_id, is_alive, open_pidfd
from ..supervision.process_exits import Exited
from ..supervision.process_tree import Trees, kill_all
from .agent import HOLDS_SLOT, Agent
from .keeper import Keeper

log = logging.getLogger(__name__)


class Found(msgspec.Struct, frozen=True):
    """Which incarnation of an agent runs, as which process."""

    incarnation: int
    process: ProcessIdentity


def newest(record: AgentRecord, trees: Trees) -> Found | None:
    """The incarnation that runs although the registry does not know its process; None if there is none.

    The first process of an incarnation leads a session; a daemon that made itself one is younger.
    """
    # The intent to start it is written before its process is there; in any other state a daemon has outlived it.
    is_starting = record.state is AgentState.STARTING and record.process is None
    unknown = [
        Found(process.incarnation, process.identity)
        for process in trees.get(record.spec.agent_id, ())
        if process.session == process.identity.pid
        # The exit watcher starts the next one before anything is written.
        and (process.incarnation > record.incarnation or is_starting)
    ]
    last = max((found.incarnation for found in unknown), default=0)
    if last < record.incarnation or last == 0:
        return None
    return min((f for f in unknown if f.incarnation == last), key=lambda found: found.process.start_ticks)


def adopt(keeper: Keeper) -> None:
    """Take over every agent that had a process or was to have one. Before anything is started."""
    started = time.monotonic()
    trees = keeper.look_now()
    adopted = lost = 0
    for agent in tuple(keeper.book.agents.values()):
        found = newest(agent.record, trees)
        if agent.record.state not in HOLDS_SLOT:
            if found is None or found.incarnation <= agent.record.incarnation:
                continue
            # It was started when the disk was full: nothing of that could be written down.
        elif agent.record.boot_id != boot_id():
            # What it remembers of the clock is of another boot.
            keeper.book.remember(agent, deaths=(), in_a_row=0, resume_at=0.0, started_monotonic=time.monotonic())
        if found is None and agent.record.process is not None:
            found = Found(agent.record.incarnation, agent.record.process)
        process = _process_of(found.process) if found is not None else None
        if found is not None and process is not None:
            _take_over(keeper, agent, found.incarnation, process)
            adopted += 1
        elif agent.record.state is AgentState.BACKING_OFF:
            keeper.tell_after(agent.record.resume_at - time.monotonic(), agent, "backed_off")
        elif agent.record.state in HOLDS_SLOT:
            kill_all(p for p in trees.get(agent.id, ()) if p.incarnation <= agent.record.incarnation)
            _lost(keeper, agent)
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


def _take_over(keeper: Keeper, agent: Agent, incarnation: int, process: StartedProcess) -> None:
    was = agent.record
    is_newer = incarnation > was.incarnation or was.process is None
    keeper.book.change(
        agent,
        Occurrence.ADOPTED,
        incarnation=incarnation,
        process=process.identity,
        boot_id=boot_id(),
        ended_at=None,
        started_monotonic=time.monotonic() if is_newer else was.started_monotonic,
    )
    keeper.watch(agent, process)
    keeper.book.tell_subscribed(agent)
    keeper.book.announcer.announce("agent_adopted", agent.record)
    if was.state is AgentState.STOPPING:
        keeper.go_on_ending(agent)


def _lost(keeper: Keeper, agent: Agent) -> None:
    """It ended while no sidecar looked: how is not known, so the policy treats it as a failure."""
    record, now = agent.record, time.monotonic()
    keeper.book.announcer.announce("agent_lost", agent.record)
    exited = Exited(agent.id, record.incarnation, ExitStatus(), now, None)
    if record.state is AgentState.STOPPING:
        keeper.gone(agent, exited)
    else:
        if record.state is AgentState.STARTING:
            keeper.book.change(agent, Occurrence.ADOPTED)
        keeper.died(agent, exited, None)
