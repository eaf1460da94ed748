"""Human approval: an agent asks before it releases, and waits for a person's event.

python -m sidecar.examples.workflows.approval              asks you
python -m sidecar.examples.workflows.approval --answer yes  answers for you
"""

from __future__ import annotations

import argparse
import subprocess
import uuid

from sidecar.examples.demo.project import PROJECT_ID
from sidecar.examples.workflows.stage import ISSUE_ID, play, stage
from sidecar.http.sdk import Agent

TAG = "v0.1.0"
DECIDED_WITHIN_S = 600.0


def releaser(agent: Agent) -> None:
    """Tags the project's last commit, but only when a person has said so."""
    assert agent.project_root is not None
    session = f"approval-{uuid.uuid4().hex[:8]}"
    last = subprocess.run(
        ["git", "log", "-1", "--oneline"], cwd=agent.project_root, capture_output=True, text=True, check=True
    )
    agent.publish("approval_requested", {"what": f"tag {TAG} on {last.stdout.strip()}"}, correlation_id=session)
    batch = agent.wait(
        "approval_given", "approval_refused", filter=f"correlation_id:{session}", timeout_s=DECIDED_WITHIN_S
    )
    if not batch.events or batch.events[0].event_type == "approval_refused":
        why = batch.events[0].data.get("reason", "no reason given") if batch.events else "nobody answered"
        agent.store(status="partial", decisions=[f"not released: {why}"])
        return
    subprocess.run(["git", "tag", TAG], cwd=agent.project_root, check=True)
    agent.store(status="success", decisions=[f"released {TAG}, approved by {batch.events[0].data['by']}"])


def ask(question: str) -> str:
    try:
        return input(question)
    except (EOFError, RuntimeError):  # standard input is at its end, or closed
        print()
        raise SystemExit("Nobody is here to answer; give the answer with --answer yes or --answer no.") from None


def direct() -> None:
    parser = argparse.ArgumentParser(description="Human approval by event.")
    parser.add_argument("--answer", choices=["yes", "no"], help="answer without asking")
    answer = parser.parse_args().answer
    with stage(__file__, ["devops-engineer"]) as on:
        on.spawn("devops-engineer", task=f"Release {TAG}")
        asked = next(on.events("approval_requested"))
        print(
            "\nAnywhere on this machine this would answer:\n"
            f"  SIDECAR_URL={on.server.url} SIDECAR_STORAGE={on.server.storage} sidecar events publish approval_given "
            f'--project {PROJECT_ID} --correlation-id {asked.correlation_id} --data \'{{"by": "you"}}\'\n'
        )
        approves = (answer or ask(f"May it {asked.data['what']}? [yes/no] ")).lower().startswith("y")
        on.client.publish(
            "approval_given" if approves else "approval_refused",
            {"issue_id": ISSUE_ID, "by": "a person", "reason": "not today"},
            correlation_id=asked.correlation_id,
            project_id=PROJECT_ID,
        )
        stored = next(on.events("result_stored"))
        tags = subprocess.run(["git", "tag"], cwd=on.project, capture_output=True, text=True, check=True).stdout.split()
        print("\nThe agent:", *on.client.result(stored.data["result_id"]).result["decisions"])
        print("The project's tags:", *(tags or ["none"]))


if __name__ == "__main__":
    play({"devops-engineer": releaser}, direct)
