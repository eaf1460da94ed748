"""The life of an actor as a table of states and transitions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum


class ActorState(StrEnum):
    """The state of an actor behind its handle, as shown to operators."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """No incarnation runs, and none will be started automatically."""
        return self in (ActorState.STOPPED, ActorState.FAILED)


class ActorOccurrence(Enum):
    """An occurrence in the life of an actor."""

    START_ASKED = "its first incarnation is wanted"
    LOOP_BEGAN = "the loop of an incarnation has begun"
    LOOP_ENDED = "the loop of the running incarnation has ended"
    GIVEN_UP = "it died too often"
    STOP_ASKED = "it is wanted no longer"


_STARTING, _RUNNING, _RESTARTING, _STOPPED, _FAILED = ActorState

ACTOR_LIFECYCLE: Mapping[tuple[ActorState, ActorOccurrence], ActorState] = {
    (_STARTING, ActorOccurrence.START_ASKED): _STARTING,
    (_STARTING, ActorOccurrence.LOOP_BEGAN): _RUNNING,
    (_RUNNING, ActorOccurrence.LOOP_ENDED): _RESTARTING,
    (_RESTARTING, ActorOccurrence.LOOP_BEGAN): _RUNNING,
    (_RESTARTING, ActorOccurrence.GIVEN_UP): _FAILED,
    **{(state, ActorOccurrence.STOP_ASKED): _STOPPED for state in ActorState},
    # It was stopped while its loop ended, or while the next incarnation was created.
    (_STOPPED, ActorOccurrence.LOOP_BEGAN): _STOPPED,
    (_STOPPED, ActorOccurrence.LOOP_ENDED): _STOPPED,
    (_STOPPED, ActorOccurrence.GIVEN_UP): _STOPPED,
    (_STOPPED, ActorOccurrence.START_ASKED): _STARTING,
}
