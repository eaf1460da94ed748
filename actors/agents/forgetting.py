"""AgentRetention: drops the agents that ended longest ago from the list, to bound its length and size.

Used in the Spawner's thread. Their logs leave the disk with them; the totals keep counting them.
"""

from __future__ import annotations

import time
from collections.abc import Set

import msgspec

from ...state.agent_entries import KEYS_KEPT_FOR, Departed, Forgotten, Tally
from ...state.agent_registry import AgentRegistry
from ...state.clock import utc_now
from ...supervision.agent_logs import AgentLogs
from .agent import ENDED, Role, SupervisedAgent
from .agent_index import AgentIndex
from .numbers import with_one_more
from .queue import AgentQueue
from .tokens import AgentTokens

MAX_ENDED_BYTES = 64 << 20  # of the tasks, environments and requirements of ended agents, in memory
_FORGET_TOKENS_EVERY_S = 60.0  # there may be thousands to go through


class AgentRetention:
    """The ended agents that stay in the list: at most `keep_ended`, and those on which agents in the queue depend."""

    def __init__(
        self,
        *,
        index: AgentIndex,
        queue: AgentQueue,
        registry: AgentRegistry,
        tokens: AgentTokens,
        logs: AgentLogs,
        keep_ended: int,
    ) -> None:
        self._index = index
        self._queue = queue
        self._registry = registry
        self._tokens = tokens
        self._logs = logs
        self._keep_ended = keep_ended
        self._forget_tokens_at = 0.0

    def look(self) -> None:
        if self._are_too_many():
            waited_for = self._queue.waited_for()
            ended = (agent for agent in self._index.in_state(*ENDED) if _may_go(agent, waited_for))
            for agent in sorted(ended, key=lambda agent: agent.record.ended_at or utc_now()):
                if not self._are_too_many():
                    break
                self._forget(agent)
        if (now := time.monotonic()) >= self._forget_tokens_at:
            self._forget_tokens_at = now + _FORGET_TOKENS_EVERY_S
            self._tokens.forget_expired(now=utc_now())
            self._registry.forget_departed(created_before=utc_now() - KEYS_KEPT_FOR)

    def _are_too_many(self) -> bool:
        return self._index.count(*ENDED) > self._keep_ended or self._index.ended_bytes > MAX_ENDED_BYTES

    def _forget(self, agent: SupervisedAgent) -> None:
        record = agent.record
        where = (record.spec.project_id, record.spec.agent_type)
        tally = self._registry.tallies.get(where) or Tally(project_id=where[0], agent_type=where[1])
        self._registry.put(with_one_more(tally, record))
        self._registry.put(Forgotten(agent_id=agent.id))
        if record.spawn_key is not None and record.created_at > utc_now() - KEYS_KEPT_FOR:
            # A repeat of its spawn is answered with its identity, without its task.
            spec = msgspec.structs.replace(record.spec, task="", context_requirements=(), environment={})
            self._registry.put(Departed(record=msgspec.structs.replace(record, spec=spec)))
        self._logs.remove(record.serial)
        self._index.remove(agent)


def _may_go(agent: SupervisedAgent, waited_for: Set[Role]) -> bool:
    return agent.role not in waited_for and not agent.drop_waiters
