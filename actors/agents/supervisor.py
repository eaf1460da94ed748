"""AgentSupervisor: keeps agents running: starts them when it is their turn, sees them end, restarts them, ends them.

Used by the Spawner in its thread. Nothing here waits: exits, looks at the process table and times come back as facts.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import assert_never

from ...state.agent_registry import AgentRegistry
from ...state.errors import SpawnFailed
from ...state.identity import Token
from ...state.models import AgentId, AgentState, AgentStatus, ExitCause
from ...supervision.fleet import SpawnerOptions
from ...supervision.lifecycle import Occurrence
from ...supervision.limits import Broken
from ...supervision.oom import OomKills
from ...supervision.proc_fs import oom_kills
from ...supervision.process import StartedProcess
from ...supervision.process_exit import ExitStatus
from ...supervision.process_tree import Trees
from ...supervision.restart import SETTLED_AFTER_S, Decision, RestartHistory, RestartVerdict
from ..runtime.asking import Later, Recipient
from ..runtime.timers import Timers
from .agent import RUNS, WAITS, AfterStop, AgentDue, CensusTaken, DueWhat, SupervisedAgent
from .group_restarts import GroupRestarts
from .launching import AgentExited, Launcher, RestartAttempt, StartedIncarnation
from .queue import AgentQueue
from .quoting import prepare_soon
from .records import AgentRecords, token_ref
from .stopping import ProcessTrees

log = logging.getLogger(__name__)

PREPARED_AFTER_S = SETTLED_AFTER_S - 0.2  # for a restart at once, which only a settled agent gets


class AgentSupervisor:
    """All times that decide are monotonic. queue: whose turn it is; once it is closed nothing is started any more.

    launcher: starts the processes. input_read: see Spawner.
    """

    def __init__(
        self,
        *,
        book: AgentRecords,
        registry: AgentRegistry,
        options: SpawnerOptions,
        launcher: Launcher,
        instance_id: str,
        timers: Timers,
        me: Recipient,
        input_read: Callable[[Callable[[], None]], None],
    ) -> None:
        self.book = book
        self._input_read = input_read
        self.launcher = launcher
        self._timers = timers
        self._me = me
        self._oom = OomKills(oom_kills())
        self.queue = AgentQueue(book, options, timers, me, start=lambda agent: self._start(agent, Occurrence.TURN_CAME))
        self._ending = ProcessTrees(
            book.agents,
            instance_id=instance_id,
            sample_s=options.sample_seconds,
            timers=timers,
            me=me,
            gone=self.gone,
            broke_limit=self._broke_limit,
        )
        self._groups = GroupRestarts(
            options.groups,
            book.agents,
            registry,
            end=self._end_for_group,
            start=lambda agent: self._start(agent, Occurrence.BACKED_OFF),
        )

    def open(self) -> None:
        self._ending.open()

    def close(self) -> None:
        """Look no longer; what runs goes on running."""
        self._ending.close()

    def look_now(self) -> Trees:
        """The trees of this storage's agents, seen in this thread: before `open` only."""
        return self._ending.look_now()

    # --- starting ------------------------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """No agent's process runs, nor anything that one left behind."""
        return self._ending.is_settled and self.book.count(*RUNS) == 0

    def enter(self, agent: SupervisedAgent) -> None:
        """A new agent: on the disk before anything else, then started if it is its turn, else queued.

        Raises StorageUnavailable, QueueFull; then there is no such agent.
        """
        if not self.queue.takes_turn_at_once(agent):
            self.queue.require_room(agent)
            self.book.enter(agent)
            self.queue.run()
            self._tell_queued(agent)
            return
        token = self.launcher.mint(agent.record, agent.profile)
        self.book.enter_starting(agent, token)
        self._launch(agent, token)

    def start_anew(self, agent: SupervisedAgent) -> None:
        """Start one that has ended, or that waits for its restart, with a clean history."""
        self.book.change(agent, Occurrence.START_ASKED, deaths=(), in_a_row=0, is_open=False, resume_at=0.0)
        if self.queue.has_room_for(agent):
            self._start(agent, Occurrence.TURN_CAME)
        else:
            self.queue.look_soon()  # it may be blocked
            self._tell_queued(agent)
            self.book.answer(agent, agent.start_waiters)
        self._groups.advance()  # those that were to start with it need not wait for it any more

    def _tell_queued(self, agent: SupervisedAgent) -> None:
        if agent.record.state is AgentState.QUEUED:
            self.queue.explain(agent)
            self.book.queued(agent)

    def _start(self, agent: SupervisedAgent, occurrence: Occurrence) -> None:
        token = self.launcher.mint(agent.record, agent.profile)
        self.book.starts(agent, occurrence, token)
        self._launch(agent, token)

    def _launch(self, agent: SupervisedAgent, token: Token) -> None:
        try:
            begun = self.launcher.start(agent.record, agent.profile, token)
        except SpawnFailed as error:
            self._start_failed(agent, error.message)
        except Exception as error:  # whatever it is: one that stayed `starting` would never be looked at again
            log.exception("agent could not be started agent_id=%s", agent.id)
            self._start_failed(agent, repr(error))
        else:
            self.started(agent, begun)

    def started(self, agent: SupervisedAgent, begun: StartedIncarnation) -> None:
        """The process of an agent that is `starting` is there."""
        self.book.started(agent, begun)
        self.watch(agent, begun.process)
        if self.book.count(*WAITS):
            self.queue.look_soon()  # others may depend on it

    def watch(self, agent: SupervisedAgent, process: StartedProcess) -> None:
        """Its process runs: see it end, measure it, and see to its limits."""
        record, profile = agent.record, agent.profile
        agent.last_heard, agent.excused_s = time.monotonic(), 0.0
        self._ending.watch(agent, process)
        prepare_soon()  # to quote what it says last
        if profile.restart != "never" and self._groups.restarts_alone(agent):
            # It dies of its start before that, and then its restart has to wait anyhow.
            self.tell_after(record.started_monotonic + PREPARED_AFTER_S - time.monotonic(), agent, "prepare")
        if profile.run_timeout_seconds > 0:
            left_s = record.started_monotonic + profile.run_timeout_seconds - time.monotonic()
            self.tell_after(left_s, agent, "run_timeout")
        if profile.heartbeat_timeout_seconds > 0:
            self.tell_after(profile.heartbeat_timeout_seconds, agent, "heartbeat")

    def _start_failed(self, agent: SupervisedAgent, why: str) -> None:
        """A first start that fails is for whoever asked to mend; a later one is a death like any other."""
        self.book.start_failed(agent, why)
        agent.refuse_started(SpawnFailed(f"agent {agent.id} could not be started: {why}", agent_id=agent.id))
        now = time.monotonic()
        decision = self.launcher.decide(agent.record, agent.profile.restart_policy, None, at=now)
        if agent.record.incarnation == 1:
            self.book.given_up(agent, Occurrence.START_FAILED, why)
        elif decision.verdict is not RestartVerdict.RESTART:
            self.book.given_up(agent, Occurrence.GIVEN_UP, decision.reason)
        else:
            self._back_off(agent, decision, now)
        self.queue.look_soon()

    # --- ending --------------------------------------------------------------------------------------------

    def end(
        self,
        agent: SupervisedAgent,
        then: AfterStop,
        *,
        cause: ExitCause = ExitCause.KILLED,
        note: str = "",
        grace_s: float | None = None,
    ) -> None:
        """End its whole tree: SIGTERM, and SIGKILL after `grace_s` seconds (the profile's); at once if that is 0."""
        if agent.record.state is AgentState.RUNNING:
            self.book.change(agent, Occurrence.STOP_ASKED, ending=cause, then=then.name, ending_note=note)
        elif then in (AfterStop.STOPPED, AfterStop.STARTED_ANEW):  # what someone wants comes before any other reason
            self.book.remember(agent, ending=cause, then=then.name, ending_note=note)
        self._ending.end(agent, grace_s=agent.profile.stop_timeout_seconds if grace_s is None else grace_s)

    def go_on_ending(self, agent: SupervisedAgent) -> None:
        """Another sidecar was ending it."""
        self._ending.end(agent, grace_s=agent.profile.stop_timeout_seconds)

    def go_on_with_groups(self) -> None:
        """Another sidecar was restarting them."""
        self._groups.advance()

    def _end_for_group(self, agent: SupervisedAgent, then: AfterStop, note: str) -> None:
        state = agent.record.state
        if state is AgentState.RUNNING:
            # As in OTP one that is never restarted ends with the others, and does not start with them.
            never = then is AfterStop.TOGETHER and agent.profile.restart == "never"
            self.end(agent, AfterStop.STOPPED if never else then, note=note)
        elif state is AgentState.BACKING_OFF and then is AfterStop.GIVEN_UP:
            self.book.given_up(agent, Occurrence.GIVEN_UP, note)
        elif (
            state is AgentState.STOPPING and then is AfterStop.GIVEN_UP and AfterStop[agent.record.then].may_start_again
        ):
            self.book.remember(agent, then=then.name, ending_note=note)

    def drop(self, agent: SupervisedAgent, waiters: list[Later[AgentStatus]]) -> None:
        """End an agent that has no process: it is queued, or waits for its restart.

        waiters: answered when nothing is left of what ran before.
        """
        self.book.stopped(agent, Occurrence.STOP_ASKED)
        self._ending.when_gone(agent, lambda: self.book.answer(agent, waiters))
        self._groups.advance()
        self.queue.look_soon()

    def exited(self, exited: AgentExited) -> bool:
        """Whether that is news."""
        agent = self.book.agents.get(AgentId(exited.agent_id))
        if agent is None or agent.record.incarnation != exited.incarnation or agent.record.process is None:
            return False
        if agent.record.state not in RUNS:
            return False  # told to a Spawner that died before it heard of it, and known to the next one
        self._ending.leads_no_more(agent.record.process)
        attempt = exited.restart
        if agent.record.state is AgentState.STOPPING and attempt is not None and attempt.started is not None:
            self.end_successor(agent, attempt.started)
        elif not self._ending.leader_exited(agent, exited):
            self.died(agent, exited, attempt)
        return True

    def sweep(self) -> None:
        self._ending.sweep()

    def census_taken(self, fact: CensusTaken) -> None:
        self._oom.look(oom_kills(), now=fact.at)
        self._ending.census_taken(fact)

    def census_due(self) -> None:
        self._ending.census_due()

    def due(self, fact: AgentDue) -> None:
        agent = self.book.agents.get(fact.agent_id)
        if agent is None or agent.record.incarnation != fact.incarnation:
            return
        state, profile, now = agent.record.state, agent.profile, time.monotonic()
        match fact.what:
            case "backed_off" if state is AgentState.BACKING_OFF and not self.queue.is_closed:
                if self._groups.holds(agent):
                    self._groups.advance()
                else:
                    self._start(agent, Occurrence.BACKED_OFF)
            case "stop_deadline" if state is AgentState.STOPPING and now >= agent.stop_at:
                self._ending.kill(agent)
            case "prepare" if state is AgentState.RUNNING:
                if (prepared := self.launcher.prepare_restart(agent.record, profile)) is not None:
                    self._ending.prepare(agent, prepared)
            case "run_timeout" if state is AgentState.RUNNING:
                left_s = agent.record.started_monotonic + profile.run_timeout_seconds + agent.excused_s - now
                if left_s > 0:
                    self.tell_after(left_s, agent, "run_timeout")
                else:
                    note = f"it ran longer than {profile.run_timeout_seconds:g} s"
                    self.end(agent, AfterStop.JUDGED, cause=ExitCause.TIMEOUT, note=note)
            case "heartbeat" | "silence" if state is AgentState.RUNNING:
                left_s = agent.last_heard + profile.heartbeat_timeout_seconds - now
                if left_s > 0:
                    self.tell_after(left_s, agent, "heartbeat")
                elif fact.what == "heartbeat":
                    silence = AgentDue(agent.id, fact.incarnation, "silence")
                    self._input_read(lambda: self._me.tell(silence))  # its heartbeat may wait to be read
                else:
                    note = f"nothing was heard of it for {profile.heartbeat_timeout_seconds:g} s"
                    self.end(agent, AfterStop.JUDGED, cause=ExitCause.HEARTBEAT, note=note)
            case _:
                pass  # the agent has moved on since the timer was set

    def excuse(self, gap_s: float) -> None:
        """Extend every agent's deadlines by `gap_s`, during which the sidecar did not run."""
        now = time.monotonic()
        for agent in self.book.in_state(AgentState.RUNNING):
            agent.last_heard = now
            agent.excused_s += gap_s
        for agent in self.book.in_state(AgentState.STOPPING):
            if not agent.is_killed:
                agent.stop_at += gap_s
                self.tell_after(agent.stop_at - now, agent, "stop_deadline")

    def tell_after(self, delay_s: float, agent: SupervisedAgent, what: DueWhat) -> None:
        self._timers.tell_after(delay_s, self._me, AgentDue(agent.id, agent.record.incarnation, what))

    def _broke_limit(self, agent: SupervisedAgent, broken: Broken) -> None:
        grace_s = 0.0 if broken.is_urgent else None
        self.end(agent, AfterStop.JUDGED, cause=broken.cause, note=broken.note, grace_s=grace_s)

    def end_successor(self, agent: SupervisedAgent, begun: StartedIncarnation) -> None:
        """One that is `stopping` was restarted in the very moment in which it was told to end."""
        self.book.remember(
            agent,
            incarnation=agent.record.incarnation + 1,
            process=begun.process.identity,
            log_starts=begun.log_starts,
            tokens=(*agent.record.tokens, token_ref(begun.token)),
        )
        self._ending.watch(agent, begun.process)
        self._ending.kill(agent)

    def gone(self, agent: SupervisedAgent, exited: AgentExited) -> None:
        """Continue after a stop: the process and its whole tree have ended."""
        record = agent.record
        then = AfterStop[record.then]
        if then is AfterStop.JUDGED:
            self.died(agent, exited, None)
            return
        lines = self.book.ended(agent, exited, record.ending, record.ending_note)
        match then:
            case AfterStop.STOPPED:
                self.book.stopped(agent, Occurrence.STOPPED)
            case AfterStop.STARTED_ANEW:
                self.book.stopped(agent, Occurrence.STOPPED)
                self.start_anew(agent)
            case AfterStop.TOGETHER:
                unchanged = RestartHistory(record.deaths, record.in_a_row, record.is_open)
                self.book.backs_off(agent, Decision(verdict=RestartVerdict.RESTART, history=unchanged), at=exited.at)
                self.tell_after(0.0, agent, "backed_off")
            case AfterStop.GIVEN_UP:
                self.book.given_up(agent, Occurrence.GIVEN_UP, record.ending_note, lines)
            case _:
                assert_never(then)
        self._groups.advance()
        self.queue.look_soon()

    def died(self, agent: SupervisedAgent, exited: AgentExited, attempt: RestartAttempt | None) -> None:
        """It ended by itself, or for breaking a limit: the policy says what follows."""
        ending, note = agent.record.ending, agent.record.ending_note
        exit_code = exited.status.exit_code if ending is None else None
        if attempt is not None:
            decision = attempt.decision
        else:
            decision = self.launcher.decide(agent.record, agent.profile.restart_policy, exit_code, at=exited.at)
        next_begun = attempt.started if attempt is not None else None
        log_ends = next_begun.log_starts if next_begun is not None else None
        lines = self.book.ended(agent, exited, ending or self._cause_of(exited.status), note, log_ends=log_ends)
        self._ending.sweep()
        match decision.verdict:
            case RestartVerdict.COMPLETE:
                self.book.completed(agent)
            case RestartVerdict.GIVE_UP:
                self.book.given_up(agent, Occurrence.GIVEN_UP, decision.reason, lines)
            case RestartVerdict.RESTART:
                self._back_off(agent, decision, exited.at, lines=lines, attempt=attempt)
        self._groups.advance()
        self.queue.look_soon()

    def _back_off(
        self,
        agent: SupervisedAgent,
        decision: Decision,
        at: float,
        *,
        lines: tuple[str, ...] = (),
        attempt: RestartAttempt | None = None,
    ) -> None:
        """Restart after the delay; at once if there is none, unless the exit watcher has done that already."""
        begun = attempt.started if attempt is not None else None
        exceeded = self._groups.count(agent) if not self.queue.is_closed else None
        if exceeded is not None and begun is None:
            self.book.given_up(agent, Occurrence.GIVEN_UP, f"its group {exceeded.group} restarted too often", lines)
            self._groups.give_up(exceeded)
            return
        self.book.backs_off(agent, decision, at=at)
        if begun is not None:
            self.book.starts(agent, Occurrence.BACKED_OFF, begun.token)
            self.started(agent, begun)
            if exceeded is not None:
                self._groups.give_up(exceeded)
        elif attempt is not None and attempt.error is not None:
            self.book.change(agent, Occurrence.BACKED_OFF, incarnation=agent.record.incarnation + 1)
            self._start_failed(agent, attempt.error)
        else:
            if not self.queue.is_closed:
                self._groups.restart_with(agent)
            self.tell_after(agent.record.resume_at - time.monotonic(), agent, "backed_off")

    def _cause_of(self, status: ExitStatus) -> ExitCause | None:
        """None where nobody could see how it ended."""
        if status.signal is None:
            return ExitCause.EXIT if status.exit_code is not None else None
        is_oom = status.signal == signal.SIGKILL and self._oom.take(oom_kills(), now=time.monotonic())
        return ExitCause.OOM if is_oom else ExitCause.SIGNAL
