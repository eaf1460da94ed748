"""Each kind of agent gets the files of its kind, and what it asks for by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.actors.context import coverage, metadata
from sidecar.actors.context.earlier import earlier_outputs, last_build_status
from sidecar.actors.context.kinds import Role
from sidecar.actors.context.requirements import FilePatterns, checked_requirements
from sidecar.actors.context.roles import role_of
from sidecar.state.errors import InvalidContextRequest
from sidecar.state.models import AgentId, Event, EventId, ResultId, ResultStatus, StoredResult
from tests.context_world import context_of, repository, sent_of, write

GO_MOD = """module x.y/z
go 1.22
require a.b/c v1.2.3
require (
	d.e/f v0.1.0
	g.h/i v2.0.0 // indirect
)
replace j.k/l => m.n/o v1.0.0
"""
FILES = {
    "README.md": "# Shop\n",
    "pyproject.toml": "[project]\nname = 'shop'\ndependencies = ['flask>=3', 'redis']\n",
    "shop/app.py": "app = 1\n",
    "shop/auth.py": "token = 1\n",
    "shop/static/app.js": "var app = 1;\n",
    "service/main.go": "package main\n",
    "tests/test_app.py": "def test_app(): pass\n",
    "service/main_test.go": "package main\n",
    ".github/workflows/ci.yml": "on: push\n",
    "SECURITY.md": "Report to us.\n",
    "docs/guide.md": "# Guide\n",
    "docs/adr/0001-use-flask.md": "# Use Flask\n",
    "openapi.yaml": "openapi: 3.1.0\n",
    "coverage.xml": '<coverage line-rate="0.923"></coverage>',
    "uv.lock": "version = 1\n",
    "Dockerfile": "FROM python\n",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("types") / "shop", FILES)


@pytest.mark.parametrize(
    ("agent_type", "gets", "does_not_get"),
    [
        (
            "python-specialist",
            {"shop/app.py", "tests/test_app.py", "pyproject.toml"},
            {"service/main.go", "docs/guide.md"},
        ),
        ("go-specialist", {"service/main.go", "service/main_test.go"}, {"shop/app.py", "tests/test_app.py"}),
        ("frontend-developer", {"shop/static/app.js"}, {"service/main.go"}),
        (
            "test-engineer",
            {"tests/test_app.py", "service/main_test.go", "coverage.xml", ".github/workflows/ci.yml"},
            {"shop/static/app.js"},
        ),
        (
            "security-auditor",
            {"SECURITY.md", "shop/auth.py", "tests/test_app.py", "pyproject.toml"},
            {"shop/static/app.js"},
        ),
        ("documentation-expert", {"README.md", "docs/guide.md", "openapi.yaml"}, {"shop/app.py", "service/main.go"}),
        ("devops-engineer", {".github/workflows/ci.yml", "Dockerfile", "pyproject.toml"}, {"shop/app.py"}),
        ("chief-architect", set(FILES) - {"uv.lock", "coverage.xml"}, {"uv.lock"}),
        ("somebody-else", {"shop/app.py", "tests/test_app.py"}, {"service/main.go"}),
    ],
)
def test_an_agent_gets_the_files_of_its_kind(
    shop: Path, agent_type: str, gets: set[str], does_not_get: set[str]
) -> None:
    sent = set(sent_of(shop, agent_type))
    assert gets <= sent
    assert not does_not_get & sent


def test_requirements_add_files_and_never_take_any_away(shop: Path) -> None:
    plain = set(sent_of(shop))
    asked = frozenset({"security_policies", "documentation", "test_coverage_reports"})
    more = set(sent_of(shop, requirements=asked))
    assert more - plain == {
        "SECURITY.md",
        "docs/guide.md",
        "docs/adr/0001-use-flask.md",
        "openapi.yaml",
        "coverage.xml",
    }
    assert plain <= more


def test_an_unknown_requirement_names_the_field_and_what_there_is() -> None:
    with pytest.raises(InvalidContextRequest) as caught:
        checked_requirements(("git_history", "everything"))
    assert caught.value.details["field"] == "requirements"
    assert "previous_decisions" in str(caught.value.details["expected"])
    assert "'everything'" in caught.value.message


@pytest.mark.parametrize(
    "pattern",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "~/.ssh",
        ".git/config",
        "a/.git/x",
        "",
        " ",
        "a\0b",
        "a\nb",
        "[ab",
        "x" * 2000,
        "a\\b",
    ],
)
def test_patterns_that_lead_elsewhere_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidContextRequest) as caught:
        FilePatterns((pattern,))
    assert caught.value.details["field"] == "files"
    assert caught.value.details["expected"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("shop/app.py", {"shop/app.py"}),
        ("./shop/app.py", {"shop/app.py"}),
        ("*.go", {"service/main.go", "service/main_test.go"}),
        ("shop/*.py", {"shop/app.py", "shop/auth.py"}),
        ("docs/", {"docs/guide.md", "docs/adr/0001-use-flask.md"}),
        ("**/test_*", {"tests/test_app.py"}),
    ],
)
def test_patterns_are_those_of_gitignore(pattern: str, matched: set[str]) -> None:
    assert set(FilePatterns((pattern,)).matched(FILES)) == matched


def test_a_pattern_that_matches_nothing_is_a_warning(shop: Path) -> None:
    from tests.context_world import Builds

    assert Builds(shop).answer(files=("nothing.py",))["warnings"] == ["files: nothing matches 'nothing.py'"]


def test_metadata_is_read_from_the_project(shop: Path) -> None:
    about = context_of(shop)["metadata"]
    assert about["project_type"] == "python"
    assert about["dependencies"] == ["flask>=3", "redis"]
    assert about["test_coverage"] == 92.3
    assert about["coverage_report"]["path"] == "coverage.xml"
    assert about["last_build_status"] is None


def test_a_coverage_report_that_is_ignored_by_git_is_found(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n", ".gitignore": "coverage.xml\n"})
    write(root, {"coverage.xml": '<coverage line-rate="0.5"/>'})
    assert context_of(root)["metadata"]["test_coverage"] == 50.0


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        (
            "pyproject.toml",
            "[project]\ndependencies=['a>=1']\n[dependency-groups]\ndev=['b', {include-group='c'}]",
            ["a>=1", "b"],
        ),
        (
            "pyproject.toml",
            "[tool.poetry.dependencies]\npython='^3'\nrequests='^2'\nx={version='1'}",
            ["requests@^2", "x@1"],
        ),
        (
            "requirements.txt",
            "# c\n-r other.txt\nflask==3.0 # why\nx[y]>=1 --hash=sha256:0\n!!\n",
            ["flask==3.0", "x[y]>=1"],
        ),
        (
            "Cargo.toml",
            "[dependencies]\nserde={version='1'}\n[target.x.dependencies]\nlibc='0.2'\n[workspace.dependencies]\nlog='0.4'",
            ["serde@1", "log@0.4", "libc@0.2"],
        ),
        ("package.json", '{"dependencies":{"react":"^18"},"devDependencies":{"vite":"5"}}', ["react@^18", "vite@5"]),
        ("go.mod", GO_MOD, ["a.b/c@v1.2.3", "d.e/f@v0.1.0"]),
        ("Gemfile", "gem 'rails', '~> 7'\ngem 'pg'\n", ["rails@~> 7", "pg"]),
    ],
)
def test_dependencies_are_told_as_their_manifest_writes_them(path: str, text: str, found: list[str]) -> None:
    assert metadata.dependencies({path: text}) == (tuple(found), ())


@pytest.mark.parametrize("path", ["pyproject.toml", "package.json", "Cargo.toml"])
@pytest.mark.parametrize(
    "text", ["{[", "[]", "null", '{"dependencies": 3}', "dependencies = 3", "[project]\ndependencies = 3"]
)
def test_a_manifest_that_cannot_be_read_costs_nothing_but_a_warning(path: str, text: str) -> None:
    found, warnings = metadata.dependencies({path: text})
    assert found == ()
    assert all(path in warning for warning in warnings)


@pytest.mark.parametrize(
    ("path", "text", "percent"),
    [
        ("lcov.info", "SF:a\nLF:10\nLH:5\nend_of_record\nLF:10\nLH:10\n", 75.0),
        ("coverage.json", '{"totals": {"percent_covered": 81.239}}', 81.24),
        ("coverage-summary.json", '{"total": {"lines": {"pct": 64.5}}}', 64.5),
        ("cover.out", "mode: set\na.go:1.1,2.2 3 1\na.go:3.1,4.2 1 0\n", 75.0),
        ("coverage.xml", '<report><counter type="LINE" missed="1" covered="3"/></report>', 75.0),
        ("coverage.xml", "<coverage", None),
        ("coverage.json", "[]", None),
        ("cover.out", "mode: set\nnonsense\n", None),
        ("coverage.xml", '<!DOCTYPE x [<!ENTITY a "1"><!ENTITY b "&a;&a;">]><coverage line-rate="&b;"/>', None),
    ],
)
def test_coverage_is_a_share_of_lines_or_unknown(path: str, text: str, percent: float | None) -> None:
    assert coverage.percent(path, text) == percent


def _types(paths: tuple[str, ...]) -> tuple[str, ...]:
    return metadata.project_types(paths, metadata.main_languages(paths))


def test_the_largest_part_of_a_project_is_its_type() -> None:
    assert _types(("src/a.rs", "src/b.rs", "Cargo.toml", "package.json", "x.js")) == (
        "rust",
        "javascript",
    )
    assert _types(("a.ts", "package.json")) == ("typescript",)
    assert _types(("a.py",)) == ("python",)
    assert _types(()) == ()
    assert metadata.main_languages(("main.go", *(f"testdata/{n}.tf" for n in range(9)))) == ("go", "terraform")


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("src/app.py", Role.SOURCE),
        ("src/latest.py", Role.SOURCE),
        ("tests/test_app.py", Role.TEST),
        ("app.test.ts", Role.TEST),
        ("pkg/app_test.go", Role.TEST),
        ("src/AppTest.java", Role.TEST),
        ("Cargo.toml", Role.MANIFEST),
        ("setup.py", Role.MANIFEST),
        ("noxfile.py", Role.CI),
        (".github/workflows/x.yml", Role.CI),
        ("SECURITY.md", Role.POLICY),
        ("docs/a.md", Role.DOC),
        ("LICENSE", Role.DOC),
        ("docs/adr/1.md", Role.DESIGN),
        ("api.proto", Role.API_SPEC),
        ("yarn.lock", Role.LOCK),
        ("data.csv", Role.DATA),
        ("lcov.info", Role.COVERAGE),
        ("what", Role.OTHER),
    ],
)
def test_the_role_of_a_file_is_told_from_its_path(path: str, role: Role) -> None:
    assert role_of(path) is role


def stored(body: Any, status: ResultStatus = "success", agent_type: str = "python-specialist") -> StoredResult:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return StoredResult(
        id=ResultId("r-1"),
        project_id="default",
        issue_id="issue-1",
        agent_id=AgentId("ada"),
        agent_type=agent_type,
        status=status,
        result=msgspec.Raw(json.dumps(body).encode()),
        timestamp=now,
        stored_at=now,
    )


def test_earlier_outputs_keep_what_the_next_agent_needs() -> None:
    body = {
        "status": "success",
        "decisions": [{"decision": "Use Flask", "why": "small"}, "Use Redis"],
        "files_created": [{"path": "./a.py", "size": 1}],
        "files_modified": ["b.py"],
        "files_deleted": "c.py",
        "next_steps": ["Test the basket"],
        "artifacts": {"report": "x" * 9999},
    }
    found = earlier_outputs([stored(body)])
    (output,) = found.outputs
    assert output["decision"] == "Use Flask"
    assert output["decisions"] == body["decisions"]
    assert output["files_affected"] == ["a.py", "b.py", "c.py"]
    assert (output["agent"], output["status"], output["next_steps"]) == ("ada", "success", ["Test the basket"])
    assert "artifacts" not in output
    assert (found.seeds, found.words) == (("a.py", "b.py", "c.py"), "Use Flask\nUse Redis\nTest the basket")


@pytest.mark.parametrize("body", [{}, [], "text", {"decisions": 3, "files_created": [None, 4, {}], "next_steps": {}}])
def test_results_of_any_shape_are_taken(body: Any) -> None:
    (output,) = earlier_outputs([stored(body)]).outputs
    assert output["files_affected"] == []


def event(event_type: str, **data: Any) -> Event:
    return Event(
        event_id=EventId("evt-1"),
        project_id="default",
        event_type=event_type,
        publisher="ada",
        publisher_type="test-engineer",
        topic="testing",
        data=msgspec.Raw(json.dumps(data).encode()),
        correlation_id=None,
        priority="normal",
        ttl_s=60,
        published_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=1),
    )


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], None),
        ([event("deployed")], None),
        ([event("tests_passed"), event("build_failed")], "success"),
        ([event("testing_complete", status="failed")], "failed"),
        ([event("implementation_complete", status="success")], None),
        ([event("build_complete", status=7)], "success"),
    ],
)
def test_the_last_build_is_what_the_newest_event_says_and_never_invented(
    events: list[Event], status: str | None
) -> None:
    assert last_build_status(events, ()) == status


def test_without_an_event_the_testers_result_says_it() -> None:
    outputs = earlier_outputs([stored({}, "failed", "test-engineer"), stored({}, "success")]).outputs
    assert last_build_status((), outputs) == "failed"
