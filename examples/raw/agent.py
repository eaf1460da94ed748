"""An agent without any client: Python's standard library and five requests. Counts the files it was given."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

URL = os.environ["SIDECAR_URL"]  # ends with /api
TOKEN = os.environ["JWT_TOKEN"]
AGENT_ID, AGENT_TYPE = os.environ["AGENT_ID"], os.environ["AGENT_TYPE"]
ISSUE_ID, PROJECT_ID = os.environ["ISSUE_ID"], os.environ["PROJECT_ID"]


def ask(method: str, path: str, body: object = None, *, key: str | None = None, timeout_s: float = 30.0) -> Any:
    """One request, its answer as JSON. key: makes a repeat of the request count once."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return json.load(answer)


def main() -> None:
    context = ask("GET", f"/context/{ISSUE_ID}/{AGENT_TYPE}")["context"]
    languages = Counter(file["language"] for file in context["relevant_files"])
    print(f"{sum(languages.values())} files on {context['git_context']['branch']}: {dict(languages)}")

    stored = ask(
        "POST",
        "/results",
        {
            "agent_id": AGENT_ID,
            "agent_type": AGENT_TYPE,
            "issue_id": ISSUE_ID,
            "project_id": PROJECT_ID,
            "result": {"status": "success", "metrics": {"files": sum(languages.values())}},
        },
        key=f"{AGENT_ID}:result",
    )
    ask(
        "POST",
        "/events/files_counted",
        {"topic": "coordination", "data": {"issue_id": ISSUE_ID, "result_id": stored["id"]}},
        key=f"{AGENT_ID}:files_counted",
    )

    # The wait is longer for the socket than for the server: the answer needs a moment to come back.
    go = ask("GET", f"/events/wait/go_on?timeout=20000&filter=issue_id:{ISSUE_ID}", timeout_s=25.0)
    if go["timeout"]:
        sys.exit("nobody said go on")
    print(f"{go['events'][0]['publisher']} said go on")


if __name__ == "__main__":
    try:
        main()
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {error.read().decode()}")
