"""ProcessTrees: sees agents' processes end, ends whole trees, and lets nothing of them live on.

Used in the Spawner's thread. Two threads look for it: one at exits, one at the process table. What they see comes
back as facts; who died and who is gone to the last process is told on.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence, Set

from ...state.models import AgentId, AgentState, ProcessIdentity
from ...supervision.known_state import allow_many_descriptors
from ...supervision.limits import Broken, broken_limit, is_left_over
from ...supervision.process import StartedProcess
from ...supervision.process_exits import ExitWatcher, PreparedRestart
from ...supervision.process_tree import CensusTaker, Owned, ProcessCensus, TreeProcess, Trees, end_all, kill_all
from ..runtime.asking import Recipient
from ..runtime.timers import Timers
from .agent import AgentDue, CensusDue, CensusTaken, ProcessExited, SupervisedAgent
from .launching import AgentExited, RestartAttempt

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.02  # at a tree that is being ended


class ProcessTrees:
    """gone: called with an agent that was being ended when its last process has gone, and how the first ended."""

    def __init__(
        self,
        agents: Mapping[AgentId, SupervisedAgent],
        *,
        instance_id: str,
        sample_s: float,
        timers: Timers,
        me: Recipient,
        gone: Callable[[SupervisedAgent, AgentExited], None],
        broke_limit: Callable[[SupervisedAgent, Broken], None],
    ) -> None:
        self._agents = agents
        self._timers = timers
        self._me = me
        self._gone = gone
        self._broke_limit = broke_limit
        self._is_look_due = False
        self._asked = 0
        self._served = 0
        self._first_look = ProcessCensus(instance_id)
        self._until_gone: list[
            tuple[SupervisedAgent, int, Callable[[], None]]
        ] = []  # each with the look that may show it
        self._beyond: set[ProcessIdentity] = set()  # may not be signalled
        self._watcher: ExitWatcher[RestartAttempt] = ExitWatcher(lambda exited: me.tell(ProcessExited(exited)))
        self._census = CensusTaker(
            instance_id,
            every_s=sample_s,
            tell=lambda trees, served: me.tell(CensusTaken(trees, served, time.monotonic())),
        )

    @property
    def is_settled(self) -> bool:
        """The last look that was asked for has been taken, and found nothing that should not be there."""
        return self._served >= self._asked and not self._is_look_due

    def look_now(self) -> Trees:
        """A look in this thread; only before `open`."""
        return self._first_look.take({})

    def open(self) -> None:
        allow_many_descriptors()
        self._watcher.start()
        self._census.start()

    def close(self) -> None:
        """Look no longer; what runs goes on running."""
        self._watcher.stop()
        self._census.stop()

    def watch(self, agent: SupervisedAgent, process: StartedProcess) -> None:
        """It is the agent's process now."""
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
        """SIGKILL for all that is known of the tree; the next looks find the rest."""
        agent.is_killed = True
        if agent.process is not None:
            self._watcher.signal(agent.process, signal.SIGKILL)
        self._kill(agent.id, agent.tree)
        self._ask()

    def sweep(self) -> None:
        """An incarnation ended by itself: look for what it left behind."""
        self._ask()

    def when_gone(self, agent: SupervisedAgent, act: Callable[[], None]) -> None:
        """Call it once nothing is left of the incarnations that have ended, which may be now and then is soon."""
        self._until_gone.append((agent, self._ask(), act))

    def leads_no_more(self, identity: ProcessIdentity) -> None:
        """That process has ended."""
        self._census.ended(identity)

    def leader_exited(self, agent: SupervisedAgent, exited: AgentExited) -> bool:
        """Whether that is all to be said of it now: it was being ended, and `gone` follows."""
        if agent.record.state is not AgentState.STOPPING:
            return False
        agent.exited = exited
        agent.gone_at_ask = self._ask()
        return True

    def _ask(self) -> int:
        self._asked = self._census.ask()
        return self._asked

    def census_taken(self, fact: CensusTaken) -> None:
        self._served = fact.served
        trees = self._within_reach(fact.trees)
        look_again = False
        haunted: set[AgentId] = set()
        for agent_id, processes in trees.items():
            agent = self._agents.get(AgentId(agent_id))
            if agent is None:
                look_again |= self._kill(agent_id, processes)
                continue
            record = agent.record
            left_over = [p for p in processes if is_left_over(p, state=record.state, incarnation=record.incarnation)]
            if left_over:
                haunted.add(agent.id)
                if self._kill(agent_id, left_over):
                    log.info("processes left over killed agent_id=%s count=%d", agent_id, len(left_over))
                    look_again = True
        self._tell_gone(fact.served, haunted)
        for agent in tuple(self._agents.values()):
            tree = tuple(p for p in trees.get(agent.id, ()) if p.incarnation == agent.record.incarnation)
            if agent.record.state is AgentState.RUNNING:
                agent.sampled(tree, now=fact.at)
                if (broken := broken_limit(agent.profile, tree)) is not None:
                    self._broke_limit(agent, broken)
            elif agent.record.state is AgentState.STOPPING:
                look_again |= self._look_at_ending(agent, tree, fact)
        if look_again and not self._is_look_due:
            self._is_look_due = True
            self._timers.tell_after(_LOOK_AGAIN_S, self._me, CensusDue())

    def _tell_gone(self, served: int, haunted: Set[AgentId]) -> None:
        waiting, self._until_gone = self._until_gone, []
        for agent, asked, act in waiting:
            if served >= asked and agent.id not in haunted:
                act()
            else:
                self._until_gone.append((agent, asked, act))

    def _within_reach(self, trees: Trees) -> Trees:
        """Without those that may not be signalled: nothing can be done about them."""
        if not self._beyond:
            return trees
        self._beyond &= {process.identity for processes in trees.values() for process in processes}
        return {name: tuple(p for p in found if p.identity not in self._beyond) for name, found in trees.items()}

    def _kill(self, agent_id: str, processes: Sequence[TreeProcess]) -> bool:
        """Whether any of them could be signalled."""
        within_reach = [process for process in processes if process.identity not in self._beyond]
        refused = kill_all(within_reach)
        for process in refused:
            log.warning(
                "process cannot be ended, it is another user's agent_id=%s pid=%d", agent_id, process.identity.pid
            )
        self._beyond.update(process.identity for process in refused)
        return len(refused) < len(within_reach)

    def census_due(self) -> None:
        self._is_look_due = False
        self._ask()

    def _look_at_ending(self, agent: SupervisedAgent, tree: tuple[TreeProcess, ...], fact: CensusTaken) -> bool:
        """Whether to look again soon."""
        agent.tree = tree
        if tree and agent.is_killed:
            self._kill(agent.id, tree)
            return True
        if tree:
            self._terminate(agent, tree)
        if agent.exited is None:
            return False  # its exit will be told
        if tree:
            return True
        if fact.served >= agent.gone_at_ask:
            self._gone(agent, agent.exited)
        return False

    def _terminate(self, agent: SupervisedAgent, tree: tuple[TreeProcess, ...]) -> None:
        leader = agent.process.identity if agent.process is not None else None
        if leader is not None and agent.process is not None and leader not in agent.told_to_end:
            self._watcher.signal(agent.process, signal.SIGTERM)
            self._watcher.signal(agent.process, signal.SIGCONT)
            agent.told_to_end.add(leader)
        # The leader's group was told as one. Told twice, an agent may think that it must hurry.
        end_all(p for p in tree if p.identity not in agent.told_to_end and (leader is None or p.group != leader.pid))
        agent.told_to_end.update(p.identity for p in tree)
