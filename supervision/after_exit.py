"""Decides what follows an agent's exit, a start that failed, and a restart of its group. Pure.

Each decision is a tuple of steps, which `actors/agents/supervisor.py` carries out in order. Source: the rules of groups
and of restart windows are those of supervisors in Erlang/OTP.

See docs/supervision.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..state.agent_entries import AgentRecord, Together
from ..state.models import AgentState, ExitCause
from .lifecycle import Occurrence
from .process_exit import ExitStatus
from .restart import Death, Decision, RestartHistory, RestartType, RestartVerdict
from .steps import (
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
    RestartGroup,
    StartAgain,
    Step,
    Stop,
    Sweep,
    Wake,
)


def death_of(record: AgentRecord, status: ExitStatus | None, *, at: float) -> Death:
    """The death, at monotonic time `at` (seconds), of the incarnation that `record` names, for the restart policy.

    status: None if the incarnation could not be started. After a broken limit the status is left out: it is the answer
    to a signal of ours.
    """
    uptime_s = max(0.0, at - record.started_monotonic)
    if status is None:
        return Death(uptime_s=uptime_s, cause=ExitCause.START_FAILED)
    if record.ending is not None:
        return Death(uptime_s=uptime_s, cause=record.ending)
    return Death(uptime_s=uptime_s, exit_code=status.exit_code, signal=status.signal, cause=cause_of(status))


def cause_of(status: ExitStatus) -> ExitCause | None:
    """Why a process ended that the sidecar did not end. None if nobody could see how it ended."""
    if status.signal is not None:
        return ExitCause.SIGNAL
    return ExitCause.EXIT if status.exit_code is not None else None


def after_exit(
    record: AgentRecord,
    groups: Sequence[GroupStanding],
    decision: Decision | None,
    end: IncarnationEnd,
    *,
    may_start: bool,
    now: float,
) -> tuple[Step, ...]:
    """Decide what follows the end of an incarnation.

    record: with the exit recorded. groups: the groups of the agent. decision: of the restart policy; None if the exit
    was deliberate. may_start: False while the sidecar shuts down. now: monotonic seconds.
    """
    agent_id = record.spec.agent_id
    steps: tuple[Step, ...]
    match end.after:
        case AfterStop.STOPPED:
            steps = (MarkStopped(agent_id),)
        case AfterStop.STARTED_ANEW:
            steps = (MarkStopped(agent_id), StartAgain(agent_id))
        case AfterStop.GIVEN_UP:
            steps = (GiveUp(agent_id, end.note, end.lines),)
        case AfterStop.TOGETHER:
            unchanged = RestartHistory(record.deaths, record.in_a_row, record.is_open)
            again = Decision(verdict=RestartVerdict.RESTART, history=unchanged)
            steps = (BackOff(agent_id, again, end.at), Wake(agent_id, 0.0))
        case AfterStop.JUDGED | None:
            assert decision is not None
            steps = (Sweep(), *_after_death(record, groups, decision, end, may_start=may_start, now=now))
    return (*steps, AdvanceGroups(), LookAtQueue())


def _after_death(
    record: AgentRecord,
    groups: Sequence[GroupStanding],
    decision: Decision,
    end: IncarnationEnd,
    *,
    may_start: bool,
    now: float,
) -> tuple[Step, ...]:
    agent_id = record.spec.agent_id
    match decision.verdict:
        case RestartVerdict.COMPLETE:
            return (Complete(agent_id),)
        case RestartVerdict.GIVE_UP:
            return (GiveUp(agent_id, decision.reason, end.lines),)
        case RestartVerdict.RESTART:
            return _restart(record, groups, decision, end, may_start=may_start, now=now)


def after_failed_start(
    record: AgentRecord,
    groups: Sequence[GroupStanding],
    decision: Decision,
    why: str,
    *,
    may_start: bool,
    now: float,
) -> tuple[Step, ...]:
    """Decide what follows a start that failed. A first one fails the agent; a later one counts as a crash.

    Arguments as for `after_exit`.
    """
    agent_id = record.spec.agent_id
    steps: tuple[Step, ...]
    if record.incarnation == 1:
        steps = (GiveUp(agent_id, why, occurrence=Occurrence.START_FAILED),)
    elif decision.verdict is not RestartVerdict.RESTART:
        steps = (GiveUp(agent_id, decision.reason),)
    else:
        steps = _restart(record, groups, decision, IncarnationEnd(at=now), may_start=may_start, now=now)
    return (*steps, LookAtQueue())


def _restart(
    record: AgentRecord,
    groups: Sequence[GroupStanding],
    decision: Decision,
    end: IncarnationEnd,
    *,
    may_start: bool,
    now: float,
) -> tuple[Step, ...]:
    """Restart after the delay, unless the exit watcher has already restarted it, or its group has reached its
    limit."""
    agent_id, attempt = record.spec.agent_id, end.attempt
    started = attempt.started if attempt is not None else None
    # An agent that ended unseen ended with the sidecar and all others: nothing is wrong with its group.
    counted, exceeded = count_restart(groups, now=now) if may_start and record.cause is not None else ((), None)
    if exceeded is not None and started is None:
        reason = f"its group {exceeded.group} restarted too often"
        return (*counted, GiveUp(agent_id, reason, end.lines), GiveUpGroup(exceeded))
    steps: tuple[Step, ...] = (*counted, BackOff(agent_id, decision, end.at))
    if started is not None:
        group_ends = (GiveUpGroup(exceeded),) if exceeded is not None else ()
        return (*steps, AcceptStart(agent_id, started, Occurrence.BACKED_OFF), *group_ends)
    if attempt is not None and attempt.error is not None:
        return (*steps, FailRestart(agent_id, attempt.error))
    with_it = (RestartGroup(agent_id),) if may_start else ()
    return (*steps, *with_it, Wake(agent_id, end.at + decision.delay_s - now))


def count_restart(
    groups: Sequence[GroupStanding], *, now: float
) -> tuple[tuple[CountGroupRestart, ...], Together | None]:
    """Count the restart of a member in each of its groups, up to the first group that has had too many.

    Returns the counts to be recorded, and that group. As in OTP, members that die while their group is being
    restarted count for nothing.
    """
    counted: list[CountGroupRestart] = []
    for standing in groups:
        if standing.is_restarting:
            continue
        verdict, deaths = standing.group.intensity.decide(standing.deaths, now=now)
        counted.append(CountGroupRestart(standing.where, deaths))
        if verdict is not RestartVerdict.RESTART:
            return tuple(counted), standing.where
    return tuple(counted), None


def end_with_group(record: AgentRecord, restart: RestartType, after: AfterStop, note: str) -> tuple[Step, ...]:
    """Decide how a member ends with its group. after: TOGETHER or GIVEN_UP."""
    agent_id, state = record.spec.agent_id, record.state
    is_given_up = after is AfterStop.GIVEN_UP
    if state is AgentState.RUNNING:
        # As in OTP one that is never restarted ends with the others, and does not start with them.
        is_over = restart == "never" and not is_given_up
        return (Stop(agent_id=agent_id, after=AfterStop.STOPPED if is_over else after, note=note),)
    if state is AgentState.BACKING_OFF and is_given_up:
        return (GiveUp(agent_id, note),)
    if state is AgentState.STOPPING and is_given_up and AfterStop[record.then].may_start_again:
        return (ChangeAfterStop(agent_id, after, note),)
    return ()


def on_exit(record: AgentRecord, exited: AgentExited) -> tuple[Step, ...]:
    """Decide what follows when the watcher has seen a process of the agent end. No steps if that is already known.

    An agent that is being ended is judged when nothing is left of its tree.
    """
    agent_id, attempt = record.spec.agent_id, exited.restart
    if not is_news(record, exited):
        return ()
    if record.state is not AgentState.STOPPING:
        return (JudgeExit(agent_id, exited),)
    if attempt is not None and attempt.started is not None:
        return (KillSuccessor(agent_id, attempt.started),)
    return (AwaitTree(agent_id, exited),)


def is_news(record: AgentRecord, exited: AgentExited) -> bool:
    """Whether the exit is that of the agent's running incarnation, and is not recorded yet."""
    has_process = record.state in (AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING)
    return has_process and record.process is not None and record.incarnation == exited.incarnation
