"""OwedAnswers: answers that wait until their records are in the registry, and revocations among them are synced."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from ...state.agent_registry import AgentRegistry
from ...state.errors import StorageUnavailable
from ...state.models import AgentStatus
from ..runtime.asking import Later
from .agent import SupervisedAgent


class _Owed(msgspec.Struct):
    """One answer. what: its subject, for the error. after: the record that must be synced; None until it is written."""

    later: Later[Any]
    answer: Any
    what: str
    after: int | None = None


class OwedAnswers:
    """The answers in the order of the records that they wait for. Used in the Spawner's thread."""

    def __init__(self, registry: AgentRegistry) -> None:
        self._registry = registry
        self._owed: deque[_Owed] = deque()

    def owe(self, later: Later[Any], answer: Any, what: str) -> None:
        """Give the answer once every record put so far is kept. what: the subject of the answer, for the error."""
        self._owed.append(_Owed(later, answer, what))

    def owe_status(self, agent: SupervisedAgent, waiters: list[Later[AgentStatus]]) -> None:
        """Tell the waiters how the agent is now, once that is kept."""
        for later in waiters:
            status = agent.status()
            self.owe(later, status, f"agent {status.agent_id} is {status.state}")
        waiters.clear()

    def settle(self, error: StorageUnavailable | None) -> None:
        """Give the answers that are due, after the records have been written. error: why some could not be kept."""
        self._registry.note_synced()
        if error is not None:
            while self._owed:
                owed = self._owed.popleft()
                owed.later.refuse(StorageUnavailable(f"{owed.what}, but that could not be recorded: {error.message}"))
            return
        for owed in self._owed:
            if owed.after is None:
                owed.after = self._registry.must_be_synced
        synced = self._registry.journal.synced_seq
        while self._owed and (self._owed[0].after or 0) <= synced:
            owed = self._owed.popleft()
            owed.later.answer(owed.answer)
