"""The steps that follow from decisions about agents. `actors/agents/supervisor.py` carries them out in order.

A step says what to do, never why: `after_exit.py` decides what follows an exit, the queue decides whose turn it is.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from ..state.agent_entries import Together
from ..state.identity import Token
from ..state.models import AgentId, ExitCause
from .lifecycle import Occurrence
from .process import StartedProcess
from .process_exits import Exited
from .restart import Decision
from .strategy import Group


class AfterStop(Enum):
    """What follows when the sidecar has ended an agent's process. The names are in the registry: AgentRecord.then."""

    STOPPED = "that was asked for"
    STARTED_ANEW = "a restart was asked for"
    JUDGED = "it broke a limit, and the restart policy decides"
    TOGETHER = "it is restarted with its group"
    GIVEN_UP = "its group was given up"

    @property
    def may_start_again(self) -> bool:
        """Whether the agent may run again without a request for it."""
        return self in (AfterStop.JUDGED, AfterStop.TOGETHER)

    @property
    def was_asked_for(self) -> bool:
        return self in (AfterStop.STOPPED, AfterStop.STARTED_ANEW)


class StartedIncarnation(msgspec.Struct, frozen=True):
    """A process that was started. at: monotonic seconds. log_starts: the lengths of stdout's and stderr's log then."""

    process: StartedProcess
    token: Token
    log_starts: tuple[int, int]
    at: float


class RestartAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """How the exit watcher handled a death: the policy's decision, and the next incarnation if it restarted at once.

    error: why the next incarnation could not be started.
    """

    decision: Decision
    started: StartedIncarnation | None = None
    error: str | None = None


AgentExited = Exited[RestartAttempt]


class GroupStanding(msgspec.Struct, frozen=True):
    """A group of an agent. deaths: those that still count, in monotonic seconds, oldest first."""

    where: Together
    group: Group
    deaths: tuple[float, ...]
    is_restarting: bool


class IncarnationEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How an incarnation ended. at: monotonic seconds.

    after: what follows, if the sidecar ended it. note: why the sidecar ended it. attempt: the restart by the exit
    watcher, if it tried. lines: the last output.
    """

    at: float
    after: AfterStop | None = None
    note: str = ""
    attempt: RestartAttempt | None = None
    lines: tuple[str, ...] = ()

    @property
    def is_deliberate(self) -> bool:
        """Whether the end was deliberate, so that the restart policy is not asked."""
        return self.after not in (None, AfterStop.JUDGED)


# --- steps of one agent ----------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Start the agent's next incarnation."""

    agent_id: AgentId
    occurrence: Occurrence


class StartAgain(msgspec.Struct, frozen=True):
    """Start an ended agent with a clean history, or queue it if it is not its turn."""

    agent_id: AgentId


class AcceptStart(msgspec.Struct, frozen=True):
    """Record a next incarnation that runs already. occurrence: None if its intent is recorded."""

    agent_id: AgentId
    started: StartedIncarnation
    occurrence: Occurrence | None


class FailRestart(msgspec.Struct, frozen=True):
    """Record that the next incarnation could not be started."""

    agent_id: AgentId
    why: str


class Complete(msgspec.Struct, frozen=True):
    """Record that the agent has done its work."""

    agent_id: AgentId


class GiveUp(msgspec.Struct, frozen=True):
    """Record that the agent has failed, and is not tried again."""

    agent_id: AgentId
    reason: str
    lines: tuple[str, ...] = ()
    occurrence: Occurrence = Occurrence.GIVEN_UP


class MarkStopped(msgspec.Struct, frozen=True):
    """Record that the agent has ended because someone wanted that."""

    agent_id: AgentId


class BackOff(msgspec.Struct, frozen=True):
    """Record that the agent starts again after the delay, counted from monotonic `at`."""

    agent_id: AgentId
    decision: Decision
    at: float


class Wake(msgspec.Struct, frozen=True):
    """Look at an agent that backs off when its delay is over."""

    agent_id: AgentId
    delay_s: float


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """End the agent's process tree, for a reason. grace_s: from SIGTERM to SIGKILL; None for the profile's."""

    agent_id: AgentId
    after: AfterStop
    cause: ExitCause = ExitCause.KILLED
    note: str = ""
    grace_s: float | None = None


class Kill(msgspec.Struct, frozen=True):
    """End what is left of an agent's tree that did not end in time."""

    agent_id: AgentId


class KillSuccessor(msgspec.Struct, frozen=True):
    """End an incarnation that was started while the agent was told to stop."""

    agent_id: AgentId
    started: StartedIncarnation


class ChangeAfterStop(msgspec.Struct, frozen=True):
    """Let something else follow when the agent that is being ended has ended."""

    agent_id: AgentId
    after: AfterStop
    note: str


class JudgeExit(msgspec.Struct, frozen=True):
    """Record the end of an incarnation, and decide what follows it."""

    agent_id: AgentId
    exited: AgentExited


class Prepare(msgspec.Struct, frozen=True):
    """Prepare the agent's restart, for the exit watcher."""

    agent_id: AgentId


class MarkBlocked(msgspec.Struct, frozen=True):
    """Record that a dependency of a queued agent is lost, and that it waits until someone acts."""

    agent_id: AgentId
    why: str


class MarkQueued(msgspec.Struct, frozen=True):
    """Put an agent back into the queue: its dependencies can be met again."""

    agent_id: AgentId


class FailForDependency(msgspec.Struct, frozen=True):
    """Record that the agent fails because a dependency is lost."""

    agent_id: AgentId
    why: str


class AwaitTree(msgspec.Struct, frozen=True):
    """Wait for the rest of the tree of an agent that is being ended: its first process has ended."""

    agent_id: AgentId
    exited: AgentExited


class Adopt(msgspec.Struct, frozen=True):
    """Take over a recorded process that was found running."""

    agent_id: AgentId
    process: StartedProcess


class AnswerDropped(msgspec.Struct, frozen=True):
    """Answer the requests that waited until nothing was left of an agent without a process of its own."""

    agent_id: AgentId


# --- steps of several ------------------------------------------------------------------------------------------


class CountGroupRestart(msgspec.Struct, frozen=True):
    """Record a restart of the group. deaths: those that count, monotonic seconds, this one last."""

    where: Together
    deaths: tuple[float, ...]


class RestartGroup(msgspec.Struct, frozen=True):
    """Restart the other members of its groups that this agent's death concerns."""

    agent_id: AgentId


class GiveUpGroup(msgspec.Struct, frozen=True):
    """End all members of the group, last one first."""

    where: Together


class AdvanceGroups(msgspec.Struct, frozen=True):
    """Go on with the restarts of groups, as far as their members' states allow."""


class Sweep(msgspec.Struct, frozen=True):
    """Look for processes that an incarnation has left behind."""


class LookAtQueue(msgspec.Struct, frozen=True):
    """Look at the queue soon: a slot or a dependency may have become free."""


StartStep = Start | StartAgain | AcceptStart | FailRestart | JudgeExit  # may lead to other steps
RecordStep = (
    Complete
    | GiveUp
    | MarkStopped
    | BackOff
    | Wake
    | Stop
    | Kill
    | KillSuccessor
    | ChangeAfterStop
    | AwaitTree
    | Prepare
    | Adopt
    | MarkBlocked
    | MarkQueued
    | FailForDependency
    | AnswerDropped
)
FleetStep = CountGroupRestart | RestartGroup | GiveUpGroup | AdvanceGroups | Sweep | LookAtQueue
Step = StartStep | RecordStep | FleetStep
