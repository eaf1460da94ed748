"""AgentRecords: the records of agents. Every change is stored in the registry, and announced if others need it.

Used in the Spawner's thread. It decides nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from ...state.agent_entries import TokenRef
from ...state.agent_registry import AgentRegistry
from ...state.clock import utc_now
from ...state.errors import StorageUnavailable
from ...state.identity import Token
from ...state.models import ExitCause
from ...supervision.agent_logs import AgentLogs
from ...supervision.lifecycle import Occurrence, after
from ...supervision.log_watch import LogWatch
from ...supervision.process_identity import boot_id
from ...supervision.restart import Decision
from ...supervision.steps import AfterStop, AgentExited, StartedIncarnation
from ..agent_facts import AgentEnded, AgentSubscribed
from ..runtime.asking import Recipient
from .agent import SupervisedAgent
from .agent_index import AgentIndex
from .announcer import Announcer
from .exit_report import describe_end, how_it_ended, log_exit, was_wanted
from .owed_answers import OwedAnswers
from .quoting import is_ready, once_ready, quoted
from .tokens import AgentTokens

log = logging.getLogger(__name__)

LAST_LINES = 20


class AgentRecords:
    """index: all agents, with their records as they are now. announcer: for events about agents."""

    def __init__(
        self,
        *,
        index: AgentIndex,
        registry: AgentRegistry,
        tokens: AgentTokens,
        announcer: Announcer,
        answers: OwedAnswers,
        logs: AgentLogs,
        bus: Recipient,
        log_watch: LogWatch,
    ) -> None:
        self.index = index
        self.announcer = announcer
        self._registry = registry
        self._answers = answers
        self._tokens = tokens
        self._logs = logs
        self._log_watch = log_watch
        self._bus = bus

    def enter(self, agent: SupervisedAgent) -> None:
        """A new agent; on the disk when this returns. Raises StorageUnavailable; then it is none of ours."""
        self._registry.put_now(agent.record)
        self.index.add(agent)

    def enter_starting(self, agent: SupervisedAgent, token: Token) -> None:
        """The same for one whose turn it is at once: the intent to start it is written with it."""
        agent.record = msgspec.structs.replace(
            agent.record,
            state=after(agent.record.state, Occurrence.TURN_CAME),
            incarnation=1,
            tokens=(token_ref(token),),
        )
        self.enter(agent)

    def change(self, agent: SupervisedAgent, occurrence: Occurrence, **changes: Any) -> None:
        """Change the state by the lifecycle table, and the rest of the record with it. Raises WrongState."""
        self.remember(agent, state=after(agent.record.state, occurrence), **changes)

    def remember(self, agent: SupervisedAgent, **changes: Any) -> None:
        """Change the record."""
        self.index.replace(agent, msgspec.structs.replace(agent.record, **changes))
        self._registry.put(agent.record)

    def starts(self, agent: SupervisedAgent, occurrence: Occurrence, token: Token) -> None:
        """Record the intent to start the next incarnation; it is on disk before the process exists."""
        incarnation = agent.record.incarnation + 1
        self.change(agent, occurrence, incarnation=incarnation, process=None, tokens=(token_ref(token),))
        try:
            self._registry.commit()
        except StorageUnavailable as error:
            # It is written with the next commit; a full disk is no reason to leave an agent dead.
            log.error("start not recorded agent_id=%s incarnation=%d: %s", agent.id, incarnation, error)

    def started(self, agent: SupervisedAgent, started: StartedIncarnation) -> None:
        """The process of an agent that is `starting` runs."""
        is_first = agent.record.started_at is None  # which need not be the first that was tried
        agent.token = started.token
        self.change(
            agent,
            Occurrence.STARTED,
            process=started.process.identity,
            log_starts=started.log_starts,
            boot_id=boot_id(),
            started_at=utc_now() - timedelta(seconds=time.monotonic() - started.at),
            started_monotonic=started.at,
            resume_at=0.0,
            ended_at=None,
        )
        log.info(
            "agent started agent_id=%s incarnation=%d process_id=%d",
            agent.id,
            agent.record.incarnation,
            started.process.identity.pid,
        )
        self.runs(agent)
        if is_first:
            self.announcer.announce("agent_spawned", agent.record)
        self.announcer.announce("agent_started", agent.record)
        self.tell_subscribed(agent)
        self._answers.owe_status(agent, agent.start_waiters)

    def runs(self, agent: SupervisedAgent) -> None:
        """Record that its process runs: until it ends, its tokens are good and its logs are bounded."""
        self._tokens.keep(agent.record)
        self._log_watch.watch(agent.record.serial)

    def tell_subscribed(self, agent: SupervisedAgent) -> None:
        record = agent.record
        self._bus.tell(
            AgentSubscribed(
                agent_id=agent.id,
                project_id=record.spec.project_id,
                topics=frozenset(agent.profile.subscribes_to),
                since=record.created_at,
                incarnation=record.incarnation,
            )
        )

    def start_failed(self, agent: SupervisedAgent, why: str) -> None:
        self.remember(
            agent,
            cause=ExitCause.START_FAILED,
            exit_code=None,
            signal=None,
            last_error=why,
            ran_for_s=0.0,
            started_monotonic=time.monotonic(),
        )

    def waits_to_quote(self, agent: SupervisedAgent, again: Callable[[], object]) -> bool:
        """Whether the agent's last lines cannot be quoted yet. `again` is called, in another thread, when they can."""
        if is_ready():
            return False
        record = agent.record
        has_output = any(self._logs.last_lines(record.serial, LAST_LINES, since=record.log_starts))
        return has_output and once_ready(again)

    def ended(
        self,
        agent: SupervisedAgent,
        exited: AgentExited,
        cause: ExitCause | None,
        note: str,
        *,
        log_ends: tuple[int, int] | None = None,
    ) -> tuple[str, ...]:
        """Record that an incarnation's process has ended. log_ends: where the logs of the next one begin, if it
        already runs.

        Returns its last lines.
        """
        record, status = agent.record, exited.status
        self._log_watch.leave(record.serial)
        lines = quoted(self._logs.last_lines(record.serial, LAST_LINES, since=record.log_starts, until=log_ends))
        self._logs.bound([record.serial])  # no census may come that does
        self._logs.note_end(record.serial)
        ran_for_s = max(0.0, exited.at - record.started_monotonic)
        agent.forget_process()
        self.remember(
            agent,
            exit_code=status.exit_code,
            signal=status.signal,
            cause=cause,
            ran_for_s=ran_for_s,
            runs_ended=record.runs_ended + 1,
            ran_in_all_s=record.ran_in_all_s + ran_for_s,
            last_error=describe_end(status, note, lines),
            ending=None,
            then="",
            ending_note="",
        )
        log_exit(agent.record, lines, is_crash=record.then == AfterStop.JUDGED.name or not was_wanted(agent.record))
        how = how_it_ended(agent.record, lines)
        self.announcer.announce("agent_exited", agent.record, **how, uptime_seconds=round(ran_for_s, 3))
        return lines

    def backs_off(self, agent: SupervisedAgent, decision: Decision, *, at: float) -> None:
        """To be restarted `decision.delay_s` after its death, at monotonic `at`."""
        self._tokens.revoke_all(agent.record, now=utc_now())
        self.change(
            agent,
            Occurrence.WILL_RESTART,
            deaths=decision.history.deaths,
            in_a_row=decision.history.in_a_row,
            is_open=decision.history.is_open,
            boot_id=boot_id(),
            resume_at=at + decision.delay_s,
            process=None,
            tokens=(),
        )
        delay_ms = round(decision.delay_s * 1000)
        log.info("agent restarting agent_id=%s delay_ms=%d restarts=%d", agent.id, delay_ms, agent.record.restarts + 1)
        self.announcer.announce("agent_restarting", agent.record, **how_it_ended(agent.record), delay_ms=delay_ms)

    def completed(self, agent: SupervisedAgent) -> None:
        self.change(agent, Occurrence.COMPLETED, last_error=None)
        self._end_for_good(agent)
        log.info("agent completed agent_id=%s incarnation=%d", agent.id, agent.record.incarnation)

    def given_up(
        self, agent: SupervisedAgent, occurrence: Occurrence, reason: str, lines: tuple[str, ...] = ()
    ) -> None:
        self.change(agent, occurrence)
        self._end_for_good(agent)
        log.error("agent failed agent_id=%s cause=%s reason=%s", agent.id, agent.record.cause, reason)
        how = how_it_ended(agent.record, lines)
        self.announcer.announce("agent_failed", agent.record, topic="error", reason=reason, **how)

    def stopped(self, agent: SupervisedAgent, occurrence: Occurrence) -> None:
        """Record that it ended, or never started, on request."""
        self.change(agent, occurrence, cause=ExitCause.KILLED)
        self._end_for_good(agent)
        log.info("agent stopped agent_id=%s incarnation=%d", agent.id, agent.record.incarnation)
        self.announcer.announce("agent_stopped", agent.record, cause=ExitCause.KILLED)

    def queued(self, agent: SupervisedAgent) -> None:
        """Announce that it waits for its start, and the reason (`waiting_for`)."""
        waits_for = agent.waiting_for
        log.info("agent queued agent_id=%s waiting_for=%s", agent.id, waits_for.text if waits_for is not None else "")
        self.announcer.announce("agent_queued", agent.record, waiting_for=waits_for)

    def blocked(self, agent: SupervisedAgent, why: str) -> None:
        """Record that a dependency has failed or was stopped; the agent waits until someone acts."""
        log.warning("agent blocked agent_id=%s why=%s", agent.id, why)
        self.change(agent, Occurrence.DEPENDENCY_LOST, last_error=_lost_dependencies(why))
        self.announcer.announce("agent_blocked", agent.record, why=why)

    def failed_with_dependencies(self, agent: SupervisedAgent, why: str) -> None:
        """Record that the agent fails because a dependency has failed or was stopped."""
        self.remember(agent, last_error=_lost_dependencies(why))
        self.given_up(agent, Occurrence.GIVEN_UP, _lost_dependencies(why))

    def _end_for_good(self, agent: SupervisedAgent) -> None:
        """Close an agent that has ended: revoke its tokens, and answer the requests that waited for its end."""
        now = utc_now()
        self._tokens.revoke_all(agent.record, now=now)
        self.remember(agent, ended_at=now, tokens=(), deaths=(), in_a_row=0, is_open=False, resume_at=0.0)
        agent.token = None
        self._bus.tell(AgentEnded(agent_id=agent.id))
        self._answers.owe_status(agent, agent.stop_waiters)


def _lost_dependencies(why: str) -> str:
    return f"its dependencies have failed or were stopped: {why}"


def token_ref(token: Token) -> TokenRef:
    return TokenRef(token.token_id, token.expires_at)
