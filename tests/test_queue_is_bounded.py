"""What queued and ended agents take is bounded in bytes, and a look at a long queue in steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors import messages as m
from sidecar.actors.agents import forgetting
from sidecar.actors.agents.agent import Role, SupervisedAgent
from sidecar.actors.agents.dependency_look import DependencyLook
from sidecar.state.agent_entries import AgentRecord
from sidecar.state.clock import utc_now
from sidecar.state.errors import QueueFull
from sidecar.state.identity import AgentClass
from sidecar.state.models import AgentId, AgentSpec, AgentState
from sidecar.supervision.profile import Profile
from tests.fleet import SLEEPS, Fleet, does, wait_until

SHORT = {f"TASK_{number}": "ab" for number in range(250)}  # 4 KB as JSON, 30 KB in memory


@pytest.mark.parametrize(
    "request_",
    [
        {"environment": SHORT},
        {"context_requirements": tuple(f"requirement-{number}" for number in range(1000))},
        {"task": "\N{GRINNING FACE}" * 10_000},
    ],
    ids=["short texts", "requirements", "wide characters"],
)
def test_the_queue_counts_what_requests_take_in_memory_also_after_a_restart(
    tmp_path: Path, request_: dict[str, Any]
) -> None:
    options = {"max_concurrent": 1, "max_queued_mb": 0.06 if "environment" in request_ else 0.12}
    with Fleet(tmp_path, options=options, sleeps=does(*SLEEPS)) as fleet:
        fleet.spawn("sleeps")
        fleet.spawn("sleeps", **request_)
        for _ in range(2):
            with pytest.raises(QueueFull, match=r"agents\.max_queued_mb"):
                fleet.spawn("sleeps", **request_)
            fleet.vanish()
            fleet.open()


def test_ended_agents_leave_the_list_when_what_they_were_given_takes_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "MAX_ENDED_BYTES", 300_000)
    with Fleet(tmp_path, ends=does("true")) as fleet:
        ids = []
        for number in range(6):
            told = fleet.spawn("ends", task="x" * 90_000, idempotency_key=str(number))
            ids.append(told.status.agent_id)
            wait_until(lambda: {status.state for status in listed(fleet)} == {AgentState.COMPLETED})
        wait_until(lambda: [status.agent_id for status in listed(fleet)] == ids[:-4:-1])
        assert fleet.spawn("ends", task="x" * 90_000, idempotency_key="0").status.agent_id == ids[0]
        assert fleet.ask(m.CountAgents(project_id=None)).spawned_total == 6


def listed(fleet: Fleet) -> Any:
    return fleet.ask(m.ListAgents(project_id=None))


def test_a_look_at_the_queue_judges_a_dependency_once_for_all_of_an_issue() -> None:
    asked: Counter[Role] = Counter()

    def of_role(role: Role) -> Iterable[SupervisedAgent]:
        asked[role] += 1
        return [agent(role[2], role[1], AgentState.FAILED)] if role[1] == "lost" else []

    look = DependencyLook(of_role)
    waiting = [agent("after", issue, AgentState.QUEUED) for issue in ("lost", "open") for _ in range(500)]
    for each in waiting:
        assert not look.may_start(each)
        assert [lost.agent_type for lost in look.lost(each)] == (["base"] if each.role[1] == "lost" else [])
        assert len(look.missing(each)) == 1
    assert look.settles_in_s(waiting) is None
    assert asked == {("p", "lost", "base"): 1, ("p", "open", "base"): 1}


def agent(agent_type: str, issue_id: str, state: AgentState) -> SupervisedAgent:
    spec = AgentSpec(agent_id=AgentId(agent_type), agent_type=agent_type, issue_id=issue_id, project_id="p")
    record = AgentRecord(spec=spec, serial=1, requested_by=AgentId("op"), created_at=utc_now(), state=state)
    return SupervisedAgent(record, Profile(agent_type=agent_type, agent_class=AgentClass.CODING, depends_on=("base",)))
