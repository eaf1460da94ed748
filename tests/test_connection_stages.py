"""The stages of a connection: which move leads where, and what the poller is asked for in each."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.http.loop.poller import HANGUP, READ, WRITE
from sidecar.http.loop.stages import NEXT, Move, Stage, interest, is_patient


class AConnectionGoesThroughItsStages(RuleBasedStateMachine):
    """Compare the table with what happens to a connection, told by flags."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage.IDLE
        self.worker_is_busy = self.is_parked = self.is_streaming = self.is_lingering = False

    def move(self, move: Move) -> None:
        self.stage = NEXT[self.stage, move]

    @property
    def does_nothing(self) -> bool:
        return not (self.worker_is_busy or self.is_parked or self.is_streaming or self.is_lingering)

    @precondition(lambda self: self.does_nothing)
    @rule()
    def a_worker_takes_the_request(self) -> None:
        self.move(Move.SERVE)
        self.worker_is_busy = True

    @precondition(lambda self: self.worker_is_busy)
    @rule(outcome=st.sampled_from([None, Move.PARK, Move.STREAM]))
    def the_worker_returns(self, outcome: Move | None) -> None:
        self.move(Move.RETURN)
        self.worker_is_busy = False
        if outcome is not None:
            self.waits(outcome)

    @precondition(lambda self: self.does_nothing)
    @rule(move=st.sampled_from([Move.PARK, Move.STREAM]))
    def waits(self, move: Move) -> None:
        self.move(move)
        self.is_parked, self.is_streaming = move is Move.PARK, move is Move.STREAM

    @precondition(lambda self: self.is_parked)
    @rule()
    def the_answer_is_known(self) -> None:
        self.move(Move.ANSWER)
        self.is_parked = False

    @precondition(lambda self: self.is_streaming)
    @rule()
    def the_stream_ends(self) -> None:
        self.move(Move.END)
        self.is_streaming = False

    @precondition(lambda self: self.does_nothing)
    @rule()
    def the_last_answer_is_sent(self) -> None:
        self.move(Move.LINGER)
        self.is_lingering = True

    @rule()
    def the_client_leaves(self) -> None:
        if self.worker_is_busy:
            with pytest.raises(KeyError):  # it may be about to use the socket
                self.move(Move.CLOSE)
        else:
            self.move(Move.CLOSE)
            self.is_parked = self.is_streaming = self.is_lingering = False

    @invariant()
    def the_stage_says_what_it_does(self) -> None:
        assert (self.stage is Stage.SERVED) == self.worker_is_busy
        assert (self.stage is Stage.WAITING) == self.is_parked
        assert (self.stage is Stage.STREAMING) == self.is_streaming
        assert (self.stage is Stage.LINGERING) == self.is_lingering

    @invariant()
    def only_an_idle_connection_begins_anything(self) -> None:
        begins = {Move.SERVE, Move.PARK, Move.STREAM, Move.LINGER}
        allowed = {move for stage, move in NEXT if stage is self.stage}
        assert begins <= allowed if self.does_nothing else not begins & allowed


TestAConnectionGoesThroughItsStages = AConnectionGoesThroughItsStages.TestCase

FLAGS = st.sampled_from([0, READ, READ | HANGUP, WRITE, READ | HANGUP | WRITE])


@given(st.sampled_from(Stage), FLAGS, st.booleans(), st.booleans())
def test_output_is_watched_unless_a_worker_runs(stage: Stage, flags: int, is_readable: bool, has_output: bool) -> None:
    wanted = interest(stage, flags, is_readable=is_readable, has_output=has_output)
    if stage is Stage.SERVED:
        assert wanted == flags
    else:
        assert bool(wanted & WRITE) == has_output
    assert interest(stage, wanted, is_readable=is_readable, has_output=has_output) == wanted


@given(st.sampled_from(Stage), FLAGS, st.booleans(), st.booleans())
def test_muted_input_is_watched_again_when_there_is_room_for_a_request(
    stage: Stage, flags: int, is_readable: bool, has_output: bool
) -> None:
    wanted = interest(stage, flags, is_readable=is_readable, has_output=has_output)
    assert bool(wanted & READ) == (bool(flags & READ) or (stage is Stage.IDLE and is_readable))


def test_silence_is_counted_only_where_the_client_has_something_to_do() -> None:
    impatient = {(stage, out) for stage in Stage for out in (False, True) if not is_patient(stage, has_output=out)}
    assert impatient == {(Stage.IDLE, False), (Stage.IDLE, True), (Stage.STREAMING, True)}
