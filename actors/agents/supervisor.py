"""AgentSupervisor: carries out decisions about agents: starts them, records their exits, stops their process trees.

Used by the Spawner in its thread. The decisions are steps: those of `supervision/steps.py`, and those of the queue, of
groups and of adoption, where a later step depends on what an earlier one led to. Nothing here waits: exits, looks at
the process table and times come back as facts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import assert_never

from ...state.errors import SpawnFailed
from ...state.identity import Token
from ...state.models import AgentId, AgentState, AgentStatus
from ...supervision import steps as s
from ...supervision.after_exit import is_news, on_exit
from ...supervision.lifecycle import Occurrence
from ...supervision.process import StartedProcess
from ..runtime.asking import Later
from .agent import RUNS, WAITS, SupervisedAgent
from .deadlines import AgentDeadlines
from .exit_judge import ExitJudge
from .group_restarts import GroupRestarts
from .launching import Launcher
from .owed_answers import OwedAnswers
from .queue import AgentQueue
from .quoting import prepare_soon
from .records import AgentRecords, token_ref
from .spawner_facts import CensusTaken
from .stopping import ProcessTrees

log = logging.getLogger(__name__)


class AgentSupervisor:
    """Carries out steps. All times in decisions are monotonic."""

    def __init__(
        self,
        *,
        records: AgentRecords,
        answers: OwedAnswers,
        launcher: Launcher,
        queue: AgentQueue,
        groups: GroupRestarts,
        trees: ProcessTrees,
        deadlines: AgentDeadlines,
    ) -> None:
        self._records = records
        self._answers = answers
        self._index = records.index
        self._launcher = launcher
        self._queue = queue
        self._groups = groups
        self._trees = trees
        self._deadlines = deadlines
        self._judge = ExitJudge(records, launcher, queue, groups)

    @property
    def is_quiet(self) -> bool:
        """No process of an agent runs, and none is left over."""
        return self._trees.is_settled and self._index.count(*RUNS) == 0

    # --- what comes from outside ---------------------------------------------------------------------------

    def enter(self, agent: SupervisedAgent) -> None:
        """Add a new agent: it is on disk first, then started if it is its turn, or else queued.

        Raises StorageUnavailable, QueueFull; then there is no such agent.
        """
        if not self._queue.takes_turn_at_once(agent):
            self._queue.require_room(agent)
            self._records.enter(agent)
            self.do(self._queue.run())
            self._announce_queued(agent)
            return
        token = self._launcher.mint(agent.record, agent.profile)
        self._records.enter_starting(agent, token)
        self.do(self._launch(agent, token))

    def drop(self, agent: SupervisedAgent, *waiters: Later[AgentStatus]) -> None:
        """End an agent that has no process: it is queued, or waits for its restart.

        waiters: answered when nothing is left of what ran before.
        """
        self._records.stopped(agent, Occurrence.STOP_ASKED)
        agent.drop_waiters.extend(waiters)
        self._trees.await_nothing_left(agent)
        self.do((s.AdvanceGroups(), s.LookAtQueue()))

    def exited(self, exited: s.AgentExited, *, again: Callable[[], object]) -> None:
        """The exit watcher has seen a process end. again: tells it again, where its last lines cannot be quoted yet."""
        agent = self._index.agents.get(AgentId(exited.agent_id))
        if agent is None or agent.record.process is None or not is_news(agent.record, exited):
            return
        self._trees.leader_ended(agent.record.process)
        if not self._records.waits_to_quote(agent, again):
            self.do(on_exit(agent.record, exited))

    def census_taken(self, fact: CensusTaken) -> None:
        self._judge.look_at_oom_kills(now=fact.at)
        self.do(self._trees.census_taken(fact))

    # --- steps ---------------------------------------------------------------------------------------------

    def do(self, steps: Iterable[s.Step]) -> None:
        """Do steps in order. What a step leads to is done before the next one."""
        for step in steps:
            self.do(self._done(step))

    def _done(self, step: s.Step) -> Iterable[s.Step]:
        """Do one step. Returns the steps that it leads to."""
        match step:
            case s.CountGroupRestart():
                self._groups.record_restart(step)
            case s.RestartGroup(agent_id=agent_id):
                return self._groups.restart_with(self._index.agents[agent_id])
            case s.GiveUpGroup(where=where):
                return self._groups.give_up(where)
            case s.AdvanceGroups():
                return self._groups.advance()
            case s.Sweep():
                self._trees.sweep()
            case s.LookAtQueue():
                self._queue.look_soon()
            case s.Start() | s.StartAgain() | s.AcceptStart() | s.FailRestart() | s.JudgeExit():
                return self._done_to_process(self._index.agents[step.agent_id], step)
            case _:
                self._done_to_agent(self._index.agents[step.agent_id], step)
        return ()

    def _done_to_process(self, agent: SupervisedAgent, step: s.StartStep) -> Iterable[s.Step]:
        match step:
            case s.Start(occurrence=occurrence):
                return self._start(agent, occurrence)
            case s.StartAgain():
                return self._start_again(agent)
            case s.AcceptStart(started=started, occurrence=occurrence):
                if occurrence is not None:
                    self._records.starts(agent, occurrence, started.token)
                self._started(agent, started)
                return ()
            case s.FailRestart(why=why):
                self._records.change(agent, Occurrence.BACKED_OFF, incarnation=agent.record.incarnation + 1)
                return self._judge.judge_failed_start(agent, why)
            case s.JudgeExit(exited=exited):
                return self._judge.judge(agent, exited)
            case _:
                assert_never(step)

    def _done_to_agent(self, agent: SupervisedAgent, step: s.RecordStep) -> None:
        match step:
            case s.Complete():
                self._records.completed(agent)
            case s.GiveUp(occurrence=occurrence, reason=reason, lines=lines):
                self._records.given_up(agent, occurrence, reason, lines)
            case s.MarkStopped():
                self._records.stopped(agent, Occurrence.STOPPED)
            case s.BackOff(decision=decision, at=at):
                self._records.backs_off(agent, decision, at=at)
            case s.Wake(delay_s=delay_s):
                self._deadlines.tell_after(delay_s, agent, "backed_off")
            case s.Stop():
                self._stop(agent, step)
            case s.Kill():
                self._trees.kill(agent)
            case s.KillSuccessor(started=started):
                self._kill_successor(agent, started)
            case s.ChangeAfterStop(after=after, note=note):
                self._records.remember(agent, then=after.name, ending_note=note)
            case s.AwaitTree(exited=exited):
                self._trees.await_tree(agent, exited)
            case s.Prepare():
                if (prepared := self._launcher.prepare_restart(agent.record, agent.profile)) is not None:
                    self._trees.prepare(agent, prepared)
            case s.Adopt(process=process):
                self._adopt(agent, process)
            case s.MarkBlocked(why=why):
                self._records.blocked(agent, why)
            case s.MarkQueued():
                self._records.change(agent, Occurrence.DEPENDENCY_BACK, last_error=None)
                self._announce_queued(agent)
            case s.FailForDependency(why=why):
                self._records.failed_with_dependencies(agent, why)
            case s.AnswerDropped():
                self._answers.owe_status(agent, agent.drop_waiters)
            case _:
                assert_never(step)

    # --- starting ------------------------------------------------------------------------------------------

    def _start(self, agent: SupervisedAgent, occurrence: Occurrence) -> tuple[s.Step, ...]:
        token = self._launcher.mint(agent.record, agent.profile)
        self._records.starts(agent, occurrence, token)
        return self._launch(agent, token)

    def _start_again(self, agent: SupervisedAgent) -> tuple[s.Step, ...]:
        clean = {"deaths": (), "in_a_row": 0, "is_open": False, "resume_at": 0.0}
        self._records.change(agent, Occurrence.START_ASKED, **clean)
        steps: tuple[s.Step, ...] = ()
        if self._queue.has_room_for(agent):
            steps = self._start(agent, Occurrence.TURN_CAME)
        else:
            self._queue.look_soon()  # it may be blocked
            self._announce_queued(agent)
            self._answers.owe_status(agent, agent.start_waiters)
        return (*steps, s.AdvanceGroups())  # its group need not wait for it any more

    def _announce_queued(self, agent: SupervisedAgent) -> None:
        if agent.record.state is AgentState.QUEUED:
            self._queue.explain(agent)
            self._records.queued(agent)

    def _launch(self, agent: SupervisedAgent, token: Token) -> tuple[s.Step, ...]:
        try:
            started = self._launcher.start(agent.record, agent.profile, token)
        except SpawnFailed as error:
            return self._judge.judge_failed_start(agent, error.message)
        except Exception as error:  # whatever it is: one that stayed `starting` would never be looked at again
            log.exception("agent could not be started agent_id=%s", agent.id)
            return self._judge.judge_failed_start(agent, repr(error))
        self._started(agent, started)
        return ()

    def _started(self, agent: SupervisedAgent, started: s.StartedIncarnation) -> None:
        """The process of an agent that is `starting` is there."""
        self._records.started(agent, started)
        self._watch(agent, started.process)
        if self._index.count(*WAITS):
            self._queue.look_soon()  # others may depend on it

    def _adopt(self, agent: SupervisedAgent, process: StartedProcess) -> None:
        self._records.change(agent, Occurrence.ADOPTED)
        self._records.runs(agent)
        self._watch(agent, process)
        self._records.tell_subscribed(agent)
        if agent.record.state is AgentState.STOPPING:  # another sidecar was ending it
            self._trees.end(agent, grace_s=agent.profile.stop_timeout_seconds)

    def _watch(self, agent: SupervisedAgent, process: StartedProcess) -> None:
        """Its process runs: see it end, measure it, and see to its limits."""
        agent.last_heard, agent.excused_s = time.monotonic(), 0.0
        self._trees.watch(agent, process)
        prepare_soon()  # to quote what it says last
        self._deadlines.set_for_run(agent, restarts_alone=self._groups.restarts_alone(agent))

    # --- ending --------------------------------------------------------------------------------------------

    def _stop(self, agent: SupervisedAgent, stop: s.Stop) -> None:
        why = {"ending": stop.cause, "then": stop.after.name, "ending_note": stop.note}
        if agent.record.state is AgentState.RUNNING:
            self._records.change(agent, Occurrence.STOP_ASKED, **why)
        elif stop.after.was_asked_for:  # what someone wants comes before any other reason
            self._records.remember(agent, **why)
        self._trees.end(agent, grace_s=agent.profile.stop_timeout_seconds if stop.grace_s is None else stop.grace_s)

    def _kill_successor(self, agent: SupervisedAgent, started: s.StartedIncarnation) -> None:
        """The exit watcher restarted the agent just as it was told to stop: record the new process and kill it."""
        self._records.remember(
            agent,
            incarnation=agent.record.incarnation + 1,
            process=started.process.identity,
            log_starts=started.log_starts,
            tokens=(*agent.record.tokens, token_ref(started.token)),
        )
        self._trees.watch(agent, started.process)
        self._trees.kill(agent)
