"""Keeper: keeps agents running: starts them when it is their turn, sees them end, restarts them, ends them.

Used by the Spawner in its thread. Nothing here waits: exits, looks at the process table and times come back as facts.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import msgspec

from ..state.agent_registry import AgentRegistry, TokenRef
from ..state.clock import utc_now
from ..state.errors import SpawnFailed, StorageUnavailable
from ..state.identity import Token
from ..state.models import AgentId, AgentState, ExitCause
from ..supervision.agent_logs import AgentLogs
from ..supervision.fleet import SpawnBucket, SpawnerOptions
from ..supervision.lifecycle import Occurrence, after
from ..supervision.limits import Broken
from ..supervision.process import ExitStatus, StartedProcess, boot_id, oom_kills
from ..supervision.process_exits import Exited
from ..supervision.process_tree import Trees
from ..supervision.restart import Decision, Verdict
from .agent import (
    HOLDS_SLOT,
    RUNS,
    Agent,
    AgentDue,
    CensusTaken,
    DueWhat,
    QueueDue,
    describe_end,
    how_it_ended,
)
from .agent_tokens import AgentTokens
from .announcer import Announcer
from .asking import Recipient
from .ending import Ending
from .messages import AgentEnded, AgentSubscribed
from .starting import Starting, Successor
from .timers import Timers

log = logging.getLogger(__name__)

LAST_LINES = 20
_PRIORITY = {"high": 0, "normal": 1, "low": 2}


class Keeper:
    """agents: everyone known, by id. All times that decide are monotonic."""

    def __init__(
        self,
        *,
        registry: AgentRegistry,
        options: SpawnerOptions,
        starting: Starting,
        tokens: AgentTokens,
        announcer: Announcer,
        logs: AgentLogs,
        bus: Recipient,
        timers: Timers,
        me: Recipient,
    ) -> None:
        self.agents: dict[AgentId, Agent] = {}
        self.is_draining = False
        self._registry = registry
        self._options = options
        self._starting = starting
        self._tokens = tokens
        self.announcer = announcer
        self._logs = logs
        self._bus = bus
        self._timers = timers
        self._me = me
        self._oom_kills = oom_kills()
        self._bucket = SpawnBucket(
            per_second=options.spawns_per_second, burst=options.spawn_burst, now=time.monotonic()
        )
        self._ending = Ending(
            self.agents,
            instance_id=registry.instance_id,
            sample_s=options.sample_seconds,
            timers=timers,
            me=me,
            gone=self._gone,
            broke_limit=self._broke_limit,
        )

    def open(self) -> None:
        self._ending.open()

    def close(self) -> None:
        """Look no longer; what runs goes on running."""
        self._ending.close()

    def look_now(self) -> Trees:
        """The trees of this storage's agents, seen in this thread: before `open` only."""
        return self._ending.look_now()

    # --- starting ------------------------------------------------------------------------------------------

    @property
    def has_slot(self) -> bool:
        used = sum(agent.record.state in HOLDS_SLOT for agent in self.agents.values())
        return used < self._options.max_concurrent

    @property
    def is_quiet(self) -> bool:
        """No agent's process runs, nor anything that one left behind."""
        return self._ending.is_settled and not any(a.record.state in RUNS for a in self.agents.values())

    def run_queue(self) -> None:
        """Start who is next, as long as there are slots: by priority, then age."""
        while not self.is_draining:
            queued = [agent for agent in self.agents.values() if agent.record.state is AgentState.QUEUED]
            if not queued or not self.has_slot:
                return
            agent = min(queued, key=lambda a: (_PRIORITY[a.record.spec.priority], a.record.serial))
            if agent.record.incarnation == 0 and (wait_s := self._bucket.take(now=time.monotonic())) > 0:
                self._timers.tell_after(wait_s, self._me, QueueDue())
                return
            self._start(agent, Occurrence.TURN_CAME)

    def start_anew(self, agent: Agent) -> None:
        """Start one that has ended, or that waits for its restart, with a clean history."""
        self.change(agent, Occurrence.START_ASKED, deaths=(), in_a_row=0)
        if self.has_slot and not self.is_draining:
            self._start(agent, Occurrence.TURN_CAME)
        else:
            agent.answer_started()  # queued

    def _start(self, agent: Agent, occurrence: Occurrence) -> None:
        """Start the next incarnation. The intent is on the disk before the process is there."""
        incarnation = agent.record.incarnation + 1
        token = self._starting.mint(agent.record, agent.profile)
        self.change(agent, occurrence, incarnation=incarnation, process=None, tokens=(_ref(token),), resume_at=0.0)
        try:
            self._registry.commit()
        except StorageUnavailable as error:
            log.error("start not recorded agent_id=%s incarnation=%d: %s", agent.id, incarnation, error)
        try:
            process = self._starting.start(agent.record, agent.profile, token)
        except SpawnFailed as error:
            self._start_failed(agent, error.message)
        else:
            self._started(agent, process, token)

    def _started(self, agent: Agent, process: StartedProcess, token: Token) -> None:
        agent.token = token
        self.change(
            agent,
            Occurrence.STARTED,
            process=process.identity,
            boot_id=boot_id(),
            started_at=utc_now(),
            started_monotonic=time.monotonic(),
            ended_at=None,
        )
        self.watch(agent, process)
        if agent.record.incarnation == 1:
            self.announcer.announce("agent_spawned", agent.record)
        self.announcer.announce("agent_started", agent.record)
        agent.answer_started()

    def watch(self, agent: Agent, process: StartedProcess) -> None:
        """Its process runs: see it end, measure it, and see to its limits."""
        record, profile = agent.record, agent.profile
        agent.last_heard = time.monotonic()
        self._ending.watch(agent, process, self._starting.succession(record, profile))
        if profile.run_timeout_seconds > 0:
            left_s = record.started_monotonic + profile.run_timeout_seconds - time.monotonic()
            self.tell_after(left_s, agent, "run_timeout")
        if profile.heartbeat_timeout_seconds > 0:
            self.tell_after(profile.heartbeat_timeout_seconds, agent, "heartbeat")
        self._bus.tell(
            AgentSubscribed(
                agent_id=agent.id,
                project_id=record.spec.project_id,
                topics=frozenset(profile.subscribes_to),
                since=record.created_at,
                incarnation=record.incarnation,
            )
        )

    def _start_failed(self, agent: Agent, why: str) -> None:
        """A first start that fails is for whoever asked to mend; a later one is a death like any other."""
        now = time.monotonic()
        self.remember(
            agent,
            cause=ExitCause.START_FAILED,
            exit_code=None,
            signal=None,
            last_error=why,
            ran_for_s=0.0,
            started_monotonic=now,
        )
        decision = self._starting.decide(agent.record, agent.profile, None, at=now)
        if agent.record.incarnation == 1:
            self._give_up(agent, Occurrence.START_FAILED, why, ())
        elif decision.verdict is not Verdict.RESTART:
            self._give_up(agent, Occurrence.GIVEN_UP, decision.reason, ())
        else:
            self._back_off(agent, decision, now)

    # --- ending --------------------------------------------------------------------------------------------

    def end(self, agent: Agent, cause: ExitCause, *, note: str = "", grace_s: float) -> None:
        """End its whole tree: SIGTERM, and SIGKILL after `grace_s` seconds; at once if that is 0."""
        if agent.record.state is AgentState.RUNNING:
            self.change(agent, Occurrence.STOP_ASKED)
        self._ending.end(agent, cause, note=note, grace_s=grace_s)

    def drop(self, agent: Agent) -> None:
        """End an agent that has no process: it is queued, or waits for its restart."""
        self.change(agent, Occurrence.STOP_ASKED, cause=ExitCause.KILLED)
        self._end_for_good(agent)
        self.announcer.announce("agent_stopped", agent.record, cause=ExitCause.KILLED)

    def exited(self, exited: Exited) -> None:
        agent = self.agents.get(AgentId(exited.agent_id))
        if agent is None or agent.record.incarnation != exited.incarnation or agent.record.process is None:
            return
        successor = exited.succession if isinstance(exited.succession, Successor) else None
        if agent.record.state is AgentState.STOPPING and successor is not None and successor.process is not None:
            self._end_successor(agent, successor, successor.process)
        elif not self._ending.leader_exited(agent, exited):
            self.died(agent, exited, successor)

    def sweep(self) -> None:
        self._ending.sweep()

    def census_taken(self, fact: CensusTaken) -> None:
        self._ending.census_taken(fact)

    def census_due(self) -> None:
        self._ending.census_due()

    def due(self, fact: AgentDue) -> None:
        agent = self.agents.get(fact.agent_id)
        if agent is None or agent.record.incarnation != fact.incarnation:
            return
        state, profile, now = agent.record.state, agent.profile, time.monotonic()
        match fact.what:
            case "backed_off":
                if state is AgentState.BACKING_OFF and not self.is_draining:
                    self._start(agent, Occurrence.BACKED_OFF)
            case "stop_deadline":
                if state is AgentState.STOPPING and now >= agent.stop_at:
                    self._ending.kill(agent)
            case "run_timeout":
                if state is AgentState.RUNNING:
                    note = f"it ran longer than {profile.run_timeout_seconds:g} s"
                    self.end(agent, ExitCause.TIMEOUT, note=note, grace_s=profile.stop_timeout_seconds)
            case "heartbeat":
                left_s = agent.last_heard + profile.heartbeat_timeout_seconds - now
                if state is AgentState.RUNNING and left_s > 0:
                    self.tell_after(left_s, agent, "heartbeat")
                elif state is AgentState.RUNNING:
                    note = f"nothing was heard of it for {profile.heartbeat_timeout_seconds:g} s"
                    self.end(agent, ExitCause.HEARTBEAT, note=note, grace_s=profile.stop_timeout_seconds)

    def _broke_limit(self, agent: Agent, broken: Broken) -> None:
        grace_s = 0.0 if broken.is_urgent else agent.profile.stop_timeout_seconds
        self.end(agent, broken.cause, note=broken.note, grace_s=grace_s)

    def _end_successor(self, agent: Agent, successor: Successor, process: StartedProcess) -> None:
        """It was restarted in the very moment in which it was told to end."""
        tokens = agent.record.tokens if successor.token is None else (*agent.record.tokens, _ref(successor.token))
        self.remember(agent, incarnation=agent.record.incarnation + 1, process=process.identity, tokens=tokens)
        self._ending.watch(agent, process, None)
        self._ending.kill(agent)

    def _gone(self, agent: Agent, exited: Exited) -> None:
        """What the sidecar was ending has ended, and nothing of its tree is left."""
        if agent.ending is not ExitCause.KILLED or agent.ending_note:
            self.died(agent, exited, None)
            return
        self.stopped(agent, exited)

    def stopped(self, agent: Agent, exited: Exited) -> None:
        """It ended because that was asked for."""
        self._record_end(agent, exited, ExitCause.KILLED, "it was stopped by request")
        self.change(agent, Occurrence.STOPPED)
        self._end_for_good(agent)
        self.announcer.announce("agent_stopped", agent.record, cause=ExitCause.KILLED)
        if agent.start_asked:
            self.start_anew(agent)

    def died(self, agent: Agent, exited: Exited, successor: Successor | None) -> None:
        """It ended by itself, or for breaking a limit: the policy says what follows."""
        cause = agent.ending or self._cause_of(exited.status)
        exit_code = exited.status.exit_code if agent.ending is None else None
        if successor is not None:
            decision = successor.decision
        else:
            decision = self._starting.decide(agent.record, agent.profile, exit_code, at=exited.at)
        lines = self._record_end(agent, exited, cause, agent.ending_note)
        self._ending.sweep()
        match decision.verdict:
            case Verdict.COMPLETE:
                self.remember(agent, last_error=None)
                self.change(agent, Occurrence.COMPLETED)
                self._end_for_good(agent)
            case Verdict.GIVE_UP:
                self._give_up(agent, Occurrence.GIVEN_UP, decision.reason, lines)
            case Verdict.RESTART:
                self._back_off(agent, decision, exited.at, successor)

    def _record_end(self, agent: Agent, exited: Exited, cause: ExitCause | None, note: str) -> tuple[str, ...]:
        """Put down how an incarnation ended, and publish it. Returns its last lines."""
        status = exited.status
        lines = self._logs.last_lines(agent.record.serial, LAST_LINES)
        ran_for_s = max(0.0, exited.at - agent.record.started_monotonic)
        agent.ended_runs = (agent.ended_runs[0] + 1, agent.ended_runs[1] + ran_for_s)
        agent.forget_process()
        self.remember(
            agent,
            exit_code=status.exit_code,
            signal=status.signal,
            cause=cause,
            ran_for_s=ran_for_s,
            last_error=describe_end(status, note, lines),
        )
        self.announcer.announce(
            "agent_exited", agent.record, **how_it_ended(agent.record, lines), uptime_seconds=round(ran_for_s, 3)
        )
        return lines

    def _back_off(self, agent: Agent, decision: Decision, at: float, successor: Successor | None = None) -> None:
        """Restart after the delay; at once if there is none, unless the exit watcher has done that already."""
        self._tokens.revoke_all(agent.record, now=utc_now())
        self.change(
            agent,
            Occurrence.WILL_RESTART,
            deaths=decision.history.deaths,
            in_a_row=decision.history.in_a_row,
            boot_id=boot_id(),
            resume_at=at + decision.delay_s,
            process=None,
            tokens=(),
        )
        delay_ms = round(decision.delay_s * 1000)
        self.announcer.announce("agent_restarting", agent.record, **how_it_ended(agent.record), delay_ms=delay_ms)
        if successor is not None and successor.process is not None and successor.token is not None:
            incarnation = agent.record.incarnation + 1
            self.change(agent, Occurrence.BACKED_OFF, incarnation=incarnation, tokens=(_ref(successor.token),))
            self._started(agent, successor.process, successor.token)
        elif successor is not None and successor.error is not None:
            self.change(agent, Occurrence.BACKED_OFF, incarnation=agent.record.incarnation + 1)
            self._start_failed(agent, successor.error)
        else:
            self.tell_after(agent.record.resume_at - time.monotonic(), agent, "backed_off")

    def _give_up(self, agent: Agent, occurrence: Occurrence, reason: str, lines: tuple[str, ...]) -> None:
        self.change(agent, occurrence)
        self._end_for_good(agent)
        how = how_it_ended(agent.record, lines)
        self.announcer.announce("agent_failed", agent.record, topic="error", reason=reason, **how)

    def _end_for_good(self, agent: Agent) -> None:
        """In a state that has ended: its tokens are good no longer, its slot is free."""
        now = utc_now()
        self._tokens.revoke_all(agent.record, now=now)
        self.remember(agent, ended_at=now, tokens=(), deaths=(), in_a_row=0)
        agent.token = None
        self._bus.tell(AgentEnded(agent_id=agent.id))
        agent.answer_stopped()
        self._me.tell(QueueDue())

    # --- the record ----------------------------------------------------------------------------------------

    def change(self, agent: Agent, occurrence: Occurrence, **changes: Any) -> None:
        self.remember(agent, state=after(agent.record.state, occurrence), **changes)

    def remember(self, agent: Agent, **changes: Any) -> None:
        agent.record = msgspec.structs.replace(agent.record, **changes)
        self._registry.put(agent.record)

    def tell_after(self, delay_s: float, agent: Agent, what: DueWhat) -> None:
        self._timers.tell_after(delay_s, self._me, AgentDue(agent.id, agent.record.incarnation, what))

    def _cause_of(self, status: ExitStatus) -> ExitCause | None:
        """None where nobody could see how it ended."""
        if status.signal is None:
            return ExitCause.EXIT if status.exit_code is not None else None
        if status.signal == signal.SIGKILL and (kills := oom_kills()) > self._oom_kills:
            self._oom_kills = kills
            return ExitCause.OOM
        return ExitCause.SIGNAL


def _ref(token: Token) -> TokenRef:
    return TokenRef(token.token_id, token.expires_at)
