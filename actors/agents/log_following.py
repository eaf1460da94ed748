"""LogFollowing: answers reads of agents' logs, at once or when a log grows; many may wait, none holds anything up."""

from __future__ import annotations

import time

import msgspec

from ...supervision.agent_logs import AgentLogs, Chunk, Stream
from ..messages import ReadLogs
from ..replies import LogChunk
from ..runtime.asking import Later, Recipient
from ..runtime.timers import Timers
from .agent import SupervisedAgent
from .spawner_facts import LogsDue

READ_BYTES = 64 << 10  # at most in one answer: to take the secrets out of more would take others their turn
_LOOK_EVERY_S = 0.1  # as long as a person does not notice


class _LogReader(msgspec.Struct):
    """A read that waits until the log has grown beyond `offset`, or until monotonic `until`."""

    agent: SupervisedAgent
    request: ReadLogs
    offset: int
    until: float
    later: Later[LogChunk]


class LogFollowing:
    """The reads that wait. Used in the Spawner's thread."""

    def __init__(self, logs: AgentLogs, timers: Timers, me: Recipient) -> None:
        self._logs = logs
        self._timers = timers
        self._me = me
        self._waiting: list[_LogReader] = []

    def read(self, agent: SupervisedAgent, request: ReadLogs, later: Later[LogChunk]) -> LogChunk | Later[LogChunk]:
        """The answer, or `later`, which is answered when the log has grown, its time is up or the agent has ended."""
        serial, stream = agent.record.serial, request.stream
        if request.offset is None:
            tail = self._logs.tail(serial, stream, request.tail)
            return self._chunk(tail if _is_over(agent) else tail.of_whole_characters(), agent, stream)
        found = _readable(self._logs.read(serial, stream, request.offset).of_at_most(READ_BYTES), agent)
        if found.has_line or request.timeout_s <= 0 or _is_over(agent):
            return self._chunk(found, agent, stream)
        until = time.monotonic() + request.timeout_s
        waiting = _LogReader(agent, request, found.offset, until, later)
        if not self._waiting:
            self._timers.tell_after(_LOOK_EVERY_S, self._me, LogsDue())
        self._waiting.append(waiting)
        return later

    def look(self) -> None:
        """Answer those for whom there is something, or whose time is up, or whose agent has ended."""
        self._waiting = [waiting for waiting in self._waiting if not self._answered(waiting)]
        if self._waiting:
            self._timers.tell_after(_LOOK_EVERY_S, self._me, LogsDue())

    def _answered(self, waiting: _LogReader) -> bool:
        if waiting.later.cancelled():
            return True
        agent = waiting.agent
        serial, stream = agent.record.serial, waiting.request.stream
        found = _readable(self._logs.read(serial, stream, waiting.offset).of_at_most(READ_BYTES), agent)
        waiting.offset = found.offset  # the start when the log was cut: it may grow beyond what was asked for
        if not found.has_line and not _is_over(agent) and time.monotonic() < waiting.until:
            return False
        waiting.later.answer(self._chunk(found, agent, stream))
        return True

    def _chunk(self, found: Chunk, agent: SupervisedAgent, stream: Stream) -> LogChunk:
        before = self._logs.line_before(agent.record.serial, stream, found.offset)
        ended = found.at_end and _is_over(agent)
        return LogChunk(found.data, found.offset, found.next_offset, ended=ended, line_before=before)


def _is_over(agent: SupervisedAgent) -> bool:
    return agent.record.state.has_ended


def _readable(found: Chunk, agent: SupervisedAgent) -> Chunk:
    """Where to cut a chunk: not inside a character, and not inside a line that may go on.

    Each chunk is decoded and cleared of secrets by itself. One unfinished line, or the last chunk, is not cut.
    """
    return found if found.at_end and _is_over(agent) else found.of_whole_lines().of_whole_characters()
