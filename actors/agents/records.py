"""AgentRecords: the records of agents. Every change is kept in the registry, and what it means is told to the bus.

Used in the Spawner's thread. It writes down and tells; what is to happen others decide.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from ...state.agent_entries import AgentRecord, TokenRef
from ...state.agent_registry import AgentRegistry
from ...state.clock import utc_now
from ...state.errors import StorageUnavailable
from ...state.identity import Token
from ...state.models import AgentId, AgentState, AgentStatus, ExitCause
from ...supervision.agent_logs import AgentLogs
from ...supervision.lifecycle import Occurrence, after
from ...supervision.log_watch import LogWatch
from ...supervision.process_identity import boot_id
from ...supervision.restart import Decision
from ..agent_facts import AgentEnded, AgentSubscribed
from ..runtime.asking import Later, Recipient
from .agent import WAITS, AfterStop, Role, SupervisedAgent, describe_end, how_it_ended
from .announcer import Announcer
from .launching import AgentExited, StartedIncarnation
from .owed_answers import OwedAnswers
from .quoting import quoted
from .tokens import AgentTokens

log = logging.getLogger(__name__)

LAST_LINES = 20


class AgentRecords:
    """agents: everyone known, by id. waiting_bytes, ended_bytes: memory for the spawn requests of agents that wait for
    their start, and of agents that have ended."""

    def __init__(
        self,
        *,
        registry: AgentRegistry,
        tokens: AgentTokens,
        announcer: Announcer,
        logs: AgentLogs,
        bus: Recipient,
        log_watch: LogWatch,
    ) -> None:
        self.agents: dict[AgentId, SupervisedAgent] = {}
        self.announcer = announcer
        self._registry = registry
        self._tokens = tokens
        self._logs = logs
        self._log_watch = log_watch
        self._bus = bus
        self.waiting_bytes = 0
        self.ended_bytes = 0
        self._owed = OwedAnswers()
        self._by_state: dict[AgentState, dict[AgentId, SupervisedAgent]] = {state: {} for state in AgentState}
        self._by_role: dict[Role, dict[AgentId, SupervisedAgent]] = {}

    def add(self, agent: SupervisedAgent) -> None:
        self.agents[agent.id] = agent
        self._by_state[agent.record.state][agent.id] = agent
        self._by_role.setdefault(agent.role, {})[agent.id] = agent
        self._count_bytes(agent, +1)

    def enter(self, agent: SupervisedAgent) -> None:
        """A new agent; on the disk when this returns. Raises StorageUnavailable; then it is none of ours."""
        self._registry.put_now(agent.record)
        self.add(agent)

    def enter_starting(self, agent: SupervisedAgent, token: Token) -> None:
        """The same for one whose turn it is at once: the intent to start it is written with it."""
        agent.record = msgspec.structs.replace(
            agent.record,
            state=after(agent.record.state, Occurrence.TURN_CAME),
            incarnation=1,
            tokens=(token_ref(token),),
        )
        self.enter(agent)

    def forget(self, agent: SupervisedAgent) -> None:
        self._count_bytes(agent, -1)
        del self.agents[agent.id]
        del self._by_state[agent.record.state][agent.id]
        of_role = self._by_role[agent.role]
        del of_role[agent.id]
        if not of_role:
            del self._by_role[agent.role]

    def of_role(self, role: Role) -> Iterator[SupervisedAgent]:
        """The agents of a type in an issue, oldest first."""
        return iter(self._by_role.get(role, {}).values())

    def in_state(self, *states: AgentState) -> Iterator[SupervisedAgent]:
        """As they are now; the agents may change while one goes through them."""
        return iter([agent for state in states for agent in self._by_state[state].values()])

    def count(self, *states: AgentState) -> int:
        return sum(len(self._by_state[state]) for state in states)

    def _count_bytes(self, agent: SupervisedAgent, sign: int) -> None:
        if agent.record.state in WAITS:
            self.waiting_bytes += sign * agent.request_bytes
        elif agent.record.state.has_ended:
            self.ended_bytes += sign * agent.request_bytes

    def change(self, agent: SupervisedAgent, occurrence: Occurrence, **changes: Any) -> None:
        """Change the state by the lifecycle table, and the rest of the record with it. Raises WrongState."""
        self.remember(agent, state=after(agent.record.state, occurrence), **changes)

    def remember(self, agent: SupervisedAgent, **changes: Any) -> None:
        record = msgspec.structs.replace(agent.record, **changes)
        if record.state is not agent.record.state:
            self._count_bytes(agent, -1)
            del self._by_state[agent.record.state][agent.id]
            agent.record = record
            self._by_state[record.state][agent.id] = agent
            self._count_bytes(agent, +1)
        agent.record = record
        self._registry.put(agent.record)

    def starts(self, agent: SupervisedAgent, occurrence: Occurrence, token: Token) -> None:
        """The intent to start the next incarnation; on the disk before its process is there."""
        incarnation = agent.record.incarnation + 1
        self.change(agent, occurrence, incarnation=incarnation, process=None, tokens=(token_ref(token),))
        try:
            self._registry.commit()
        except StorageUnavailable as error:
            # It is written with the next commit; a full disk is no reason to leave an agent dead.
            log.error("start not recorded agent_id=%s incarnation=%d: %s", agent.id, incarnation, error)

    def started(self, agent: SupervisedAgent, begun: StartedIncarnation) -> None:
        is_first = agent.record.started_at is None  # which need not be the first that was tried
        agent.token = begun.token
        self.change(
            agent,
            Occurrence.STARTED,
            process=begun.process.identity,
            log_starts=begun.log_starts,
            boot_id=boot_id(),
            started_at=utc_now() - timedelta(seconds=time.monotonic() - begun.at),
            started_monotonic=begun.at,
            resume_at=0.0,
            ended_at=None,
        )
        log.info(
            "agent started agent_id=%s incarnation=%d process_id=%d",
            agent.id,
            agent.record.incarnation,
            begun.process.identity.pid,
        )
        self.runs(agent)
        if is_first:
            self.announcer.announce("agent_spawned", agent.record)
        self.announcer.announce("agent_started", agent.record)
        self.tell_subscribed(agent)
        self.answer(agent, agent.start_waiters)

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

    def ended(
        self,
        agent: SupervisedAgent,
        exited: AgentExited,
        cause: ExitCause | None,
        note: str,
        *,
        log_ends: tuple[int, int] | None = None,
    ) -> tuple[str, ...]:
        """An incarnation's process has ended. log_ends: where the logs of the next begin, if that runs already.

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
        _log_exit(agent.record, lines, is_crash=record.then == AfterStop.JUDGED.name or not _was_wanted(agent.record))
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
        """It ended, or never began, because someone wanted it so."""
        self.change(agent, occurrence, cause=ExitCause.KILLED)
        self._end_for_good(agent)
        log.info("agent stopped agent_id=%s incarnation=%d", agent.id, agent.record.incarnation)
        self.announcer.announce("agent_stopped", agent.record, cause=ExitCause.KILLED)

    def queued(self, agent: SupervisedAgent) -> None:
        """Announce that it waits for its start; `waiting_for` says for what."""
        waits_for = agent.waiting_for
        log.info("agent queued agent_id=%s waiting_for=%s", agent.id, waits_for.text if waits_for is not None else "")
        self.announcer.announce("agent_queued", agent.record, waiting_for=waits_for)

    def blocked(self, agent: SupervisedAgent, why: str) -> None:
        """Mark it as blocked: a dependency has failed, and it waits until somebody acts."""
        log.warning("agent blocked agent_id=%s why=%s", agent.id, why)
        self.change(
            agent, Occurrence.DEPENDENCY_LOST, last_error=f"its dependencies have failed or were stopped: {why}"
        )
        self.announcer.announce("agent_blocked", agent.record, why=why)

    def answer(self, agent: SupervisedAgent, waiters: list[Later[AgentStatus]]) -> None:
        """Tell them how the agent is now, once that is on the disk: see `settle`."""
        for later in waiters:
            status = agent.status()
            self._owed.owe(later, status, f"agent {status.agent_id} is {status.state}")
        waiters.clear()

    def owe(self, later: Later[Any], answer: Any, what: str) -> None:
        """Give the answer once every record put so far is kept. what: the subject of the answer, for the error."""
        self._owed.owe(later, answer, what)

    def settle(self, error: StorageUnavailable | None) -> None:
        """Give the answers that are due: see OwedAnswers. error: why some record could not be kept."""
        registry = self._registry
        registry.note_synced()
        self._owed.settle(error, wait_for=registry.must_be_synced, synced=registry.journal.synced_seq)

    def _end_for_good(self, agent: SupervisedAgent) -> None:
        """Close an agent that has ended: revoke its tokens, and answer the requests that waited for its end."""
        now = utc_now()
        self._tokens.revoke_all(agent.record, now=now)
        self.remember(agent, ended_at=now, tokens=(), deaths=(), in_a_row=0, is_open=False, resume_at=0.0)
        agent.token = None
        self._bus.tell(AgentEnded(agent_id=agent.id))
        self.answer(agent, agent.stop_waiters)


def _was_wanted(record: AgentRecord) -> bool:
    return record.exit_code == 0 or record.cause is ExitCause.KILLED


def _log_exit(record: AgentRecord, lines: tuple[str, ...], *, is_crash: bool) -> None:
    said = next((line for line in reversed(lines) if line.strip()), "")
    log.log(
        logging.WARNING if is_crash else logging.INFO,
        "agent exited agent_id=%s incarnation=%d cause=%s exit_code=%s signal=%s ran_for_s=%.3f last_line=%s",
        record.spec.agent_id,
        record.incarnation,
        record.cause,
        record.exit_code,
        record.signal,
        record.ran_for_s,
        # An agent wrote it: no control character may reach the terminal that shows the log.
        "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in said),
    )


def token_ref(token: Token) -> TokenRef:
    return TokenRef(token.token_id, token.expires_at)
