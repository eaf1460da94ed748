"""Feature workflow: an architect splits a feature into steps, spawns an agent for each, and waits for its result.

    python -m sidecar.examples.workflows.feature

The demo does the same with triggers: no agent waits there; each event starts the next agent.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sidecar.examples.workflows.stage import play, stage
from sidecar.http.sdk import Agent, Result
from sidecar.state.models import ResultStatus

FILE = "linkbook/slug.py"
SLUG = '''\
"""Titles as they may stand in a URL."""

from __future__ import annotations

import re


def slug(title: str) -> str:
    """Lower case words joined by hyphens.

    >>> slug("Erlang -- The Movie!")
    'erlang-the-movie'
    >>> slug("  ")
    ''
    """
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))
'''


def architect(agent: Agent) -> None:
    """Each step is an agent of its own; its result decides whether there is a next one."""
    steps = [("python-specialist", f"write {FILE}"), ("test-engineer", f"run the examples in {FILE}")]
    decisions = []
    for agent_type, task in steps:
        result = result_of(agent, agent.spawn(agent_type, task=task, key=f"{agent.id}:{agent_type}").agent_id)
        decisions += result.result["decisions"]
        if result.status != "success":
            agent.store(status="failed", decisions=decisions)
            raise SystemExit(1)
    agent.store(status="success", decisions=decisions)
    agent.publish("feature_complete", {"steps": len(steps), "decisions": decisions}, topic="coordination")


def result_of(agent: Agent, agent_id: str) -> Result:
    """The result that an agent hands in; raises TimeoutError when none comes."""
    batch = agent.wait("result_stored", filter=f"agent_id:{agent_id}", timeout_s=30)
    if not batch.events:
        raise TimeoutError(f"{agent_id} handed in nothing")
    return agent.client.result(batch.events[0].data["result_id"])


def specialist(agent: Agent) -> None:
    (root_of(agent) / FILE).write_text(SLUG)
    agent.store(status="success", files_created=[FILE], decisions=[f"slug() stands in {FILE}"])


def tester(agent: Agent) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "doctest", FILE], cwd=root_of(agent), capture_output=True, text=True, check=False
    )
    status: ResultStatus = "success" if done.returncode == 0 else "failed"
    agent.store(status=status, decisions=[f"its examples: {status}"], errors=done.stdout.splitlines())


def root_of(agent: Agent) -> Path:
    assert agent.project_root is not None
    return agent.project_root


def direct() -> None:
    with stage(__file__, ["chief-architect", "python-specialist", "test-engineer"]) as on:
        on.spawn("chief-architect", task="Titles as slugs")
        feature = next(on.events("feature_complete"))
        print("\nThe feature is complete:", "; ".join(feature.data["decisions"]))


if __name__ == "__main__":
    play({"chief-architect": architect, "python-specialist": specialist, "test-engineer": tester}, direct)
