"""AgentQueue: decides whose turn it is: by priority, then age, never too many, after those they depend on.

Used in the Spawner's thread. A bucket spreads first starts; restarts have their own limits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from ...state.errors import QueueFull
from ...state.models import AgentState, DependencyState, WaitingFor
from ...state.token_bucket import TokenBucket
from ...supervision.dependencies import dependencies
from ...supervision.fleet import SpawnerOptions
from ...supervision.lifecycle import Occurrence
from ...supervision.steps import FailForDependency, MarkBlocked, MarkQueued, Start, Step
from ..runtime.asking import Recipient
from ..runtime.timers import Timers
from .agent import HOLDS_SLOT, WAITS, Role, SupervisedAgent
from .agent_index import AgentIndex
from .dependency_look import DependencyLook
from .spawner_facts import QueueDue

log = logging.getLogger(__name__)

_PRIORITY = {"high": 0, "normal": 1, "low": 2}


class AgentQueue:
    """The agents that wait for their start. is_closed: nothing is started any more."""

    def __init__(self, index: AgentIndex, options: SpawnerOptions, timers: Timers, me: Recipient) -> None:
        self.is_closed = False
        self._index = index
        self._max_concurrent = options.max_concurrent
        self._timers = timers
        self._me = me
        self._is_look_due = False
        self._is_bucket_due = False
        self._is_settling_due = False
        self._is_deadlocked = False
        self._max_queued = options.max_queued
        self._max_queued_bytes = int(options.max_queued_mb * 2**20)
        self._is_warned = False
        self._spawns_per_s, self._burst = options.spawns_per_second, options.spawn_burst
        self._bucket = TokenBucket(float(self._burst), time.monotonic())

    def takes_turn_at_once(self, agent: SupervisedAgent) -> bool:
        """Whether a new agent starts now; then it has taken its token from the bucket."""
        look = DependencyLook(self._index.of_role)
        return (
            self._has_room_for(agent, look)
            and not any(look.may_start(queued) for queued in self._index.in_state(AgentState.QUEUED))
            and self._take_token() == 0
        )

    def require_room(self, agent: SupervisedAgent) -> None:
        """Refuse an agent that the queue cannot hold. Raises QueueFull."""
        count, size = self._index.count(*WAITS), self._index.waiting_bytes
        self._warn_when_filling(count, size)
        if 0 < self._max_queued <= count:
            raise QueueFull(
                f"{count} agents are queued, as many as agents.max_queued allows", setting="agents.max_queued"
            )
        if 0 < self._max_queued_bytes < size + agent.request_bytes:
            raise QueueFull(
                f"the requests of the {count} queued agents take {size / 2**20:.1f} MB,"
                f" agents.max_queued_mb allows {self._max_queued_bytes / 2**20:g}",
                setting="agents.max_queued_mb",
            )

    def _warn_when_filling(self, count: int, size: int) -> None:
        """Warn once when the queue is half full, and again after it was less than a quarter full in between."""
        share = max(
            count / self._max_queued if self._max_queued > 0 else 0.0,
            size / self._max_queued_bytes if self._max_queued_bytes > 0 else 0.0,
        )
        if share >= 0.5 and not self._is_warned:
            self._is_warned = True
            log.warning("queue is filling up queued=%d mb=%.1f full_percent=%d", count, size / 2**20, 100 * share)
        elif share < 0.25:
            self._is_warned = False

    def has_room_for(self, agent: SupervisedAgent) -> bool:
        """Whether it may start, if nobody were before it."""
        return self._has_room_for(agent, DependencyLook(self._index.of_role))

    def _has_room_for(self, agent: SupervisedAgent, look: DependencyLook) -> bool:
        return not self.is_closed and self._has_slot and look.may_start(agent)

    def run(self) -> Iterator[Step]:
        """Start the agents whose turn it is, as long as there are slots. Each step is done before the next is asked."""
        if self.is_closed:
            return
        yield from self._weigh_dependencies()
        # Nobody's start meets a dependency at once, so those that are ready now are all there are.
        for agent in self._ready(DependencyLook(self._index.of_role)) if self._has_slot else ():
            if not self._has_slot or not self._takes_token(agent):
                break
            yield Start(agent.id, Occurrence.TURN_CAME)
        self._warn_of_deadlock()

    def _ready(self, look: DependencyLook) -> list[SupervisedAgent]:
        """The agents whose turn may come, in order."""
        return sorted((a for a in self._index.in_state(AgentState.QUEUED) if look.may_start(a)), key=_turn)

    def _take_token(self) -> float:
        """Take a token out of the bucket of first starts; the seconds until there is one, or 0."""
        self._bucket, wait_s = self._bucket.take(capacity=self._burst, per_s=self._spawns_per_s, now=time.monotonic())
        return wait_s

    def _takes_token(self, agent: SupervisedAgent) -> bool:
        """Whether it may start by `spawns_per_second`; if not, the queue is looked at again when one may."""
        wait_s = self._take_token() if agent.record.incarnation == 0 else 0.0
        if wait_s == 0:
            return True
        if not self._is_bucket_due:
            self._is_bucket_due = True
            self._timers.tell_after(wait_s, self._me, QueueDue(by_bucket=True))
        return False

    def look_soon(self) -> None:
        """Not now: what has just changed may change again."""
        if not self._is_look_due:
            self._is_look_due = True
            self._me.tell(QueueDue())

    def due(self, fact: QueueDue) -> Iterator[Step]:
        """It is time to look at the queue."""
        if fact.by_bucket:
            self._is_bucket_due = False
        elif fact.by_settling:
            self._is_settling_due = False
        else:
            self._is_look_due = False
        return self.run()

    def waited_for(self) -> frozenset[Role]:
        """The roles on which agents in the queue depend."""
        return frozenset(
            (*agent.role[:2], dependency.type)
            for agent in self._index.in_state(*WAITS)
            for dependency in dependencies(agent.profile.depends_on)
        )

    def explain(self, *agents: SupervisedAgent) -> None:
        """Record with each waiting agent what it waits for."""
        waiting = [agent for agent in agents if agent.record.state in WAITS]
        if not waiting:
            return
        look = DependencyLook(self._index.of_role)
        ready = self._ready(look)
        places = {agent.id: place for place, agent in enumerate(ready, 1)}
        is_deadlock = not self._has_slot and self._is_deadlock(ready)
        for agent in waiting:
            agent.waiting_for = self._waiting_for(agent, look, places.get(agent.id), is_deadlock=is_deadlock)

    def _waiting_for(
        self, agent: SupervisedAgent, look: DependencyLook, place: int | None, *, is_deadlock: bool
    ) -> WaitingFor:
        if self.is_closed:
            return WaitingFor(what="shutdown", text="the next sidecar: this one is shutting down")
        if place is None:
            return _for_dependencies(agent, look.missing(agent))
        if self._has_slot:
            return WaitingFor(what="rate", place=place, text=f"its turn: number {place} at agents.spawns_per_second")
        held = self._index.count(*HOLDS_SLOT)
        text = f"a slot: number {place} in the queue, {held} agents hold one, as many as agents.max_concurrent"
        if is_deadlock:
            text += "; each of these has caused an agent that waits: they may wait for one another"
        return WaitingFor(what="slot", place=place, text=text, is_deadlock=is_deadlock)

    @property
    def _has_slot(self) -> bool:
        return self._index.count(*HOLDS_SLOT) < self._max_concurrent

    def _weigh_dependencies(self) -> Iterator[Step]:
        """MarkBlocked agents whose dependencies can no longer be met, and queue them again when they can.

        A blocked agent may have another profile than before: the sidecar has been started again.
        """
        look = DependencyLook(self._index.of_role)
        waiting = [agent for agent in self._index.in_state(*WAITS) if agent.profile.depends_on]
        for agent in (*waiting, *(a for a in self._index.in_state(AgentState.BLOCKED) if not a.profile.depends_on)):
            policy = agent.profile.on_dependency_failure
            lost = look.lost(agent) if policy != "run" else ()
            step: Step | None = None
            if lost:
                step = _without_dependencies(agent, ", ".join(f"{each.agent_type} is {each.state}" for each in lost))
            elif agent.record.state is AgentState.BLOCKED:
                step = MarkQueued(agent.id)
            if step is not None:
                yield step
                self.look_soon()  # others may depend on it
        left_s = look.settles_in_s(waiting)
        if left_s is not None and not self._is_settling_due:
            self._is_settling_due = True
            self._timers.tell_after(left_s, self._me, QueueDue(by_settling=True))

    def _is_deadlock(self, ready: Iterable[SupervisedAgent]) -> bool:
        """Whether every slot is held by an agent that has caused an agent that waits for a slot."""
        waited_by = {agent.record.spec.chain[-1] for agent in ready if agent.record.spec.chain}
        holders = {agent.id for agent in self._index.in_state(*HOLDS_SLOT)}
        return bool(holders) and holders <= waited_by

    def _warn_of_deadlock(self) -> None:
        may_be = self._index.count(AgentState.QUEUED) > 0 and not self._has_slot
        is_deadlock = may_be and self._is_deadlock(self._ready(DependencyLook(self._index.of_role)))
        if is_deadlock and not self._is_deadlocked:
            log.warning(
                "queue may stand still queued=%d max_concurrent=%d: every running agent has caused an agent that"
                " waits, raise agents.max_concurrent",
                self._index.count(AgentState.QUEUED),
                self._max_concurrent,
            )
        self._is_deadlocked = is_deadlock


def _without_dependencies(agent: SupervisedAgent, why: str) -> Step | None:
    """MarkBlocked or fail an agent whose dependencies can no longer be met, and that does not run without them."""
    if agent.profile.on_dependency_failure == "fail":
        return FailForDependency(agent.id, why)
    return MarkBlocked(agent.id, why) if agent.record.state is AgentState.QUEUED else None


def _turn(agent: SupervisedAgent) -> tuple[int, int]:
    """Lower comes first."""
    return _PRIORITY[agent.record.spec.priority], agent.record.serial


def _for_dependencies(agent: SupervisedAgent, missing: tuple[DependencyState, ...]) -> WaitingFor:
    text = ", ".join(
        f"{each.agent_type}, which is {each.state}"
        if each.state is not None
        else f"{each.agent_type}, of which issue {agent.role[1]} has none"
        for each in missing
    )
    return WaitingFor(what="dependency", text=text, dependencies=missing)
