"""AgentDeadlines: the times of agents: when a delay, a time to stop, a run or a silence is over.

Used in the Spawner's thread. When a time comes, the Spawner gets a fact; what follows is returned as steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...state.models import AgentState, ExitCause
from ...supervision.lifecycle import Occurrence
from ...supervision.restart import SETTLED_AFTER_S
from ...supervision.steps import AdvanceGroups, AfterStop, Kill, Prepare, Start, Step, Stop
from ..runtime.asking import Recipient
from ..runtime.timers import Timers
from .agent import SupervisedAgent
from .agent_index import AgentIndex
from .group_restarts import GroupRestarts
from .queue import AgentQueue
from .spawner_facts import AgentDue, DueWhat

PREPARED_AFTER_S = SETTLED_AFTER_S - 0.2  # for a restart at once, which only a settled agent gets


class AgentDeadlines:
    """All times are monotonic. input_read: calls back when all that agents had sent by now has been read."""

    def __init__(
        self,
        index: AgentIndex,
        queue: AgentQueue,
        groups: GroupRestarts,
        timers: Timers,
        me: Recipient,
        input_read: Callable[[Callable[[], None]], None],
    ) -> None:
        self._index = index
        self._queue = queue
        self._groups = groups
        self._timers = timers
        self._me = me
        self._input_read = input_read

    def tell_after(self, delay_s: float, agent: SupervisedAgent, what: DueWhat) -> None:
        self._timers.tell_after(delay_s, self._me, AgentDue(agent.id, agent.record.incarnation, what))

    def set_for_run(self, agent: SupervisedAgent, *, restarts_alone: bool) -> None:
        """Set the times of an incarnation that runs. restarts_alone: whether its death restarts no other agent."""
        record, profile, now = agent.record, agent.profile, time.monotonic()
        if profile.restart != "never" and restarts_alone:
            # It dies of its start before that, and then its restart has to wait anyhow.
            self.tell_after(record.started_monotonic + PREPARED_AFTER_S - now, agent, "prepare")
        if profile.run_timeout_seconds > 0:
            self.tell_after(record.started_monotonic + profile.run_timeout_seconds - now, agent, "run_timeout")
        if profile.heartbeat_timeout_seconds > 0:
            self.tell_after(profile.heartbeat_timeout_seconds, agent, "heartbeat")

    def due(self, fact: AgentDue) -> tuple[Step, ...]:
        """What follows a time that has come. Nothing if the agent has moved on since it was set."""
        agent = self._index.agents.get(fact.agent_id)
        if agent is None or agent.record.incarnation != fact.incarnation:
            return ()
        state, now = agent.record.state, time.monotonic()
        match fact.what:
            case "backed_off" if state is AgentState.BACKING_OFF and not self._queue.is_closed:
                is_held = self._groups.holds(agent)
                return (AdvanceGroups(),) if is_held else (Start(agent.id, Occurrence.BACKED_OFF),)
            case "stop_deadline" if state is AgentState.STOPPING and now >= agent.stop_at:
                return (Kill(agent.id),)
            case "prepare" if state is AgentState.RUNNING:
                return (Prepare(agent.id),)
            case "run_timeout" if state is AgentState.RUNNING:
                return self._run_timeout(agent, now)
            case "heartbeat" | "silence" if state is AgentState.RUNNING:
                return self._silence(agent, now, is_sure=fact.what == "silence")
        return ()

    def _run_timeout(self, agent: SupervisedAgent, now: float) -> tuple[Step, ...]:
        run_s = agent.profile.run_timeout_seconds
        left_s = agent.record.started_monotonic + run_s + agent.excused_s - now
        if left_s > 0:
            self.tell_after(left_s, agent, "run_timeout")
            return ()
        note = f"it ran longer than {run_s:g} s"
        return (Stop(agent_id=agent.id, after=AfterStop.JUDGED, cause=ExitCause.TIMEOUT, note=note),)

    def _silence(self, agent: SupervisedAgent, now: float, *, is_sure: bool) -> tuple[Step, ...]:
        silent_s = agent.profile.heartbeat_timeout_seconds
        left_s = agent.last_heard + silent_s - now
        if left_s > 0:
            self.tell_after(left_s, agent, "heartbeat")
            return ()
        if not is_sure:
            silence = AgentDue(agent.id, agent.record.incarnation, "silence")
            self._input_read(lambda: self._me.tell(silence))  # its heartbeat may wait to be read
            return ()
        note = f"it sent no heartbeat for {silent_s:g} s"
        return (Stop(agent_id=agent.id, after=AfterStop.JUDGED, cause=ExitCause.HEARTBEAT, note=note),)

    def excuse(self, gap_s: float) -> None:
        """Extend every agent's times by `gap_s`, during which the sidecar did not run."""
        now = time.monotonic()
        for agent in self._index.in_state(AgentState.RUNNING):
            agent.last_heard = now
            agent.excused_s += gap_s
        for agent in self._index.in_state(AgentState.STOPPING):
            if not agent.is_killed:
                agent.stop_at += gap_s
                self.tell_after(agent.stop_at - now, agent, "stop_deadline")
