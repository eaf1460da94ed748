"""ExitJudge: records how an incarnation ended, or that it could not be started, and asks the rules what follows.

Used in the Spawner's thread. It gathers what the rules in `supervision/after_exit.py` look at.
"""

from __future__ import annotations

import signal
import time

import msgspec

from ...state.errors import SpawnFailed
from ...state.models import AgentState, ExitCause
from ...supervision.after_exit import after_exit, after_failed_start, cause_of
from ...supervision.oom import OomKills
from ...supervision.proc_fs import oom_kills
from ...supervision.process_exit import ExitStatus
from ...supervision.restart import Decision
from ...supervision.steps import AfterStop, AgentExited, IncarnationEnd, RestartAttempt, Step
from .agent import SupervisedAgent
from .group_restarts import GroupRestarts
from .launching import Launcher
from .queue import AgentQueue
from .records import AgentRecords


class ExitJudge:
    """The restart policies and groups of all agents, as far as exits go."""

    def __init__(self, records: AgentRecords, launcher: Launcher, queue: AgentQueue, groups: GroupRestarts) -> None:
        self._records = records
        self._launcher = launcher
        self._queue = queue
        self._groups = groups
        self._oom = OomKills(oom_kills())

    def look_at_oom_kills(self, *, now: float) -> None:
        """See how many processes the kernel has killed by monotonic `now`, for SIGKILLs that are seen soon after."""
        self._oom.look(oom_kills(), now=now)

    def judge(self, agent: SupervisedAgent, exited: AgentExited) -> tuple[Step, ...]:
        """Record the end of an incarnation of which nothing is left, and decide what follows."""
        record = agent.record
        is_stopping = record.state is AgentState.STOPPING
        end = IncarnationEnd(
            at=exited.at,
            after=AfterStop[record.then] if is_stopping else None,
            note=record.ending_note,
            attempt=None if is_stopping else exited.restart,
        )
        started = end.attempt.started if end.attempt is not None else None
        decision = None if end.is_deliberate else self._decide(agent, exited, end.attempt)
        lines = self._records.ended(
            agent,
            exited,
            record.ending or self._cause_of(exited.status),
            record.ending_note,
            log_ends=started.log_starts if started is not None else None,
        )
        end = msgspec.structs.replace(end, lines=lines)
        groups, may_start = self._groups.standings(agent), not self._queue.is_closed
        return after_exit(agent.record, groups, decision, end, may_start=may_start, now=time.monotonic())

    def judge_failed_start(self, agent: SupervisedAgent, why: str) -> tuple[Step, ...]:
        """Record that the agent could not be started, and decide what follows."""
        self._records.start_failed(agent, why)
        agent.refuse_started(SpawnFailed(f"agent {agent.id} could not be started: {why}", agent_id=agent.id))
        now, may_start = time.monotonic(), not self._queue.is_closed
        decision = self._launcher.decide(agent.record, agent.profile.restart_policy, None, at=now)
        groups = self._groups.standings(agent)
        return after_failed_start(agent.record, groups, decision, why, may_start=may_start, now=now)

    def _decide(self, agent: SupervisedAgent, exited: AgentExited, attempt: RestartAttempt | None) -> Decision:
        """What the restart policy says: the exit watcher may have asked it already."""
        if attempt is not None:
            return attempt.decision
        return self._launcher.decide(agent.record, agent.profile.restart_policy, exited.status, at=exited.at)

    def _cause_of(self, status: ExitStatus) -> ExitCause | None:
        """None where nobody could see how it ended."""
        is_oom = status.signal == signal.SIGKILL and self._oom.take(oom_kills(), now=time.monotonic())
        return ExitCause.OOM if is_oom else cause_of(status)
