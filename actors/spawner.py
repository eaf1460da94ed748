"""Spawner: owns the agents. It starts, supervises and ends their processes, and answers requests about them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

from ..state.agent_registry import AgentRegistry
from ..state.clock import utc_now
from ..state.errors import (
    NotFound,
    Unavailable,
    WrongState,
)
from ..state.identity import Revocations, Token, TokenKey
from ..state.models import AgentId, AgentState, AgentStatus
from ..state.projects import Projects
from ..supervision.agent_logs import AgentLogs
from ..supervision.fleet import SpawnerOptions, Trigger
from ..supervision.launch import inherited
from ..supervision.log_watch import LogWatch
from ..supervision.profile import Profiles
from ..supervision.sole_instance import SoleInstance
from ..supervision.steps import AfterStop, StartAgain, Stop
from . import messages as m
from .agent_facts import LogEndsAt, TellTriggered, TriggerEventPublished
from .agents.adoption import Adoption
from .agents.agent import ENDED, HOLDS_SLOT, RUNS, WAITS, SupervisedAgent
from .agents.agent_index import AgentIndex
from .agents.announcer import AnnouncementAnswered, AnnouncementDue, Announcer, LifecycleEvent
from .agents.chains import Chains
from .agents.deadlines import AgentDeadlines
from .agents.forgetting import AgentRetention
from .agents.group_restarts import GroupRestarts
from .agents.launching import Launcher
from .agents.log_bounds import LogBounds
from .agents.log_following import LogFollowing
from .agents.numbers import count
from .agents.owed_answers import OwedAnswers
from .agents.queue import AgentQueue
from .agents.quoting import stop_waiting
from .agents.records import AgentRecords
from .agents.registry_writer import RegistrySynced, RegistryWriter, SaveDue, SettleDue
from .agents.spawn_requests import SpawnRequests
from .agents.spawner_facts import AgentDue, CensusDue, CensusTaken, LogsDue, ProcessExited, QueueDue
from .agents.stopping import ProcessTrees
from .agents.supervisor import AgentSupervisor
from .agents.tokens import AgentTokens
from .agents.triggers import Triggers
from .runtime.asking import Later, Recipient
from .runtime.owner import Owner
from .runtime.timers import ClockGap, Timers

log = logging.getLogger(__name__)

_DRAIN_MARGIN = 0.7  # of the time to drain, before SIGKILL: the rest is for what comes after it


SpawnerFact = (
    LogEndsAt
    | TriggerEventPublished
    | ProcessExited
    | CensusTaken
    | CensusDue
    | AgentDue
    | QueueDue
    | SaveDue
    | LogsDue
    | AnnouncementAnswered
    | AnnouncementDue
    | ClockGap
    | SettleDue
    | RegistrySynced
)


def at_once(act: Callable[[], None]) -> None:
    """Act at once: without a server no request waits to be read."""
    act()


class Spawner(Owner):
    """storage: its registry and the agents' logs lie below. base_url: of the server, without `/api`.

    draining: set when the server is to end. A Spawner that starts then starts no
    agents. input_read: calls back when all requests sent so far have been read, so that no agent counts as silent
    while its heartbeat waits in the kernel.
    sole: keeps the name of the storage's instance for all incarnations; its creator releases it.
    Raises what AgentRegistry, Triggers and SoleInstance raise.
    """

    def __init__(
        self,
        *,
        storage: Path,
        projects: Projects,
        profiles: Profiles,
        options: SpawnerOptions,
        triggers: tuple[Trigger, ...],
        key: TokenKey,
        revocations: Revocations,
        bus: Recipient,
        timers: Timers,
        base_url: str,
        draining: threading.Event,
        sole: SoleInstance,
        input_read: Callable[[Callable[[], None]], None] = at_once,
        changed: Callable[[tuple[LifecycleEvent, ...]], None] | None = None,
    ) -> None:
        super().__init__()
        self._profiles = profiles
        self._projects = projects
        self._options = options
        self._bus = bus
        self._timers = timers
        self._draining = draining
        self._input_read = input_read
        self._changed = changed
        self._registry = AgentRegistry(storage / "registry")
        try:
            self._tokens = AgentTokens(key, revocations, self._registry)
            self._triggers = Triggers(triggers, profiles, self._registry)
            sole.take(self._registry.instance_id)
        except BaseException:
            self._registry.close()
            raise
        self._index = AgentIndex()
        self._logs = AgentLogs(storage / "logs", max_bytes=int(options.log_max_mb * 2**20))
        self._launcher = Launcher(
            projects=projects,
            tokens=self._tokens,
            logs=self._logs,
            instance_id=self._registry.instance_id,
            api_url=f"{base_url}/api",
            base_env=inherited(os.environ),
        )
        self._log_watch = LogWatch(self._logs)
        self._bounds = LogBounds(self._logs, min_free_bytes=int(options.min_free_disk_mb * 2**20))
        self._drained: list[tuple[Later[int], int]] = []

    def on_start(self) -> None:
        self._make_supervisor()
        self._make_services()
        for record in self._registry.agents.values():
            self._index.add(SupervisedAgent(record, self._profiles.of(record.spec.agent_type)))
        self._queue.is_closed = self._draining.is_set()
        self._log_watch.start()
        self._trees.open()
        self._timers.tell_gaps(self.me)
        if not self._registry.is_new:
            self._take_over()
        self._supervisor.do(self._queue.run())
        self._writer.save()
        self._announcer.send()
        self._bus.tell(TellTriggered(since=self._triggers.place))

    def _make_supervisor(self) -> None:
        """The parts that keep agents running, each with those that it uses."""
        registry, options, timers, me = self._registry, self._options, self._timers, self.me
        self._writer = RegistryWriter(registry, timers, me)
        self._answers = OwedAnswers(registry)
        self._announcer = Announcer(registry, self._bus, timers, me, self._changed)
        self._records = AgentRecords(
            index=self._index,
            registry=registry,
            tokens=self._tokens,
            announcer=self._announcer,
            answers=self._answers,
            logs=self._logs,
            bus=self._bus,
            log_watch=self._log_watch,
        )
        self._queue = AgentQueue(self._index, options, timers, me)
        groups = GroupRestarts(options.groups, self._index.agents, registry)
        self._trees = ProcessTrees(
            self._index.agents, instance_id=registry.instance_id, sample_s=options.sample_seconds, timers=timers, me=me
        )
        self._deadlines = AgentDeadlines(self._index, self._queue, groups, timers, me, self._input_read)
        self._supervisor = AgentSupervisor(
            records=self._records,
            answers=self._answers,
            launcher=self._launcher,
            queue=self._queue,
            groups=groups,
            trees=self._trees,
            deadlines=self._deadlines,
        )

    def _make_services(self) -> None:
        """The parts that answer requests."""
        registry, options = self._registry, self._options
        self._following = LogFollowing(self._logs, self._timers, self.me)
        self._chains = Chains(self._index.agents, options, self._announcer)
        self._spawn_requests = SpawnRequests(
            registry=registry,
            projects=self._projects,
            profiles=self._profiles,
            tokens=self._tokens,
            records=self._records,
            queue=self._queue,
            supervisor=self._supervisor,
            chains=self._chains,
        )
        self._retention = AgentRetention(
            index=self._index,
            queue=self._queue,
            registry=registry,
            tokens=self._tokens,
            logs=self._logs,
            keep_ended=options.keep_ended,
        )

    def _take_over(self) -> None:
        """Take over the agents left by another sidecar, or by another incarnation of this actor."""
        adoption = Adoption(self._records, self._launcher, self._trees.look_now())
        adoption.recover_lost(self._registry, self._profiles, self._logs)
        stop_waiting()  # what the last incarnation has put off
        exits = [fact.exited for fact in self.pending_facts() if isinstance(fact, ProcessExited)]
        self._supervisor.do(adoption.steps(exits))
        self._trees.sweep()  # for what belongs to nobody any more

    def release(self) -> None:
        # Where `on_start` failed there may be none.
        writer: RegistryWriter | None = getattr(self, "_writer", None)
        trees: ProcessTrees | None = getattr(self, "_trees", None)
        try:
            if trees is not None:
                trees.close()
                self._log_watch.stop()
        finally:
            if writer is not None:
                writer.close()
            self._registry.close()

    def handle(self, message: m.SpawnerRequest | SpawnerFact) -> Any:
        try:
            return self._answer(message)
        finally:
            # What the bus has taken is noted with the next change, or the last of them: sent twice, it counts once.
            if not isinstance(message, AnnouncementAnswered) or not self._registry.unsent:
                self._answers.settle(self._writer.save())
            self._announcer.send()
            self._answer_drained()

    def _answer(self, message: m.SpawnerRequest | SpawnerFact) -> Any:
        match message:
            case m.SpawnAgent():
                return self._spawn_requests.spawn(message)
            case m.ListAgents(project_id=project_id):
                visible = [a for a in self._index.agents.values() if a.is_visible_to(project_id)]
                self._queue.explain(*visible)
                return tuple(a.status() for a in sorted(visible, key=lambda a: -a.record.serial))
            case m.GetAgent(agent_id=agent_id, project_id=project_id):
                return self._explained(self._agent(agent_id, project_id))
            case m.FindSpec(agent_id=agent_id):
                agent = self._index.agents.get(agent_id)
                return agent.record.spec if agent is not None else None
            case m.StopAgent():
                return self._stop_agent(message)
            case m.RestartAgent(agent_id=agent_id, project_id=project_id):
                return self._restart_agent(self._agent(agent_id, project_id))
            case m.RecordHeartbeat(agent_id=agent_id):
                agent = self._agent(agent_id, None)
                agent.last_heard = time.monotonic()
                return agent.status()
            case m.ReadLogs(agent_id=agent_id, project_id=project_id):
                return self._following.read(self._agent(agent_id, project_id), message, self.later())
            case m.RefreshToken():
                return self._refresh(message)
            case m.CountAgents(project_id=project_id):
                visible = [agent for agent in self._index.agents.values() if agent.is_visible_to(project_id)]
                tallies = [t for t in self._registry.tallies.values() if project_id in (None, t.project_id)]
                return count(visible, tallies)
            case m.Drain():
                return self._drain(message)
            case _:
                return self._take_in(message)

    def _take_in(self, fact: SpawnerFact) -> None:
        match fact:
            case LogEndsAt(event_id=event_id):
                self._triggers.log_ends_at(event_id)
            case TriggerEventPublished(event=event):
                if not self._queue.is_closed:
                    self._triggers.look_at(event, self._chains.of_event, self._spawn_requests.spawn)
            case ProcessExited(exited=exited):
                self._supervisor.exited(exited, again=lambda: self.me.tell(fact))
            case CensusTaken():
                self._supervisor.census_taken(fact)
                self._bounds.look(self._index.in_state(*HOLDS_SLOT), self._index.in_state(*ENDED))
            case CensusDue():
                self._trees.census_due()
            case AgentDue():
                self._supervisor.do(self._deadlines.due(fact))
            case QueueDue():
                self._supervisor.do(self._queue.due(fact))
                self._retention.look()
            case ClockGap(gap_s=gap_s):
                self._deadlines.excuse(gap_s)
            case LogsDue():
                self._following.look()
            case SaveDue() | SettleDue() | RegistrySynced():
                if (failure := self._writer.handle(fact)) is not None and self._handle is not None:
                    self._handle.restart(failure)
            case AnnouncementAnswered() | AnnouncementDue():
                self._announcer.handle(fact)
            case _:
                assert_never(fact)

    # --- requests ------------------------------------------------------------------------------------------

    def _explained(self, agent: SupervisedAgent) -> AgentStatus:
        self._queue.explain(agent)
        return agent.status()

    def _stop_agent(self, request: m.StopAgent) -> Later[AgentStatus]:
        agent = self._agent(request.agent_id, request.project_id)
        state = agent.record.state
        if state.has_ended:
            raise WrongState(f"agent {agent.id} has ended already: it is {state}", state=state)
        later: Later[AgentStatus] = self.later()
        if state in WAITS or state is AgentState.BACKING_OFF:
            self._supervisor.drop(agent, later)
            return later
        wanted_s = agent.profile.stop_timeout_seconds if request.timeout_s is None else request.timeout_s
        grace_s = 0.0 if request.force else max(0.0, wanted_s)
        agent.stop_waiters.append(later)
        agent.refuse_started(WrongState(f"agent {agent.id} was told to stop", state=AgentState.STOPPING))
        self._end_tree(
            agent, AfterStop.STOPPED, "it was stopped by request", 0.0 if request.force else max(0.0, grace_s)
        )
        return later

    def _restart_agent(self, agent: SupervisedAgent) -> Later[AgentStatus]:
        if self._queue.is_closed:
            raise Unavailable("the sidecar is shutting down and starts no agents")
        state = agent.record.state
        if state in WAITS:
            raise WrongState(f"agent {agent.id} is {state}: it has not been started yet", state=state)
        later: Later[AgentStatus] = self.later()
        agent.start_waiters.append(later)
        if state in RUNS:
            self._end_tree(agent, AfterStop.STARTED_ANEW, "it was restarted by request")
        else:
            self._supervisor.do((StartAgain(agent.id),))
        return later

    def _end_tree(self, agent: SupervisedAgent, after: AfterStop, note: str, grace_s: float | None = None) -> None:
        self._supervisor.do((Stop(agent_id=agent.id, after=after, note=note, grace_s=grace_s),))

    def _refresh(self, request: m.RefreshToken) -> Later[Token]:
        agent = self._index.agents.get(request.caller.agent_id)
        record = agent.record if agent is not None else None
        token, record = self._tokens.refresh(request.caller, record, now=utc_now())
        if agent is not None and record is not None:
            self._records.remember(agent, tokens=record.tokens)
        later: Later[Token] = self.later()
        # Both must be kept: the new token, or it could not be revoked later, and the revocation of the old one.
        self._answers.owe(later, token, f"the token of {request.caller.agent_id} is refreshed")
        return later

    def _drain(self, request: m.Drain) -> Later[int]:
        """All agents at once, one deadline. Asked again, it can only be sooner."""
        self._queue.is_closed = True
        running = [agent for agent in self._index.agents.values() if agent.record.state in RUNS]
        later: Later[int] = self.later()
        if request.leave or self._options.on_shutdown == "detach":
            log.info("agents left running count=%d", len(running))
            later.answer(0)
            return later
        for agent in tuple(self._index.agents.values()):
            if agent.record.state is AgentState.BACKING_OFF:
                self._supervisor.drop(agent)
        for agent in running:
            self._end_tree(agent, AfterStop.STOPPED, "the sidecar was shut down", request.timeout_s * _DRAIN_MARGIN)
        self._trees.sweep()
        self._drained.append((later, len(running)))
        return later

    def _answer_drained(self) -> None:
        if self._drained and self._supervisor.is_quiet:
            for later, count in self._drained:
                later.answer(count)
            self._drained.clear()

    # --- the registry --------------------------------------------------------------------------------------

    def _agent(self, agent_id: AgentId, project_id: str | None) -> SupervisedAgent:
        agent = self._index.agents.get(agent_id)
        if agent is None or not agent.is_visible_to(project_id):
            raise NotFound(f"agent {agent_id} is not known", field="agent_id")
        return agent
