"""A death says how the incarnation ended, so that a restart rule about it fits into the pure policy."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.state.agent_entries import AgentRecord
from sidecar.state.clock import utc_now
from sidecar.state.models import AgentId, AgentSpec, AgentState, ExitCause
from sidecar.supervision.after_exit import death_of
from sidecar.supervision.process_exit import ExitStatus
from sidecar.supervision.restart import Death, Decision, RestartHistory, RestartPolicy, RestartVerdict

RECORD = AgentRecord(
    spec=AgentSpec(agent_id=AgentId("worker-1"), agent_type="worker", issue_id="i", project_id="p"),
    serial=1,
    requested_by=AgentId("someone"),
    created_at=utc_now(),
    state=AgentState.RUNNING,
    incarnation=1,
)


@given(
    code=st.none() | st.integers(0, 255),
    signal=st.integers(1, 64),
    ending=st.sampled_from([None, ExitCause.MEMORY, ExitCause.TIMEOUT, ExitCause.HEARTBEAT]),
)
def test_a_death_says_how_the_incarnation_ended(code: int | None, signal: int, ending: ExitCause | None) -> None:
    record = msgspec.structs.replace(RECORD, started_monotonic=10.0, ending=ending)
    exited, signalled, unseen = ExitStatus(exit_code=code), ExitStatus(signal=signal), ExitStatus()
    exit_cause = ExitCause.EXIT if code is not None else None
    for status, exit_code, number, cause in (
        (exited, code, None, exit_cause),
        (signalled, None, signal, ExitCause.SIGNAL),
        (unseen, None, None, None),
    ):
        if ending is not None:  # the process answered a signal of ours
            exit_code, number, cause = None, None, ending
        assert death_of(record, status, at=12.5) == Death(exit_code=exit_code, signal=number, cause=cause, uptime_s=2.5)
    assert death_of(record, None, at=9.0) == Death(cause=ExitCause.START_FAILED, uptime_s=0.0)


class AfterSignalsOnly(RestartPolicy, frozen=True):
    """A rule that nobody planned, in the policy alone: only a signal is followed by a restart."""

    def decide(self, history: RestartHistory, death: Death, *, now: float, chance: float) -> Decision:
        if death.cause is not ExitCause.SIGNAL:
            return Decision(verdict=RestartVerdict.GIVE_UP, history=history, reason="no signal")
        return super().decide(history, death, now=now, chance=chance)


@given(status=st.sampled_from([ExitStatus(exit_code=1), ExitStatus(signal=11), ExitStatus(), None]))
def test_a_rule_about_signals_needs_the_policy_alone(status: ExitStatus | None) -> None:
    decision = AfterSignalsOnly().decide(RestartHistory(), death_of(RECORD, status, at=1.0), now=1.0, chance=0.0)
    is_signal = status is not None and status.signal is not None
    assert decision.verdict is (RestartVerdict.RESTART if is_signal else RestartVerdict.GIVE_UP)


@pytest.mark.parametrize("code", [0, 64])
def test_an_exit_code_after_a_broken_limit_does_not_count(code: int) -> None:
    policy = RestartPolicy(no_restart_exit_codes=frozenset({64}))
    status, broken = ExitStatus(exit_code=code), msgspec.structs.replace(RECORD, ending=ExitCause.MEMORY)
    own, ours = (
        policy.decide(RestartHistory(), death_of(record, status, at=1.0), now=1.0, chance=0.0)
        for record in (RECORD, broken)
    )
    assert own.verdict is (RestartVerdict.COMPLETE if code == 0 else RestartVerdict.GIVE_UP)
    assert own.reason == ("" if code == 0 else "exit code 64 is in no_restart_exit_codes")
    assert ours.verdict is RestartVerdict.RESTART
