"""How many agents there are and were: counted from their records, and from the tallies of those forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from ...state.agent_entries import AgentRecord, Tally
from ...state.models import AgentState
from ..replies import AgentNumbers
from .agent import HOLDS_SLOT, SupervisedAgent


def count(agents: Sequence[SupervisedAgent], forgotten: Sequence[Tally]) -> AgentNumbers:
    """The numbers of some agents, and of earlier ones that are no longer in the list."""
    states = Counter(agent.record.state for agent in agents)
    by_type = Counter(agent.record.spec.agent_type for agent in agents)
    for tally in forgotten:
        by_type[tally.agent_type] += tally.spawned
    runs = sum(a.record.runs_ended for a in agents) + sum(tally.runs_ended for tally in forgotten)
    ran_s = sum(a.record.ran_in_all_s for a in agents) + sum(tally.ran_in_all_s for tally in forgotten)
    return AgentNumbers(
        active=sum(states[state] for state in HOLDS_SLOT),
        completed=states[AgentState.COMPLETED] + sum(tally.completed for tally in forgotten),
        failed=states[AgentState.FAILED] + sum(tally.failed for tally in forgotten),
        queued=states[AgentState.QUEUED],
        spawned_total=len(agents) + sum(tally.spawned for tally in forgotten),
        restarts_total=sum(a.record.restarts for a in agents) + sum(tally.restarts for tally in forgotten),
        by_type=dict(sorted(by_type.items())),
        avg_execution_time_ms=round(1000 * ran_s / runs, 3) if runs else 0.0,
        by_state={
            **{state.value: states[state] for state in AgentState},
            AgentState.COMPLETED: states[AgentState.COMPLETED] + sum(tally.completed for tally in forgotten),
            AgentState.FAILED: states[AgentState.FAILED] + sum(tally.failed for tally in forgotten),
        },
    )


def with_one_more(tally: Tally, record: AgentRecord) -> Tally:
    """The tally with an agent that ended."""
    return msgspec.structs.replace(
        tally,
        spawned=tally.spawned + 1,
        completed=tally.completed + (record.state is AgentState.COMPLETED),
        failed=tally.failed + (record.state is AgentState.FAILED),
        restarts=tally.restarts + record.restarts,
        runs_ended=tally.runs_ended + record.runs_ended,
        ran_in_all_s=tally.ran_in_all_s + record.ran_in_all_s,
    )
