"""Facts from the Spawner's threads and timers."""

from __future__ import annotations

from typing import Literal

from ...state.models import AgentId
from ...supervision.process_tree import Trees
from ...supervision.steps import AgentExited
from ..runtime.asking import Fact


class ProcessExited(Fact, frozen=True):
    """The process of an agent's incarnation has ended."""

    exited: AgentExited


class CensusTaken(Fact, frozen=True):
    """served: how many had asked for one when it was begun. at: monotonic seconds."""

    trees: Trees
    served: int
    at: float


class CensusDue(Fact, frozen=True):
    """Look again at those that are ending."""


DueWhat = Literal["backed_off", "prepare", "stop_deadline", "run_timeout", "heartbeat", "silence"]


class AgentDue(Fact, frozen=True):
    """A time of an agent's incarnation has come; ignored when that incarnation has gone."""

    agent_id: AgentId
    incarnation: int
    what: DueWhat


class QueueDue(Fact, frozen=True):
    """Look at the queue. by_bucket: the spawn bucket has a token again. by_settling: an agent has run for a while."""

    by_bucket: bool = False
    by_settling: bool = False


class LogsDue(Fact, frozen=True):
    """Look whether followed logs have grown."""
