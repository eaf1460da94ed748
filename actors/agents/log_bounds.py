"""LogBounds: limits the size of each log and of all logs together, so that agents cannot fill the disk.

Used in the Spawner's thread. When the disk is short of space, the logs of the agents that ended longest ago are removed
first. Then the logs of the other agents are cut to their newest part. No agent is stopped for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ...state.clock import utc_now
from ...supervision.agent_logs import AgentLogs
from .agent import SupervisedAgent

log = logging.getLogger(__name__)

LEAST_BYTES = 1 << 20  # kept of each stream of an agent that has not ended, even if the disk is full


class LogBounds:
    """The limits on logs. min_free_bytes: with less free space than this, logs are removed; 0: never."""

    def __init__(self, logs: AgentLogs, *, min_free_bytes: int) -> None:
        self._logs = logs
        self._min_free_bytes = min_free_bytes
        self._was_short = False

    def look(self, living: Iterable[SupervisedAgent], ended: Iterable[SupervisedAgent]) -> None:
        """Apply the limits. living: agents that run or will run again."""
        serials = [agent.record.serial for agent in living]
        self._logs.bound(serials)
        if self._is_short():
            self._make_room(serials, ended)

    def _is_short(self) -> bool:
        free_bytes = self._logs.free_bytes() if self._min_free_bytes > 0 else 0
        is_short = free_bytes < self._min_free_bytes
        if is_short and not self._was_short:
            log.warning("disk is short of space free_mb=%d wanted_mb=%d", free_bytes >> 20, self._min_free_bytes >> 20)
        self._was_short = is_short
        return is_short

    def _make_room(self, living: list[int], ended: Iterable[SupervisedAgent]) -> None:
        for agent in sorted(ended, key=lambda agent: agent.record.ended_at or utc_now()):
            if self._logs.remove(agent.record.serial):
                log.warning("logs of an ended agent removed to make room agent_id=%s", agent.id)
                if not self._is_short():
                    return
        self._logs.bound(living, max_bytes=LEAST_BYTES)
