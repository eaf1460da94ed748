"""Contexts over HTTP: the shape, the caches, the conditions; what is in them is the ContextBuilder's to test."""

from __future__ import annotations

import subprocess
from typing import Any


def test_a_context_has_the_whole_shape(sidecar: Any) -> None:
    agent = sidecar.agent()
    answer = agent.get("/api/context/issue-1/python-specialist")
    assert answer.status_code == 200
    body = answer.json()
    assert {
        "issue_id", "agent_type", "context", "truncated", "truncation_strategy", "total_size_bytes", "file_count",
        "cache_hit", "timestamp",
    } <= body.keys()  # fmt: skip
    context = body["context"]
    assert {
        "project_structure",
        "relevant_files",
        "git_context",
        "previous_agent_outputs",
        "metadata",
    } <= context.keys()
    (file,) = [each for each in context["relevant_files"] if each["path"] == "src/app.py"]
    assert file["content"] == "def answer():\n    return 42\n"
    assert file["checksum"].startswith("sha256:")
    assert context["git_context"]["branch"] == "main"
    assert [commit["message"] for commit in context["git_context"]["recent_commits"]] == ["Begin"]
    assert (body["truncated"], body["truncation_strategy"]) == (False, "none")


def test_results_of_the_issue_are_in_the_next_agents_context(sidecar: Any) -> None:
    body = {"agent_id": "ada", "agent_type": "chief-architect", "issue_id": "issue-1", "project_id": "default"}
    decision = {"status": "success", "decisions": ["Use one file"], "files_created": ["src/app.py"]}
    sidecar.agent("chief-architect", "ada").post("/api/results", json={**body, "result": decision})
    answer = sidecar.agent().get("/api/context/issue-1/python-specialist").json()
    (output,) = answer["context"]["previous_agent_outputs"]
    assert (output["agent"], output["decisions"]) == ("ada", ["Use one file"])


def test_an_unchanged_context_is_304_and_a_changed_file_is_noticed(sidecar: Any) -> None:
    agent = sidecar.agent()
    path = "/api/context/issue-1/python-specialist"
    first = agent.get(path)
    same = agent.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert agent.get(path).json()["cache_hit"] is True
    (sidecar.project / "src" / "app.py").write_text("def answer():\n    return 43\n")
    changed = agent.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert "return 43" in changed.text


def test_secrets_and_ignored_files_are_never_sent(sidecar: Any) -> None:
    (sidecar.project / ".gitignore").write_text("ignored.py\n")
    (sidecar.project / "ignored.py").write_text("IGNORED = 1\n")
    (sidecar.project / ".env").write_text("PASSWORD=hunter2\n")
    (sidecar.project / "id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n")
    for files in ("", "*", ".env,id_rsa,ignored.py"):
        answer = sidecar.agent("chief-architect").get(
            "/api/context/issue-1/chief-architect", params={"files": files, "refresh": "true"}
        )
        assert answer.status_code == 200
        assert "hunter2" not in answer.text


def test_credentials_of_the_remote_are_not_shown(sidecar: Any) -> None:
    url = "https://ada:hunter2@example.org/shop.git"
    subprocess.run(["git", "-C", str(sidecar.project), "remote", "add", "origin", url], check=True)
    git = sidecar.agent().get("/api/context/issue-1/python-specialist").json()["context"]["git_context"]
    assert git["remote_url"] == "https://example.org/shop.git"


def test_a_context_is_cut_to_the_size_asked_for_and_says_what_is_missing(sidecar: Any) -> None:
    for n in range(20):
        (sidecar.project / f"module_{n}.py").write_text(f"# {n}\n" + "x = 1\n" * 500)
    answer = sidecar.agent().get("/api/context/issue-1/python-specialist", params={"max_bytes": 20_000})
    body = answer.json()
    assert len(answer.content) <= 20_000
    assert body["truncated"] is True
    assert body["context"]["omitted"]


def test_a_project_that_is_no_repository_has_a_context_too(start_sidecar: Any, tmp_path: Any) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.py").write_text("a = 1\n")
    sidecar = start_sidecar(project_root=plain)
    context = sidecar.agent().get("/api/context/issue-1/python-specialist").json()["context"]
    assert context["git_context"]["branch"] is None
    assert [file["path"] for file in context["relevant_files"]] == ["a.py"]


def test_each_project_has_its_own_root(start_sidecar: Any, tmp_path: Any) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("x = 1\n")
    sidecar = start_sidecar(f"[projects.one]\nroot = '{tmp_path}/one'\n[projects.two]\nroot = '{tmp_path}/two'\n")
    for name in ("one", "two"):
        answer = sidecar.agent(project_id=name).get("/api/context/i/python-specialist")
        assert [file["path"] for file in answer.json()["context"]["relevant_files"]] == [f"{name}.py"]
        assert str(tmp_path) not in answer.text
    unknown = sidecar.agent(project_id="three").get("/api/context/i/python-specialist")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "REQ_404")


def test_the_cache_can_be_cleared(sidecar: Any) -> None:
    agent = sidecar.agent()
    agent.get("/api/context/issue-1/python-specialist")
    agent.get("/api/context/issue-2/python-specialist")
    assert sidecar.operator.get("/status").json()["storage"]["context_cache_entries"] == 2
    cleared = agent.delete("/api/cache/context/issue-1").json()
    assert (cleared["cleared"], cleared["entries_removed"]) == (True, 1)
    assert cleared["bytes_freed"] > 0
    assert sidecar.operator.delete("/api/cache/all").json()["entries_removed"] == 1
    assert agent.get("/api/context/issue-1/python-specialist").json()["cache_hit"] is False
