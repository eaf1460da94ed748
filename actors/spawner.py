"""Spawner: owns the agents. Starts, supervises and ends their processes, and answers what is asked about them."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any, assert_never

import msgspec

from ..state.agent_registry import AgentRecord, AgentRegistry, Forgotten, Tally
from ..state.clock import utc_now
from ..state.errors import (
    IdempotencyConflict,
    NoCommand,
    NotFound,
    SpawnFailed,
    StorageUnavailable,
    Unavailable,
    WrongState,
)
from ..state.identity import Revocations, Token, TokenKey
from ..state.ids import unique_hex
from ..state.models import AgentId, AgentSpec, AgentState, AgentStatus, ExitCause, identifier
from ..state.projects import Projects
from ..state.trace import new_traceparent
from ..supervision.agent_logs import AgentLogs
from ..supervision.fleet import SpawnerOptions, Trigger
from ..supervision.launch import check_environment, check_text, inherited
from ..supervision.profile import Profiles
from . import messages as m
from .adoption import adopt
from .agent import ENDED, RUNS, Agent, AgentDue, CensusDue, CensusTaken, LogsDue, ProcessExited, QueueDue, SaveDue, Then
from .agent_book import AgentBook
from .agent_numbers import count, with_one_more
from .agent_tokens import AgentTokens
from .announcer import AnnouncementAnswered, AnnouncementDue, Announcer
from .asking import Later, Recipient
from .keeper import Keeper
from .log_bounds import LogBounds
from .log_following import LogFollowing
from .owner import Owner
from .replies import SpawnedAgent
from .starting import Starting
from .timers import Timers
from .triggers import Triggers

log = logging.getLogger(__name__)

_SAVE_AGAIN_S = 1.0
_FORGET_TOKENS_EVERY_S = 60.0  # there may be thousands to go through
_DRAIN_MARGIN = 0.7  # of the time to drain, before SIGKILL: the rest is for what comes after it

SpawnerFact = (
    m.EventPublished
    | ProcessExited
    | CensusTaken
    | CensusDue
    | AgentDue
    | QueueDue
    | SaveDue
    | LogsDue
    | AnnouncementAnswered
    | AnnouncementDue
)


class Spawner(Owner):
    """storage: its registry and the agents' logs lie below. base_url: of the server, without `/api`."""

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
    ) -> None:
        super().__init__()
        self._profiles = profiles
        self._projects = projects
        self._options = options
        self._bus = bus
        self._timers = timers
        self._base_url = base_url
        self._registry = AgentRegistry(storage / "registry")
        self._tokens = AgentTokens(key, revocations, self._registry)
        self._triggers = Triggers(triggers, profiles, self._registry, now=utc_now())
        self._logs = AgentLogs(storage / "logs", max_bytes=int(options.log_max_mb * 2**20))
        self._bounds = LogBounds(self._logs, min_free_bytes=int(options.min_free_disk_mb * 2**20))
        self._drained: list[tuple[Later[int], int]] = []
        self._is_saving_later = False
        self._forget_tokens_at = 0.0

    def on_start(self) -> None:
        self._announcer = Announcer(self._registry, self._bus, self._timers, self.me)
        self._following = LogFollowing(self._logs, self._timers, self.me)
        book = AgentBook(
            registry=self._registry,
            tokens=self._tokens,
            announcer=self._announcer,
            logs=self._logs,
            bus=self._bus,
        )
        self._keeper = Keeper(
            book=book,
            registry=self._registry,
            options=self._options,
            starting=Starting(
                projects=self._projects,
                tokens=self._tokens,
                logs=self._logs,
                instance_id=self._registry.instance_id,
                api_url=f"{self._base_url}/api",
                base_env=inherited(os.environ),
            ),
            instance_id=self._registry.instance_id,
            timers=self._timers,
            me=self.me,
        )
        self._agents = book.agents
        for record in self._registry.agents.values():
            book.add(Agent(record, self._profiles.of(record.spec.agent_type)))
        self._keeper.open()
        if not self._registry.is_new:
            adopt(self._keeper)
            self._keeper.sweep()  # for what belongs to nobody any more
        self._keeper.run_queue()
        self._save()
        self._announcer.send()
        self._bus.tell(m.TellTriggered(since=self._triggers.place))

    def release(self) -> None:
        keeper: Keeper | None = getattr(self, "_keeper", None)
        if keeper is not None:
            keeper.close()
        self._registry.close()

    def handle(self, message: m.SpawnerRequest | SpawnerFact) -> Any:
        try:
            return self._answer(message)
        finally:
            # What the bus has taken is noted with the next change, or the last of them: sent twice, it counts once.
            if not isinstance(message, AnnouncementAnswered) or not self._registry.unsent:
                self._save()
            self._announcer.send()
            self._answer_drained()

    def _answer(self, message: m.SpawnerRequest | SpawnerFact) -> Any:
        match message:
            case m.SpawnAgent():
                return self._spawn_agent(message)
            case m.ListAgents(project_id=project_id):
                visible = [a for a in self._agents.values() if a.is_visible_to(project_id)]
                return tuple(a.status() for a in sorted(visible, key=lambda a: -a.record.serial))
            case m.GetAgent(agent_id=agent_id, project_id=project_id):
                return self._agent(agent_id, project_id).status()
            case m.FindSpec(agent_id=agent_id):
                agent = self._agents.get(agent_id)
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
                return self._following.read(self._agent(agent_id, project_id), message)
            case m.RefreshToken():
                return self._refresh(message)
            case m.CountAgents(project_id=project_id):
                visible = [agent for agent in self._agents.values() if agent.is_visible_to(project_id)]
                tallies = [t for t in self._registry.tallies.values() if project_id in (None, t.project_id)]
                return count(visible, tallies)
            case m.Drain(timeout_s=timeout_s):
                return self._drain(timeout_s)
            case _:
                return self._take_in(message)

    def _take_in(self, fact: SpawnerFact) -> None:
        match fact:
            case m.EventPublished(event=event):
                if not self._keeper.is_draining:
                    self._triggers.look_at(event, self._spawn_agent)
            case ProcessExited(exited=exited):
                self._keeper.exited(exited)
            case CensusTaken():
                self._keeper.census_taken(fact)
                self._bounds.look(self._keeper.book.in_state(*RUNS), self._keeper.book.in_state(*ENDED))
            case CensusDue():
                self._keeper.census_due()
            case AgentDue():
                self._keeper.due(fact)
            case QueueDue():
                self._keeper.run_queue()
                self._forget_the_oldest()
            case SaveDue():
                self._is_saving_later = False
            case LogsDue():
                self._following.look()
            case AnnouncementAnswered() | AnnouncementDue():
                self._announcer.handle(fact)
            case _:
                assert_never(fact)

    # --- requests ------------------------------------------------------------------------------------------

    def _spawn_agent(self, request: m.SpawnAgent) -> SpawnedAgent:
        digest = _digest(request)
        if (earlier := self._spawned_before(request, digest)) is not None:
            return self._first_answer(earlier)
        if self._keeper.is_draining:
            raise Unavailable("the sidecar is shutting down and starts no agents")
        spec = self._spec(request)
        profile = self._profiles.of(spec.agent_type)
        if not profile.command:
            raise NoCommand(
                f"agent type {spec.agent_type} has no command: its profile sets none",
                field="agent_type",
                expected=f"a `command` in [profiles.{spec.agent_type}] of sidecar.toml",
            )
        record = AgentRecord(
            spec=spec,
            serial=self._registry.next_serial(),
            requested_by=request.requested_by,
            idempotency_key=request.idempotency_key,
            request_digest=digest,
            created_at=utc_now(),
        )
        agent = Agent(record, profile)
        self._keeper.enter(agent)
        return self._first_answer(agent)

    def _spec(self, request: m.SpawnAgent) -> AgentSpec:
        """What is to be spawned. Raises InvalidRequest."""
        identifier(request.issue_id, "issue_id")
        identifier(request.project_id, "project_id")
        check_environment(request.environment)
        check_text(request.task, "task")
        # An identifier has at most 128 characters, and the id's random part is to fit.
        kind = identifier(request.agent_type, "agent_type")[:118]
        self._projects.root_of(request.project_id)
        return AgentSpec(
            agent_id=AgentId(f"{kind}-{unique_hex(8)}"),
            agent_type=request.agent_type,
            issue_id=request.issue_id,
            project_id=request.project_id,
            task=request.task,
            context_requirements=request.context_requirements,
            environment=dict(request.environment),
            priority=request.priority,
            traceparent=request.traceparent or new_traceparent(),
        )

    def _spawned_before(self, request: m.SpawnAgent, digest: str) -> Agent | None:
        """The agent that an earlier request with this idempotency key spawned. Raises IdempotencyConflict."""
        if request.idempotency_key is None:
            return None
        for agent in self._agents.values():
            record = agent.record
            if (record.requested_by, record.idempotency_key) == (request.requested_by, request.idempotency_key):
                if record.request_digest != digest:
                    raise IdempotencyConflict(f"idempotency key {request.idempotency_key} spawned another agent")
                return agent
        return None

    def _first_answer(self, agent: Agent) -> SpawnedAgent:
        record = agent.record
        if record.incarnation == 1 and record.cause is ExitCause.START_FAILED:
            raise SpawnFailed(f"agent {agent.id} could not be started: {record.last_error}", agent_id=agent.id)
        token = None
        if record.state is not AgentState.QUEUED and agent.token is not None:
            token = agent.token
        return SpawnedAgent(agent.status(), token, context_injected=record.incarnation > 0)

    def _stop_agent(self, request: m.StopAgent) -> AgentStatus | Later[AgentStatus]:
        agent = self._agent(request.agent_id, request.project_id)
        state = agent.record.state
        if state.has_ended:
            raise WrongState(f"agent {agent.id} has ended already: it is {state}", state=state)
        if state in (AgentState.QUEUED, AgentState.BACKING_OFF):
            self._keeper.drop(agent)
            return agent.status()
        grace_s = agent.profile.stop_timeout_seconds if request.timeout_s is None else request.timeout_s
        later: Later[AgentStatus] = Later()
        agent.stop_waiters.append(later)
        agent.refuse_started(WrongState(f"agent {agent.id} was told to stop", state=AgentState.STOPPING))
        self._keeper.end(
            agent, Then.STOPPED, note="it was stopped by request", grace_s=0.0 if request.force else max(0.0, grace_s)
        )
        return later

    def _restart_agent(self, agent: Agent) -> AgentStatus | Later[AgentStatus]:
        if self._keeper.is_draining:
            raise Unavailable("the sidecar is shutting down and starts no agents")
        state = agent.record.state
        if state is AgentState.QUEUED:
            raise WrongState(f"agent {agent.id} is queued: it has not been started yet", state=state)
        later: Later[AgentStatus] = Later()
        agent.start_waiters.append(later)
        if state in RUNS:
            self._keeper.end(agent, Then.STARTED_ANEW, note="it was restarted by request")
        else:
            self._keeper.start_anew(agent)
        return later

    def _refresh(self, request: m.RefreshToken) -> Token:
        agent = self._agents.get(request.caller.agent_id)
        record = agent.record if agent is not None else None
        token, record = self._tokens.refresh(request.caller, record, now=utc_now())
        if agent is not None and record is not None:
            agent.record = record
            self._registry.put(record)
        self._registry.commit()  # a token must not be forgotten: its revocation would be, too
        return token

    def _drain(self, timeout_s: float) -> Later[int]:
        """All agents at once, one deadline. Asked again, it can only be sooner."""
        self._keeper.is_draining = True
        running = [agent for agent in self._agents.values() if agent.record.state in RUNS]
        later: Later[int] = Later()
        if self._options.on_shutdown == "detach":
            log.info("agents left running count=%d", len(running))
            later.answer(0)
            return later
        for agent in tuple(self._agents.values()):
            if agent.record.state is AgentState.BACKING_OFF:
                self._keeper.drop(agent)
        for agent in running:
            self._keeper.end(agent, Then.STOPPED, note="the sidecar was shut down", grace_s=timeout_s * _DRAIN_MARGIN)
        self._keeper.sweep()
        self._drained.append((later, len(running)))
        return later

    def _answer_drained(self) -> None:
        if self._drained and self._keeper.is_quiet:
            for later, count in self._drained:
                later.answer(count)
            self._drained.clear()

    # --- the registry --------------------------------------------------------------------------------------

    def _agent(self, agent_id: AgentId, project_id: str | None) -> Agent:
        agent = self._agents.get(agent_id)
        if agent is None or not agent.is_visible_to(project_id):
            raise NotFound(f"agent {agent_id} is not known", field="agent_id")
        return agent

    def _save(self) -> None:
        try:
            self._registry.commit()
        except StorageUnavailable as error:
            log.error("agents not recorded, trying again in %g s: %s", _SAVE_AGAIN_S, error)
            if not self._is_saving_later:
                self._is_saving_later = True
                self._timers.tell_after(_SAVE_AGAIN_S, self.me, SaveDue())

    def _forget_the_oldest(self) -> None:
        """Those that ended long ago leave the list, and their logs the disk; the totals keep counting them."""
        book = self._keeper.book
        too_many = book.count(*ENDED) - self._options.keep_ended
        if too_many > 0:
            ended = sorted(book.in_state(*ENDED), key=lambda a: a.record.ended_at or utc_now())
            for agent in ended[:too_many]:
                self._forget(agent)
        if (now := time.monotonic()) >= self._forget_tokens_at:
            self._forget_tokens_at = now + _FORGET_TOKENS_EVERY_S
            self._tokens.forget_expired(now=utc_now())

    def _forget(self, agent: Agent) -> None:
        record = agent.record
        where = (record.spec.project_id, record.spec.agent_type)
        tally = self._registry.tallies.get(where) or Tally(project_id=where[0], agent_type=where[1])
        self._registry.put(with_one_more(tally, record))
        self._registry.put(Forgotten(agent_id=agent.id))
        self._logs.remove(record.serial)
        self._keeper.book.forget(agent)


def _digest(request: m.SpawnAgent) -> str:
    """The same for two requests that ask for the same, in whichever trace."""
    left_out = ("idempotency_key", "traceparent")
    body = {name: value for name, value in msgspec.structs.asdict(request).items() if name not in left_out}
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()
