"""ProcessTrees: watches agents' processes, and ends whole process trees.

Used in the Spawner's thread. Other threads watch exits and the process table. Their findings come back as facts; the
consequences are returned as steps.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence, Set

from ...state.models import AgentId, AgentState, ProcessIdentity
from ...supervision.known_state import allow_many_descriptors
from ...supervision.limits import broken_limit, is_left_over
from ...supervision.process import StartedProcess
from ...supervision.process_exits import ExitWatcher, PreparedRestart
from ...supervision.process_tree import CensusTaker, Owned, ProcessCensus, TreeProcess, Trees, end_all, kill_all
from ...supervision.steps import (
    AfterStop,
    AgentExited,
    AnswerDropped,
    JudgeExit,
    RestartAttempt,
    Step,
    Stop,
)
from ..runtime.asking import Recipient
from ..runtime.timers import Timers
from .agent import SupervisedAgent
from .spawner_facts import AgentDue, CensusDue, CensusTaken, ProcessExited

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.02  # at a tree that is being ended


class ProcessTrees:
    """The process trees of all agents. sample_s: between looks at what they use."""

    def __init__(
        self,
        agents: Mapping[AgentId, SupervisedAgent],
        *,
        instance_id: str,
        sample_s: float,
        timers: Timers,
        me: Recipient,
    ) -> None:
        self._agents = agents
        self._timers = timers
        self._me = me
        self._is_look_due = False
        self._asked = 0
        self._served = 0
        self._first_look = ProcessCensus(instance_id)
        self._dropped: list[tuple[SupervisedAgent, int]] = []  # each with the look that may show that nothing is left
        self._killer = TreeKiller()
        self._watcher: ExitWatcher[RestartAttempt] = ExitWatcher(lambda exited: me.tell(ProcessExited(exited)))
        self._census = CensusTaker(
            instance_id,
            every_s=sample_s,
            tell=lambda trees, served: me.tell(CensusTaken(trees, served, time.monotonic())),
        )

    @property
    def is_settled(self) -> bool:
        """The last requested look at the process table was taken, and found nothing left over."""
        return self._served >= self._asked and not self._is_look_due

    def look_now(self) -> Trees:
        """A look in this thread; only before `open`."""
        return self._first_look.take({})

    def open(self) -> None:
        allow_many_descriptors()
        self._watcher.start()
        self._census.start()

    def close(self) -> None:
        """Stop looking; running processes continue."""
        self._watcher.stop()
        self._census.stop()

    def watch(self, agent: SupervisedAgent, process: StartedProcess) -> None:
        """Watch the agent's new process."""
        agent.process = process
        self._census.lead(process.identity, Owned(agent.id, agent.record.incarnation))
        self._watcher.watch(agent.id, agent.record.incarnation, process)

    def prepare(self, agent: SupervisedAgent, prepared: PreparedRestart[RestartAttempt]) -> None:
        """See ExitWatcher.prepare."""
        if agent.process is not None:
            self._watcher.prepare(agent.process, prepared)

    def end(self, agent: SupervisedAgent, *, grace_s: float) -> None:
        """End the tree of an agent that is `stopping`: SIGTERM, and SIGKILL after `grace_s`; at once if that is 0.

        For one that is being ended already this can only bring the SIGKILL forward.
        """
        stop_at = time.monotonic() + grace_s
        if agent.stop_at:
            agent.stop_at = min(stop_at, agent.stop_at)
        else:
            agent.stop_at = stop_at
            if agent.process is not None:
                self._watcher.let_stop(agent.process)
            if grace_s > 0:
                self._terminate(agent, agent.tree)
        if grace_s > 0:
            self._timers.tell_after(grace_s, self._me, AgentDue(agent.id, agent.record.incarnation, "stop_deadline"))
        else:
            self.kill(agent)
        self._ask()

    def kill(self, agent: SupervisedAgent) -> None:
        """Send SIGKILL to all known processes of the tree; the next looks find the rest."""
        agent.is_killed = True
        if agent.process is not None:
            self._watcher.signal(agent.process, signal.SIGKILL)
        self._killer.kill(agent.id, agent.tree)
        self._ask()

    def sweep(self) -> None:
        """An incarnation ended by itself: look for leftover processes."""
        self._ask()

    def await_nothing_left(self, agent: SupervisedAgent) -> None:
        """Look whether anything is left of the agent's ended incarnations; AnswerDropped follows when nothing is."""
        self._dropped.append((agent, self._ask()))

    def leader_ended(self, identity: ProcessIdentity) -> None:
        """The first process of an agent's tree has ended."""
        self._census.ended(identity)

    def await_tree(self, agent: SupervisedAgent, exited: AgentExited) -> None:
        """Look whether anything is left of an agent that is being ended; JudgeExit follows when nothing is."""
        agent.exited = exited
        agent.gone_at_ask = self._ask()

    def _ask(self) -> int:
        self._asked = self._census.ask()
        return self._asked

    def census_taken(self, fact: CensusTaken) -> Iterator[Step]:
        """Kill leftover processes, check the agents' use of resources, and continue to end trees."""
        self._served = fact.served
        trees = self._killer.within_reach(fact.trees)
        haunted, look_again = self._kill_left_over(trees)
        yield from self._answer_dropped(fact.served, haunted)
        for agent in tuple(self._agents.values()):
            tree = tuple(p for p in trees.get(agent.id, ()) if p.incarnation == agent.record.incarnation)
            if agent.record.state is AgentState.RUNNING:
                agent.sampled(tree, now=fact.at)
                yield from _stop_for_limit(agent, tree)
            elif agent.record.state is AgentState.STOPPING:
                look_again |= self._look_at_ending(agent, tree)
                if agent.exited is not None and not tree and fact.served >= agent.gone_at_ask:
                    yield JudgeExit(agent.id, agent.exited)
        if look_again and not self._is_look_due:
            self._is_look_due = True
            self._timers.tell_after(_LOOK_AGAIN_S, self._me, CensusDue())

    def _kill_left_over(self, trees: Trees) -> tuple[set[AgentId], bool]:
        """Kill the processes that outlived their incarnation, or belong to no agent.

        Returns the agents of which something was left, and whether to look again soon.
        """
        haunted: set[AgentId] = set()
        look_again = False
        for agent_id, processes in trees.items():
            agent = self._agents.get(AgentId(agent_id))
            if agent is None:
                look_again |= self._killer.kill(agent_id, processes)
                continue
            record = agent.record
            left_over = [p for p in processes if is_left_over(p, state=record.state, incarnation=record.incarnation)]
            if left_over:
                haunted.add(agent.id)
                if self._killer.kill(agent_id, left_over):
                    log.info("processes left over killed agent_id=%s count=%d", agent_id, len(left_over))
                    look_again = True
        return haunted, look_again

    def _answer_dropped(self, served: int, haunted: Set[AgentId]) -> Iterator[Step]:
        waiting, self._dropped = self._dropped, []
        for agent, asked in waiting:
            if served >= asked and agent.id not in haunted:
                yield AnswerDropped(agent.id)
            else:
                self._dropped.append((agent, asked))

    def census_due(self) -> None:
        self._is_look_due = False
        self._ask()

    def _look_at_ending(self, agent: SupervisedAgent, tree: tuple[TreeProcess, ...]) -> bool:
        """Signal what is left of a tree that is being ended. Returns whether to look again soon."""
        agent.tree = tree
        if tree and agent.is_killed:
            self._killer.kill(agent.id, tree)
            return True
        if tree:
            self._terminate(agent, tree)
        return bool(tree) and agent.exited is not None

    def _terminate(self, agent: SupervisedAgent, tree: tuple[TreeProcess, ...]) -> None:
        leader = agent.process.identity if agent.process is not None else None
        if leader is not None and agent.process is not None and leader not in agent.signalled:
            self._watcher.signal(agent.process, signal.SIGTERM)
            self._watcher.signal(agent.process, signal.SIGCONT)
            agent.signalled.add(leader)
        # The leader's group was signalled as one. Signalled twice, an agent may think that it must hurry.
        end_all(p for p in tree if p.identity not in agent.signalled and (leader is None or p.group != leader.pid))
        agent.signalled.update(p.identity for p in tree)


class TreeKiller:
    """Kills processes, and remembers those that may not be signalled: nothing can be done about them."""

    def __init__(self) -> None:
        self._beyond: set[ProcessIdentity] = set()

    def within_reach(self, trees: Trees) -> Trees:
        """The trees without the processes that may not be signalled."""
        if not self._beyond:
            return trees
        self._beyond &= {process.identity for processes in trees.values() for process in processes}
        return {name: tuple(p for p in tree if p.identity not in self._beyond) for name, tree in trees.items()}

    def kill(self, agent_id: str, processes: Sequence[TreeProcess]) -> bool:
        """SIGKILL for all of them. Returns whether any of them could be signalled."""
        within_reach = [process for process in processes if process.identity not in self._beyond]
        refused = kill_all(within_reach)
        for process in refused:
            log.warning(
                "process cannot be ended, it is another user's agent_id=%s pid=%d", agent_id, process.identity.pid
            )
        self._beyond.update(process.identity for process in refused)
        return len(refused) < len(within_reach)


def _stop_for_limit(agent: SupervisedAgent, tree: tuple[TreeProcess, ...]) -> Iterator[Stop]:
    broken = broken_limit(agent.profile, tree)
    if broken is not None:
        grace_s = 0.0 if broken.is_urgent else None
        yield Stop(agent_id=agent.id, after=AfterStop.JUDGED, cause=broken.cause, note=broken.note, grace_s=grace_s)
