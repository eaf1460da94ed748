#!/usr/bin/env python3
"""An agent as an outsider writes one: plain `requests`, the environment, and nothing of ours imported."""

import os
import sys
from typing import Any

import requests


class Specialist:
    """Reads its context, does its work, stores what came of it, says that it is done."""

    def __init__(self) -> None:
        wanted = ("AGENT_ID", "AGENT_TYPE", "ISSUE_ID", "PROJECT_ID", "SIDECAR_URL", "JWT_TOKEN")
        self.env = {name: os.environ.get(name, "") for name in wanted}
        missing = [name for name, value in self.env.items() if not value]
        if missing:
            raise SystemExit(f"not in the environment: {', '.join(missing)}")
        self.session_headers = {"Authorization": "Bearer " + self.env["JWT_TOKEN"]}

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = requests.request(
            method, self.env["SIDECAR_URL"] + path, headers=self.session_headers, timeout=30, **options
        )
        answer.raise_for_status()
        return answer.json()

    def run(self) -> None:
        env = self.env
        context = self.call("GET", f"/context/{env['ISSUE_ID']}/{env['AGENT_TYPE']}")
        for part in ("project_structure", "relevant_files", "previous_agent_outputs", "metadata"):
            assert part in context["context"], part
        names = ("agent_id", "agent_type", "issue_id", "project_id")
        outcome = {
            "status": "success",
            "files_created": ["src/feature.py"],
            "decisions": [f"Read {len(context['context']['relevant_files'])} files"],
            "metrics": {"test_coverage": 95.0},
        }
        stored = self.call("POST", "/results", json={**{n: env[n.upper()] for n in names}, "result": outcome})
        assert stored["id"]
        said = {
            "event_type": "implementation_complete",
            "publisher": env["AGENT_ID"],
            "topic": "implementation",
            "data": {"issue_id": env["ISSUE_ID"], "status": "success"},
        }
        assert self.call("POST", "/events/implementation_complete", json=said)["event_id"]


if __name__ == "__main__":
    Specialist().run()
    sys.exit(0)
