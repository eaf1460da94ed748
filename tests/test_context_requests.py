"""Which contexts an agent was given can be looked up: what it asked, what came of it, how long that took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.actors.context.requests import KEPT_AGENTS, KEPT_OF_AN_AGENT, RequestsSeen
from sidecar.actors.replies import ContextRequested

START = datetime(2026, 1, 1, tzinfo=UTC)


def contexts_of(sidecar: Any, agent_id: str) -> list[dict[str, Any]]:
    answer = sidecar.operator.get(f"/api/agents/{agent_id}/contexts")
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["contexts"]
    return listed


def test_each_request_is_listed_with_what_came_of_it(sidecar: Any) -> None:
    agent = sidecar.agent()
    path = "/api/context/issue-7/python-specialist"
    first = agent.get(path, params={"q": "the answer", "files": "README.md", "requirements": "git_history"})
    again = agent.get(path, params={"q": "the answer", "files": "README.md", "requirements": "git_history"})
    same = agent.get(path, headers={"If-None-Match": agent.get(path).headers["ETag"]})
    assert (again.json()["cache_hit"], same.status_code) == (True, 304)
    unchanged, plain, second, oldest = contexts_of(sidecar, "agent-1")
    assert oldest["size_bytes"] == len(first.content)
    told = {
        name: oldest[name] for name in ("issue_id", "agent_type", "q", "files", "requirements", "outcome", "cache_hit")
    }
    assert told == {
        "issue_id": "issue-7", "agent_type": "python-specialist", "q": "the answer", "files": ["README.md"],
        "requirements": ["git_history"], "outcome": "sent", "cache_hit": False,
    }  # fmt: skip
    assert (oldest["file_count"], oldest["truncation_strategy"]) == (
        first.json()["file_count"],
        first.json()["truncation_strategy"],
    )
    assert second["cache_hit"]
    assert (unchanged["outcome"], unchanged["size_bytes"]) == ("unchanged", 0)
    assert plain["q"] == ""
    assert all(each["took_ms"] > 0 for each in (unchanged, plain, second, oldest))


def test_what_was_cut_says_how(sidecar: Any, project: Any) -> None:
    for n in range(20):
        (project / f"module_{n}.py").write_text(f"def f_{n}():\n    return {'x' * 1500!r}\n")
    answer = sidecar.agent().get("/api/context/issue-7/python-specialist", params={"max_bytes": 10_000}).json()
    (listed,) = contexts_of(sidecar, "agent-1")
    assert answer["truncated"]
    assert listed["truncation_strategy"] == answer["truncation_strategy"] != "none"


def test_an_agent_that_is_known_and_never_asked_has_none_and_an_unknown_one_is_404(sidecar: Any) -> None:
    assert contexts_of(sidecar, sidecar.spawn("go-specialist")["agent_id"]) == []
    assert sidecar.operator.get("/api/agents/nobody/contexts").status_code == 404


def test_another_projects_agents_are_not_seen(sidecar: Any) -> None:
    sidecar.agent(project_id="shop").get("/api/context/issue-7/python-specialist")
    assert len(contexts_of(sidecar, "agent-1")) == 1
    assert sidecar.agent(project_id="shop").get("/api/agents/agent-1/contexts").status_code == 200
    assert sidecar.agent(project_id="other").get("/api/agents/agent-1/contexts").status_code == 404


def requested(n: int) -> ContextRequested:
    return ContextRequested(
        at=START + timedelta(seconds=n),
        issue_id="issue-1",
        agent_type="python-specialist",
        query="",
        files=(),
        requirements=(),
        outcome="sent",
        took_ms=1.0,
    )


def test_only_the_newest_are_kept_of_an_agent_and_the_busiest_of_all_agents() -> None:
    seen = RequestsSeen(since=START)
    for n in range(KEPT_OF_AN_AGENT + 10):
        seen.add("shop", "busy", requested(n))
    kept = seen.of("busy", "shop").requests
    assert [request.at for request in kept] == [
        START + timedelta(seconds=n) for n in range(KEPT_OF_AN_AGENT + 9, 9, -1)
    ]
    for n in range(KEPT_AGENTS - 1):
        seen.add("shop", f"agent-{n}", requested(n))
    seen.add("shop", "busy", requested(100))
    seen.add("shop", "one-more", requested(101))
    assert seen.of("agent-0", None).requests == ()
    assert len(seen.of("busy", None).requests) == KEPT_OF_AN_AGENT
