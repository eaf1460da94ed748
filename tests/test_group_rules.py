"""Whatever happens to the members of a group while it restarts, they start in order, and none waits for ever."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sidecar.actors.agents.agent import SupervisedAgent
from sidecar.actors.agents.group_restarts import GroupRestarts
from sidecar.state.agent_entries import AgentRecord
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.clock import utc_now
from sidecar.state.models import AgentId, AgentSpec, AgentState, ExitCause
from sidecar.supervision.after_exit import count_restart
from sidecar.supervision.profile import built_in
from sidecar.supervision.steps import AfterStop, Start, Step, Stop
from sidecar.supervision.strategy import Group

TYPES = ("a", "b", "c")
places = st.integers(0, 2)
NOT_YET = 1e18  # monotonic


class GroupLife(RuleBasedStateMachine):
    """Three members; steps are done as the AgentSupervisor does them, but without processes and times."""

    @initialize(
        strategy=st.sampled_from(["one_for_all", "rest_for_one"]),
        kinds=st.lists(st.sampled_from(TYPES), min_size=3, max_size=3),
    )
    def begin(self, strategy: Any, kinds: list[str]) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.registry = AgentRegistry(Path(self.directory.name))
        self.group = Group(agents=TYPES, strategy=strategy, max_restarts=1_000_000)
        self.agents: dict[AgentId, SupervisedAgent] = {}
        self.broken: set[AgentId] = set()
        for serial, kind in enumerate(kinds, start=1):
            spec = AgentSpec(agent_id=AgentId(f"{kind}-{serial}"), agent_type=kind, issue_id="i", project_id="p")
            record = AgentRecord(
                spec=spec,
                serial=serial,
                requested_by=AgentId("someone"),
                created_at=utc_now(),
                state=AgentState.RUNNING,
                cause=ExitCause.SIGNAL,
            )
            self.agents[spec.agent_id] = SupervisedAgent(record, built_in(kind))
        self.held: set[AgentId] = set()
        self.restarts_together = False
        self.restarts = self.made()

    def made(self) -> GroupRestarts:
        return GroupRestarts({"g": self.group}, self.agents, self.registry)

    def become(self, agent: SupervisedAgent, state: AgentState, **more: Any) -> None:
        agent.record = msgspec.structs.replace(agent.record, state=state, **more)

    def do(self, steps: Iterable[Step]) -> None:
        for step in steps:
            assert isinstance(step, Start | Stop)
            agent = self.agents[step.agent_id]
            if isinstance(step, Stop):
                assert step.after is AfterStop.TOGETHER
                self.become(agent, AgentState.STOPPING, then=step.after.name)
            else:
                self.start(agent)

    def start(self, agent: SupervisedAgent) -> None:
        in_order = sorted(self.agents.values(), key=lambda a: (TYPES.index(a.role[2]), a.record.serial))
        place = in_order.index(agent)
        if self.restarts_together:
            # Who was started by hand meanwhile, and told to stop, is no longer the group's concern.
            stopping = [a for a in in_order if a.id in self.held and a.record.state is AgentState.STOPPING]
            assert not any(a.record.then == AfterStop.TOGETHER.name for a in stopping)
            assert all(a.record.state is not AgentState.BACKING_OFF for a in in_order[:place] if a.id in self.held)
        self.become(agent, AgentState.RUNNING)
        if agent.id in self.broken:
            self.dies(agent)

    def dies(self, agent: SupervisedAgent) -> None:
        counted, exceeded = count_restart(self.restarts.standings(agent), now=time.monotonic())
        assert exceeded is None
        for each in counted:
            self.restarts.record_restart(each)
        self.become(agent, AgentState.BACKING_OFF, resume_at=NOT_YET)
        self.do(self.restarts.restart_with(agent))

    def advance(self) -> None:
        """Those of a restart that may start now are started together."""
        self.held = {agent_id for restart in self.registry.group_restarts.values() for agent_id in restart.to_start}
        self.restarts_together = True
        self.do(self.restarts.advance())
        self.restarts_together = False

    def comes_to_an_end(self, agent: SupervisedAgent) -> None:
        is_for_good = agent.record.then == AfterStop.STOPPED.name
        self.become(agent, AgentState.STOPPED if is_for_good else AgentState.BACKING_OFF, resume_at=0.0)
        self.advance()

    def is_due(self, agent: SupervisedAgent) -> None:
        self.become(agent, AgentState.BACKING_OFF, resume_at=0.0)
        if self.restarts.holds(agent):
            self.advance()
        else:
            self.start(agent)

    def one_of(self, place: int, *states: AgentState) -> SupervisedAgent | None:
        found = [agent for agent in self.agents.values() if agent.record.state in states]
        return found[place % len(found)] if found else None

    @rule(place=places)
    def one_dies(self, place: int) -> None:
        if (agent := self.one_of(place, AgentState.RUNNING)) is not None:
            self.dies(agent)

    @rule(place=places)
    def one_is_told_to_stop(self, place: int) -> None:
        if (agent := self.one_of(place, AgentState.RUNNING, AgentState.STOPPING)) is not None:
            self.become(agent, AgentState.STOPPING, then=AfterStop.STOPPED.name)

    @rule(place=places)
    def one_has_stopped(self, place: int) -> None:
        if (agent := self.one_of(place, AgentState.STOPPING)) is not None:
            self.comes_to_an_end(agent)

    @rule()
    def all_have_stopped(self) -> None:
        while (agent := self.one_of(0, AgentState.STOPPING)) is not None:
            self.comes_to_an_end(agent)

    @rule(place=places)
    def the_delay_of_one_is_over(self, place: int) -> None:
        if (agent := self.one_of(place, AgentState.BACKING_OFF)) is not None:
            self.is_due(agent)

    @rule(place=places)
    def one_is_started_by_hand(self, place: int) -> None:
        if (agent := self.one_of(place, AgentState.BACKING_OFF, AgentState.STOPPED)) is not None:
            self.become(agent, AgentState.RUNNING)
            self.advance()

    @rule(place=places)
    def the_program_of_one_breaks_or_is_mended(self, place: int) -> None:
        self.broken ^= {[*self.agents][place]}

    @rule()
    def the_sidecar_dies(self) -> None:
        self.registry.commit()
        self.registry.close()
        self.registry = AgentRegistry(Path(self.directory.name))
        self.restarts = self.made()
        self.advance()

    def teardown(self) -> None:
        """In the end everyone runs, or was stopped by somebody."""
        if not hasattr(self, "registry"):
            return
        self.broken.clear()
        for _ in range(3 * len(self.agents)):
            for agent in self.agents.values():
                if agent.record.state is AgentState.STOPPING:
                    self.comes_to_an_end(agent)
                elif agent.record.state is AgentState.BACKING_OFF:
                    self.is_due(agent)
        states = {agent.record.state for agent in self.agents.values()}
        self.registry.close()
        self.directory.cleanup()
        assert states <= {AgentState.RUNNING, AgentState.STOPPED}


test_groups = GroupLife.TestCase
test_groups.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
