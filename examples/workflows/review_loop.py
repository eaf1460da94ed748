"""Review loop: a reviewer and an author talk in rounds, tied together by a correlation id, until nothing is found.

python -m sidecar.examples.workflows.review_loop
"""

from __future__ import annotations

import ast
import uuid
from pathlib import Path

from sidecar.examples.workflows.stage import play, stage
from sidecar.http.sdk import Agent

FILE = "linkbook/reader.py"
DRAFT = """\
import json


def read(path, into=[]):
    try:
        into.extend(json.load(open(path)))
    except:
        return None
    return into
"""


def author(agent: Agent) -> None:
    """Hands in a draft, and mends what the reviewer finds, one finding a round."""
    assert agent.project_root is not None
    path = agent.project_root / FILE
    path.write_text(DRAFT)
    session = f"review-{uuid.uuid4().hex[:8]}"
    agent.publish("review_requested", {"file": FILE}, correlation_id=session)
    rounds = 0
    for answer in agent.events("review_findings", "review_passed", filter=f"correlation_id:{session}"):
        if answer.event_type == "review_passed":
            break
        rounds += 1
        finding = answer.data["finding"]
        path.write_text(MENDED[finding](path.read_text()))
        agent.publish("review_addressed", {"file": FILE, "finding": finding}, correlation_id=session)
    agent.store(status="success", files_created=[FILE], decisions=[f"passed after {rounds} rounds"])


def reviewer(agent: Agent) -> None:
    """Answers each draft with the gravest finding, and ends when there is none."""
    for request in agent.events("review_requested", "review_addressed", filter=f"issue_id:{agent.issue_id}"):
        assert agent.project_root is not None
        finding = next(iter(findings((agent.project_root / request.data["file"]).read_text())), None)
        if finding is None:
            agent.publish("review_passed", {"file": FILE}, correlation_id=request.correlation_id)
            break
        agent.publish("review_findings", {"finding": finding}, correlation_id=request.correlation_id)


def findings(source: str) -> list[str]:
    """What is wrong with a module, gravest first."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    found = {
        "bare except": any(isinstance(node, ast.ExceptHandler) and node.type is None for node in nodes),
        "mutable default": any(isinstance(d, ast.List | ast.Dict) for f in functions for d in f.args.defaults),
        "file left open": "json.load(open(" in source,
        "no annotations": any(f.returns is None for f in functions),
        "no docstring": ast.get_docstring(tree) is None or any(ast.get_docstring(f) is None for f in functions),
    }
    return [finding for finding, holds in found.items() if holds]


MENDED = {
    "bare except": lambda source: source.replace("except:", "except (OSError, ValueError):"),
    "mutable default": lambda source: source.replace("into=[]", "into"),
    "file left open": lambda source: source.replace("import json\n", "import json\nfrom pathlib import Path\n").replace(
        "json.load(open(path))", "json.loads(Path(path).read_text())"
    ),
    "no annotations": lambda source: source.replace(
        "def read(path, into):", "def read(path: str, into: list[object]) -> list[object] | None:"
    ),
    "no docstring": lambda source: (
        '"""Reading links from files."""\n\n'
        + source.replace(" | None:\n", ' | None:\n    """`into` with the links of a file, or None."""\n')
    ),
}


def direct() -> None:
    with stage(__file__, ["python-specialist", "code-reviewer"]) as on:
        on.spawn("code-reviewer")
        author_id = on.spawn("python-specialist", task="Read links from a file")
        stored = next(event for event in on.events("result_stored") if event.data["agent_id"] == author_id)
        print("\nThe review", *on.client.result(stored.data["result_id"]).result["decisions"])
        print(Path(on.project / FILE).read_text())


if __name__ == "__main__":
    play({"python-specialist": author, "code-reviewer": reviewer}, direct)
