"""The stages of a connection, as a table, and what follows from each of them. Pure.

    IDLE ──SERVE──▶ SERVED ──RETURN──▶ IDLE
    IDLE ──PARK──▶ WAITING ──ANSWER──▶ IDLE
    IDLE ──STREAM──▶ STREAMING ──END──▶ IDLE
    IDLE ──LINGER──▶ LINGERING

CLOSE leads from every stage except SERVED back to IDLE, where a closed connection stays: while a worker runs the
handler, the connection is only marked, and is closed when the worker returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from .poller import HANGUP, READ, WRITE


class Stage(Enum):
    """The state of a connection."""

    IDLE = "reads requests, flushes answers"
    SERVED = "a worker runs the handler"
    WAITING = "parked"
    STREAMING = "an answer without an end"
    LINGERING = "nothing more will be sent; waits for the peer to close"

    __hash__ = object.__hash__  # an Enum's own takes the hash of its name, in Python, twice in each request


class Move(Enum):
    """A transition from one stage to another."""

    SERVE = auto()
    RETURN = auto()
    PARK = auto()
    ANSWER = auto()
    STREAM = auto()
    END = auto()
    LINGER = auto()
    CLOSE = auto()

    __hash__ = object.__hash__  # as Stage


NEXT: Mapping[tuple[Stage, Move], Stage] = {
    (Stage.IDLE, Move.SERVE): Stage.SERVED,
    (Stage.SERVED, Move.RETURN): Stage.IDLE,
    (Stage.IDLE, Move.PARK): Stage.WAITING,
    (Stage.WAITING, Move.ANSWER): Stage.IDLE,
    (Stage.IDLE, Move.STREAM): Stage.STREAMING,
    (Stage.STREAMING, Move.END): Stage.IDLE,
    (Stage.IDLE, Move.LINGER): Stage.LINGERING,
    (Stage.IDLE, Move.CLOSE): Stage.IDLE,
    (Stage.WAITING, Move.CLOSE): Stage.IDLE,
    (Stage.STREAMING, Move.CLOSE): Stage.IDLE,
    (Stage.LINGERING, Move.CLOSE): Stage.IDLE,
}

# Stages in which nothing is expected of the client, however long it is silent.
_PATIENT = frozenset({Stage.SERVED, Stage.WAITING, Stage.LINGERING})


def interest(stage: Stage, current: int, *, is_readable: bool, has_output: bool) -> int:
    """The flags to watch for, from the present ones.

    is_readable: there is space for another request. While a worker runs, output is not watched; muted input is
    watched again when the connection is idle.
    """
    wanted = current
    if stage is Stage.IDLE and is_readable and not wanted & READ:
        wanted |= READ | HANGUP
    if stage is not Stage.SERVED:
        wanted = wanted | WRITE if has_output else wanted & ~WRITE
    return wanted


def is_patient(stage: Stage, *, has_output: bool) -> bool:
    """Whether the client may be silent for any time: it has nothing to send and nothing to read."""
    return stage in _PATIENT or (stage is Stage.STREAMING and not has_output)
