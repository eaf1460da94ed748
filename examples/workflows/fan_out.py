"""Fan-out and fan-in: an architect spawns one specialist for each module, more than may run at once, and gathers.

python -m sidecar.examples.workflows.fan_out
"""

from __future__ import annotations

import ast
import json
import shutil
import wsgiref
from pathlib import Path

from sidecar.examples.workflows.stage import play, stage
from sidecar.http.sdk import Agent

AT_ONCE = 3


def architect(agent: Agent) -> None:
    """One specialist a module; the sidecar queues what is over its limit."""
    modules = [name for name in agent.context().structure.files if name.endswith(".py") and "/borrowed/" in name]
    spawned = {agent.spawn("python-specialist", task=module, key=f"{agent.id}:{module}").agent_id for module in modules}
    missing = set(spawned)
    while missing:
        batch = agent.wait("result_stored", filter="agent_type:python-specialist", timeout_s=60)
        if not batch.events:
            raise TimeoutError(f"{len(missing)} of {len(spawned)} specialists handed in nothing")
        missing -= {event.data["agent_id"] for event in batch.events}
    results = [result.result for result in agent.results(agent_type="python-specialist")]
    functions = sum(result["metrics"]["functions"] for result in results)
    longest = max((result["metrics"] for result in results), key=lambda metrics: metrics["longest_lines"])
    summary = {
        "modules": len(results),
        "functions": functions,
        "longest": longest["longest"],
        "lines": longest["longest_lines"],
    }
    agent.store(status="success", metrics=summary)
    agent.publish("survey_complete", summary, topic="coordination")


def specialist(agent: Agent) -> None:
    """Measures the one module that its task names."""
    assert agent.project_root is not None
    tree = ast.parse((agent.project_root / agent.task).read_text(encoding="utf-8"))
    lengths = {
        f"{agent.task}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    longest = max(lengths, key=lengths.__getitem__, default="")
    agent.store(
        status="success",
        metrics={"functions": len(lengths), "longest": longest, "longest_lines": lengths.get(longest, 0)},
    )


def direct() -> None:
    settings = f"[agents]\nmax_concurrent = {AT_ONCE + 1}\n"  # the architect is one of them
    with stage(__file__, ["chief-architect", "python-specialist"], settings=settings) as on:
        # Real code to look at: two packages of this very Python.
        for package in (json, wsgiref):
            source = Path(str(package.__file__)).parent
            target = on.project / "linkbook" / "borrowed" / source.name
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        on.spawn("chief-architect", task="How long are our functions?")
        survey = next(on.events("survey_complete")).data
        print(
            f"\n{survey['modules']} modules, {AT_ONCE} at a time: {survey['functions']} functions, "
            f"the longest is {survey['longest']} with {survey['lines']} lines."
        )


if __name__ == "__main__":
    play({"chief-architect": architect, "python-specialist": specialist}, direct)
