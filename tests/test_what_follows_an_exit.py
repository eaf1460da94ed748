"""Whatever ends, one thing follows: the agent has ended, waits for its restart, or runs; and never two of it run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.state.agent_entries import AgentRecord, Together
from sidecar.state.clock import utc_now
from sidecar.state.identity import Token
from sidecar.state.models import AgentId, AgentSpec, AgentState, ExitCause, ProcessIdentity
from sidecar.supervision.after_exit import after_exit, after_failed_start, count_restart, end_with_group, on_exit
from sidecar.supervision.lifecycle import Occurrence, after
from sidecar.supervision.process import StartedProcess
from sidecar.supervision.process_exit import ExitStatus
from sidecar.supervision.process_exits import Exited
from sidecar.supervision.restart import Death, Decision, RestartHistory, RestartIntensity, RestartPolicy, RestartVerdict
from sidecar.supervision.steps import (
    AcceptStart,
    AdvanceGroups,
    AfterStop,
    AgentExited,
    AwaitTree,
    BackOff,
    ChangeAfterStop,
    Complete,
    CountGroupRestart,
    FailRestart,
    GiveUp,
    GiveUpGroup,
    GroupStanding,
    IncarnationEnd,
    JudgeExit,
    KillSuccessor,
    LookAtQueue,
    MarkStopped,
    RestartAttempt,
    RestartGroup,
    StartAgain,
    StartedIncarnation,
    Step,
    Stop,
    Sweep,
    Wake,
)
from sidecar.supervision.strategy import Group

ID = AgentId("worker-1")
HERE = Together("g", "p", "i")
RECORD = AgentRecord(
    spec=AgentSpec(agent_id=ID, agent_type="worker", issue_id="i", project_id="p"),
    serial=1,
    requested_by=AgentId("someone"),
    created_at=utc_now(),
    state=AgentState.RUNNING,
    incarnation=2,
    process=ProcessIdentity("boot", 2, 2),
    cause=ExitCause.SIGNAL,
)
ENDS = (Complete, GiveUp, MarkStopped)
STARTS = (AcceptStart, StartAgain, Wake, FailRestart)  # a failed restart is judged by itself: it may be tried again


def started(incarnation: int, at: float = 0.0) -> StartedIncarnation:
    process = StartedProcess(ProcessIdentity("boot", incarnation, incarnation), None)
    return StartedIncarnation(
        process, Token(text="text", token_id="id", expires_at=utc_now() + timedelta(hours=1)), (0, 0), at
    )


def standing(deaths: tuple[float, ...] = (), *, most: int = 3, is_restarting: bool = False) -> GroupStanding:
    group = Group(agents=("worker",), max_restarts=most, restart_window_seconds=60.0)
    return GroupStanding(HERE, group, deaths, is_restarting)


times = st.floats(0, 1000)
decisions = st.builds(
    Decision,
    verdict=st.sampled_from(RestartVerdict),
    history=st.just(RestartHistory()),
    delay_s=st.floats(0, 100),
    reason=st.just("it died too often"),
)
attempts = st.one_of(
    st.none(),
    st.builds(RestartAttempt, decision=decisions, started=st.one_of(st.none(), st.just(started(3)))),
    st.builds(RestartAttempt, decision=decisions, error=st.just("there is no such program")),
)
standings = st.lists(st.builds(standing, st.lists(times, max_size=5).map(tuple), most=st.integers(0, 4)), max_size=2)
causes = st.sampled_from([*ExitCause, None])


def kinds(steps: tuple[Step, ...], *types: type) -> list[Step]:
    return [step for step in steps if isinstance(step, types)]


@given(
    after=st.sampled_from([*AfterStop, None]),
    decision=decisions,
    attempt=attempts,
    groups=standings,
    cause=causes,
    may_start=st.booleans(),
    now=times,
)
def test_every_end_leads_to_one_of_ended_waiting_and_running(
    after: AfterStop | None,
    decision: Decision,
    attempt: RestartAttempt | None,
    groups: list[GroupStanding],
    cause: ExitCause | None,
    may_start: bool,
    now: float,
) -> None:
    record = msgspec.structs.replace(RECORD, cause=cause)
    if attempt is not None:
        restarts = msgspec.structs.replace(attempt.decision, verdict=RestartVerdict.RESTART)
        attempt = msgspec.structs.replace(attempt, decision=restarts)
        decision = restarts
    end = IncarnationEnd(at=now, after=after, attempt=attempt)
    steps = after_exit(record, groups, decision, end, may_start=may_start, now=now)
    ends, starts = kinds(steps, *ENDS), kinds(steps, *STARTS)
    is_restarted_by_request = after is AfterStop.STARTED_ANEW
    assert len(ends) + len(starts) == (2 if is_restarted_by_request else 1)
    assert len(kinds(steps, BackOff)) == (1 if starts and not is_restarted_by_request else 0)
    assert [type(step) for step in steps[-2:]] == [AdvanceGroups, LookAtQueue]
    # Others are restarted with it only while it waits, and a sidecar that shuts down restarts nobody.
    assert not kinds(steps, RestartGroup) or (may_start and kinds(steps, Wake))
    assert bool(kinds(steps, Sweep)) is (not end.is_deliberate)


@given(
    after=st.sampled_from([AfterStop.STOPPED, AfterStop.GIVEN_UP]),
    attempt=attempts,
    groups=standings,
    may_start=st.booleans(),
)
def test_an_agent_that_was_told_to_stop_never_starts(
    after: AfterStop, attempt: RestartAttempt | None, groups: list[GroupStanding], may_start: bool
) -> None:
    end = IncarnationEnd(at=5.0, after=after, attempt=attempt)
    steps = after_exit(RECORD, groups, None, end, may_start=may_start, now=6.0)
    assert not kinds(steps, *STARTS, BackOff, RestartGroup)


@given(gaps=st.lists(st.floats(0, 40), min_size=1, max_size=30), most=st.integers(0, 4), codes=st.data())
def test_an_agent_is_given_up_in_the_moment_the_window_says_so(gaps: list[float], most: int, codes: Any) -> None:
    policy = RestartPolicy(intensity=RestartIntensity(max_restarts=most, within_s=60.0))
    record, now, deaths = RECORD, 0.0, []
    for gap in gaps:
        now += gap
        deaths.append(now)
        history = RestartHistory(record.deaths, record.in_a_row, record.is_open)
        code = codes.draw(st.sampled_from([None, 1, 3]))
        decision = policy.decide(history, Death(exit_code=code, uptime_s=gap), now=now, chance=0.0)
        steps = after_exit(record, (), decision, IncarnationEnd(at=now), may_start=True, now=now)
        is_over = sum(now - death <= 60.0 for death in deaths) > most
        assert bool(kinds(steps, GiveUp)) is is_over
        if is_over:
            return
        (back_off,) = kinds(steps, BackOff)
        assert isinstance(back_off, BackOff)
        record = msgspec.structs.replace(
            record, deaths=back_off.decision.history.deaths, in_a_row=back_off.decision.history.in_a_row
        )


@given(deaths=st.lists(times, max_size=6).map(lambda each: tuple(sorted(each))), most=st.integers(0, 4), gap=times)
def test_a_group_that_has_had_too_many_restarts_is_given_up_with_the_one_that_died(
    deaths: tuple[float, ...], most: int, gap: float
) -> None:
    now = (deaths[-1] if deaths else 0.0) + gap
    again = Decision(verdict=RestartVerdict.RESTART, history=RestartHistory(), delay_s=1.0)
    exceeded = sum(now - death <= 60.0 for death in (*deaths, now)) > most
    for attempt in (None, RestartAttempt(decision=again, started=started(3))):
        end = IncarnationEnd(at=now, attempt=attempt)
        steps = after_exit(RECORD, [standing(deaths, most=most)], again, end, may_start=True, now=now)
        assert bool(kinds(steps, GiveUpGroup)) is exceeded
        (counted,) = kinds(steps, CountGroupRestart)
        assert isinstance(counted, CountGroupRestart)
        assert counted.deaths[-1] == now
        # One that runs again already ends with its group, not before it.
        assert bool(kinds(steps, GiveUp)) is (exceeded and attempt is None)
        assert bool(kinds(steps, AcceptStart)) is (attempt is not None)


@given(decision=decisions, cause=causes, may_start=st.booleans(), is_restarting=st.booleans())
def test_what_counts_for_no_group(
    decision: Decision, cause: ExitCause | None, may_start: bool, is_restarting: bool
) -> None:
    record = msgspec.structs.replace(RECORD, cause=cause)
    group = standing(most=0, is_restarting=is_restarting)
    steps = after_exit(record, [group], decision, IncarnationEnd(at=1.0), may_start=may_start, now=1.0)
    restarts = decision.verdict is RestartVerdict.RESTART
    counts = restarts and may_start and cause is not None and not is_restarting
    assert bool(kinds(steps, CountGroupRestart)) is counts
    assert bool(kinds(steps, GiveUpGroup)) is counts  # the group allows none at all


def test_groups_are_counted_up_to_the_first_that_has_had_too_many() -> None:
    other = msgspec.structs.replace(standing(), where=Together("h", "p", "i"))
    counted, exceeded = count_restart([standing(most=0), other], now=1.0)
    assert ([step.where for step in counted], exceeded) == ([HERE], HERE)


@given(incarnation=st.integers(1, 9), decision=decisions, groups=standings, may_start=st.booleans())
def test_a_first_start_that_fails_fails_the_agent_and_a_later_one_is_a_crash(
    incarnation: int, decision: Decision, groups: list[GroupStanding], may_start: bool
) -> None:
    record = msgspec.structs.replace(RECORD, incarnation=incarnation, cause=ExitCause.START_FAILED)
    steps = after_failed_start(record, groups, decision, "no such program", may_start=may_start, now=1.0)
    given_up = [step for step in steps if isinstance(step, GiveUp)]
    assert len(given_up) + len(kinds(steps, Wake)) == 1
    is_first = bool(given_up) and given_up[0].occurrence is Occurrence.START_FAILED
    assert is_first is (incarnation == 1)
    if incarnation > 1 and decision.verdict is not RestartVerdict.RESTART:
        assert given_up[0].reason == decision.reason


@given(
    state=st.sampled_from(AgentState),
    then=st.sampled_from(AfterStop),
    restart=st.sampled_from(["always", "on-failure", "never"]),
    is_given_up=st.booleans(),
)
def test_a_member_ends_with_its_group_but_nothing_asked_for_is_undone(
    state: AgentState, then: AfterStop, restart: Any, is_given_up: bool
) -> None:
    record = msgspec.structs.replace(RECORD, state=state, then=then.name if state is AgentState.STOPPING else "")
    with_group = AfterStop.GIVEN_UP if is_given_up else AfterStop.TOGETHER
    steps = end_with_group(record, restart, with_group, "its group ends")
    match state:
        case AgentState.RUNNING:
            comes_back = restart != "never" or is_given_up
            expected = with_group if comes_back else AfterStop.STOPPED
            assert [step.after for step in steps if isinstance(step, Stop)] == [expected]
        case AgentState.BACKING_OFF:
            assert [type(step) for step in steps] == ([GiveUp] if is_given_up else [])
        case AgentState.STOPPING:
            changes = is_given_up and then.may_start_again
            assert [type(step) for step in steps] == ([ChangeAfterStop] if changes else [])
        case _:
            assert steps == ()


def test_a_successor_is_killed_where_its_agent_was_told_to_stop_meanwhile() -> None:
    restart = Decision(verdict=RestartVerdict.RESTART, history=RestartHistory())
    successor = started(3)
    exited: AgentExited = Exited(
        ID, 2, ExitStatus(exit_code=1), 5.0, RestartAttempt(decision=restart, started=successor)
    )
    stopping = msgspec.structs.replace(RECORD, state=AgentState.STOPPING, then=AfterStop.STOPPED.name)
    assert on_exit(stopping, exited) == (KillSuccessor(ID, successor),)
    assert on_exit(RECORD, exited) == (JudgeExit(ID, exited),)
    assert on_exit(stopping, msgspec.structs.replace(exited, restart=None)) != (KillSuccessor(ID, successor),)
    assert on_exit(RECORD, msgspec.structs.replace(exited, incarnation=1)) == ()


class AgentLife(RuleBasedStateMachine):
    """One agent and its processes. Steps are done as the AgentSupervisor does them; exits are seen late."""

    @initialize(most=st.integers(0, 3))
    def begin(self, most: int) -> None:
        self.policy = RestartPolicy(intensity=RestartIntensity(max_restarts=most, within_s=1e9))
        self.record = msgspec.structs.replace(RECORD, incarnation=0, process=None, state=AgentState.QUEUED)
        self.living: set[int] = set()
        self.unseen: list[AgentExited] = []
        self.awaits: AgentExited | None = None
        self.now = 0.0
        self.start(Occurrence.TURN_CAME)

    def change(self, occurrence: Occurrence, **more: Any) -> None:
        state = after(self.record.state, occurrence)  # the table refuses what cannot happen
        self.record = msgspec.structs.replace(self.record, state=state, **more)

    def start(self, occurrence: Occurrence) -> None:
        self.change(occurrence, incarnation=self.record.incarnation + 1)
        assert not self.living, "two of one agent run"
        self.living.add(self.record.incarnation)
        self.runs(self.record.incarnation)

    def runs(self, incarnation: int) -> None:
        self.change(Occurrence.STARTED, process=ProcessIdentity("boot", incarnation, incarnation))

    def decide(self, exited: AgentExited) -> Decision:
        history = RestartHistory(self.record.deaths, self.record.in_a_row, self.record.is_open)
        return self.policy.decide(history, Death(exit_code=1, uptime_s=5.0), now=exited.at, chance=0.0)

    def do(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self.do(self.done(step))

    def done(self, step: Step) -> tuple[Step, ...]:
        match step:
            case JudgeExit(exited=exited):
                return self.judge(exited)
            case AwaitTree(exited=exited):
                self.awaits = exited
            case KillSuccessor(started=successor):
                incarnation = self.record.incarnation + 1
                assert successor.process.identity.pid == incarnation
                self.record = msgspec.structs.replace(
                    self.record, incarnation=incarnation, process=successor.process.identity
                )
                if self.living:
                    self.living.remove(incarnation)
                    self.unseen.append(Exited(ID, incarnation, ExitStatus(signal=9), self.now, None))
            case Stop(after=after_stop):
                if self.record.state is AgentState.RUNNING:
                    self.change(Occurrence.STOP_ASKED, then=after_stop.name)
                else:
                    self.record = msgspec.structs.replace(self.record, then=after_stop.name)
            case MarkStopped():
                self.change(Occurrence.STOPPED)
            case StartAgain():
                self.change(Occurrence.START_ASKED, deaths=(), in_a_row=0)
                self.start(Occurrence.TURN_CAME)
            case GiveUp(occurrence=occurrence):
                self.change(occurrence)
            case BackOff(decision=decision):
                history = decision.history
                self.change(Occurrence.WILL_RESTART, deaths=history.deaths, in_a_row=history.in_a_row, process=None)
            case AcceptStart(started=successor):
                self.change(Occurrence.BACKED_OFF, incarnation=self.record.incarnation + 1)
                assert successor.process.identity.pid == self.record.incarnation
                assert self.living <= {self.record.incarnation}  # it may have died as well
                self.runs(self.record.incarnation)
            case _:
                assert isinstance(step, Wake | Sweep | AdvanceGroups | LookAtQueue | RestartGroup)
        return ()

    def judge(self, exited: AgentExited) -> tuple[Step, ...]:
        is_stopping = self.record.state is AgentState.STOPPING
        after_stop = AfterStop[self.record.then] if is_stopping else None
        end = IncarnationEnd(at=exited.at, after=after_stop, attempt=None if is_stopping else exited.restart)
        decision = end.attempt.decision if end.attempt is not None else self.decide(exited)
        self.record = msgspec.structs.replace(self.record, then="")
        return after_exit(self.record, (), decision, end, may_start=True, now=self.now)

    @rule(seconds=st.floats(0, 10), is_prepared=st.booleans())
    def the_process_dies(self, seconds: float, is_prepared: bool) -> None:
        """is_prepared: the exit watcher may restart it at once, unless it is told to stop."""
        self.now += seconds
        if not self.living:
            return
        (incarnation,) = self.living
        self.living.clear()
        exited: AgentExited = Exited(ID, incarnation, ExitStatus(exit_code=1), self.now, None)
        is_known = self.record.incarnation == incarnation  # only then a restart was prepared
        if is_prepared and is_known and self.record.state is AgentState.RUNNING:
            decision = self.decide(exited)
            attempt = RestartAttempt(decision=decision)
            if decision.verdict is RestartVerdict.RESTART:
                self.living.add(incarnation + 1)
                attempt = RestartAttempt(decision=decision, started=started(incarnation + 1, self.now))
            exited = msgspec.structs.replace(exited, restart=attempt)
        self.unseen.append(exited)

    @rule(twice=st.booleans())
    def an_exit_is_seen(self, twice: bool) -> None:
        if self.unseen:
            exited = self.unseen.pop(0)
            for _ in range(1 + twice):  # a Spawner that was restarted may hear of one again
                self.do(on_exit(self.record, exited))

    @rule(after_stop=st.sampled_from([AfterStop.STOPPED, AfterStop.STARTED_ANEW, AfterStop.JUDGED, AfterStop.TOGETHER]))
    def it_is_told_to_stop(self, after_stop: AfterStop) -> None:
        if self.record.state is AgentState.RUNNING or (
            self.record.state is AgentState.STOPPING and after_stop.was_asked_for
        ):
            self.do((Stop(agent_id=ID, after=after_stop),))

    @rule()
    def nothing_is_left_of_its_tree(self) -> None:
        if self.awaits is not None:
            exited, self.awaits = self.awaits, None
            self.do((JudgeExit(ID, exited),))

    @rule()
    def its_delay_is_over(self) -> None:
        if self.record.state is AgentState.BACKING_OFF:
            self.start(Occurrence.BACKED_OFF)

    @rule()
    def somebody_starts_it_again(self) -> None:
        if self.record.state.has_ended or self.record.state is AgentState.BACKING_OFF:
            self.do((StartAgain(ID),))

    @invariant()
    def at_most_one_runs(self) -> None:
        if hasattr(self, "living"):
            assert len(self.living) <= 1

    @invariant()
    def nothing_runs_of_an_agent_that_has_ended(self) -> None:
        if hasattr(self, "living") and (self.record.state.has_ended or self.record.state is AgentState.BACKING_OFF):
            assert not self.living
            assert self.awaits is None


test_one_agent = AgentLife.TestCase
test_one_agent.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
