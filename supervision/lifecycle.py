"""The life of an agent as a table of states and transitions. A transition that is not here cannot happen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ..state.errors import WrongState
from ..state.models import AgentState


class Occurrence(Enum):
    """The occurrences in an agent's life. The verdicts of the restart policy are among them."""

    TURN_CAME = "a slot is free and it is first in the queue"
    STARTED = "its process runs"
    START_FAILED = "its first process could not be started"
    COMPLETED = "it ended and need not run again"
    WILL_RESTART = "it ended and will run again"
    GIVEN_UP = "it ended and is not tried again"
    BACKED_OFF = "its delay is over"
    STOP_ASKED = "someone wants it to end, or it broke a limit"
    STOPPED = "it ended because that was asked for, and nothing of it is left"
    ADOPTED = "a sidecar that starts has found its process"
    START_ASKED = "someone wants it to run again"
    DEPENDENCY_LOST = "a dependency has failed or was stopped"
    DEPENDENCY_BACK = "a dependency may be met again"


_QUEUED, _BLOCKED, _STARTING, _RUNNING = (
    AgentState.QUEUED,
    AgentState.BLOCKED,
    AgentState.STARTING,
    AgentState.RUNNING,
)
_BACKING_OFF, _STOPPING = AgentState.BACKING_OFF, AgentState.STOPPING
_COMPLETED, _FAILED, _STOPPED = AgentState.COMPLETED, AgentState.FAILED, AgentState.STOPPED

LIFECYCLE: Mapping[tuple[AgentState, Occurrence], AgentState] = {
    (_QUEUED, Occurrence.TURN_CAME): _STARTING,
    (_QUEUED, Occurrence.STOP_ASKED): _STOPPED,
    (_QUEUED, Occurrence.DEPENDENCY_LOST): _BLOCKED,
    (_QUEUED, Occurrence.GIVEN_UP): _FAILED,  # its profile says so when a dependency is lost
    (_BLOCKED, Occurrence.DEPENDENCY_BACK): _QUEUED,
    (_BLOCKED, Occurrence.STOP_ASKED): _STOPPED,
    (_BLOCKED, Occurrence.GIVEN_UP): _FAILED,
    (_STARTING, Occurrence.STARTED): _RUNNING,
    (_STARTING, Occurrence.START_FAILED): _FAILED,
    (_STARTING, Occurrence.WILL_RESTART): _BACKING_OFF,
    (_STARTING, Occurrence.GIVEN_UP): _FAILED,
    (_RUNNING, Occurrence.COMPLETED): _COMPLETED,
    (_RUNNING, Occurrence.WILL_RESTART): _BACKING_OFF,
    (_RUNNING, Occurrence.GIVEN_UP): _FAILED,
    (_RUNNING, Occurrence.STOP_ASKED): _STOPPING,
    (_BACKING_OFF, Occurrence.BACKED_OFF): _STARTING,
    (_BACKING_OFF, Occurrence.GIVEN_UP): _FAILED,  # with its group
    (_BACKING_OFF, Occurrence.STOP_ASKED): _STOPPED,
    # It was stopped for breaking a limit, and the policy decides what follows.
    (_STOPPING, Occurrence.WILL_RESTART): _BACKING_OFF,
    (_STOPPING, Occurrence.GIVEN_UP): _FAILED,
    (_STOPPING, Occurrence.STOPPED): _STOPPED,
    (_STARTING, Occurrence.ADOPTED): _RUNNING,
    (_RUNNING, Occurrence.ADOPTED): _RUNNING,
    (_STOPPING, Occurrence.ADOPTED): _STOPPING,
    (_COMPLETED, Occurrence.START_ASKED): _QUEUED,
    (_FAILED, Occurrence.START_ASKED): _QUEUED,
    (_STOPPED, Occurrence.START_ASKED): _QUEUED,
    (_BACKING_OFF, Occurrence.START_ASKED): _QUEUED,
}


def after(state: AgentState, occurrence: Occurrence) -> AgentState:
    """The next state. Raises WrongState if the table has none."""
    try:
        return LIFECYCLE[state, occurrence]
    except KeyError:
        raise WrongState(f"an agent that is {state} cannot go on when {occurrence.value}", state=state) from None
