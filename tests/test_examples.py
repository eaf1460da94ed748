"""The examples: every workflow with its one command, every agent by what it does, plain HTTP in three languages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.examples.agents import chief_architect, python_specialist, security_auditor, sql_specialist, test_engineer
from sidecar.examples.agents.workbench import Design
from sidecar.examples.demo import project as demo_project
from sidecar.http.sdk import File
from sidecar.state.typed import convert

EXAMPLES = Path(demo_project.__file__).parents[1]
WORKFLOW_WITHIN_S = 90.0


def play(workflow: str, *options: str, place: Path, code: int = 0) -> str:
    """What a workflow prints, with nobody at its standard input; all its temporary files lie in `place`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "AGENT_"))}
    done = subprocess.run(
        [sys.executable, "-m", f"sidecar.examples.workflows.{workflow}", *options],
        env=environment | {"TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WORKFLOW_WITHIN_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert list(place.iterdir()) == []
    return done.stdout + done.stderr


class TestWorkflows:
    def test_a_feature_is_complete_when_each_step_has_its_result(self, tmp_path: Path) -> None:
        shown = play("feature", place=tmp_path)
        assert "The feature is complete: slug() stands in linkbook/slug.py; its examples: success" in shown

    def test_a_review_goes_on_until_nothing_is_found(self, tmp_path: Path) -> None:
        shown = play("review_loop", place=tmp_path)
        assert shown.count("review_findings") == shown.count("review_addressed") == 5
        assert "The review passed after 5 rounds" in shown

    def test_every_part_that_was_fanned_out_comes_in_again(self, tmp_path: Path) -> None:
        shown = play("fan_out", place=tmp_path)
        parts = re.search(r"(\d+) modules, 3 at a time: (\d+) functions", shown)
        assert parts is not None
        assert shown.count("python-specialist") >= int(parts.group(1)) > 2 * 3
        assert int(parts.group(2)) > 50

    @pytest.mark.parametrize(
        ("answer", "becomes", "tags"),
        [("yes", "released v0.1.0, approved by a person", "v0.1.0"), ("no", "not released: not today", "none")],
    )
    def test_a_release_waits_for_a_person(self, tmp_path: Path, answer: str, becomes: str, tags: str) -> None:
        shown = play("approval", "--answer", answer, place=tmp_path)
        assert f"The agent: {becomes}" in shown
        assert f"The project's tags: {tags}" in shown

    def test_a_release_that_nobody_can_be_asked_about_says_so(self, tmp_path: Path) -> None:
        shown = play("approval", place=tmp_path, code=1)
        assert shown.endswith("\nNobody is here to answer; give the answer with --answer yes or --answer no.\n")

    def test_no_job_is_lost_or_done_twice_whoever_is_killed(self, tmp_path: Path) -> None:
        shown = play("crash_drill", place=tmp_path)
        assert shown.count("(the agent)") >= 1
        assert shown.count("(the sidecar)") == 1
        assert "Every job has exactly one result." in shown


RAW = {
    "python": ([sys.executable], "agent.py"),
    "bash": (["bash"], "agent.sh"),
    "node": (["node"], "agent.mjs"),
}


class TestAgentsWithoutTheClient:
    @pytest.mark.parametrize("language", RAW)
    def test_hand_in_a_result_say_so_and_wait_for_a_word(self, start_sidecar: Any, language: str) -> None:
        program, file = RAW[language]
        for needed in (program[0], *(("curl",) if language == "bash" else ())):
            if shutil.which(needed) is None:
                pytest.skip(f"{needed} is not installed")
        command = msgspec.json.encode([*program, str(EXAMPLES / "raw" / file)]).decode()
        sidecar = start_sidecar(profiles=f'[profiles.raw-specialist]\ncommand = {command}\nrestart = "never"\n')
        agent_id = sidecar.spawn("raw-specialist")["agent_id"]
        counted = sidecar.wait_for("files_counted", f"publisher:{agent_id}")
        result = sidecar.operator.get(f"/api/results/{counted['data']['result_id']}").json()
        assert (result["status"], result["result"]["metrics"]["files"]) == ("success", 2)
        sidecar.operator.post("/api/events/go_on", json={"data": {"issue_id": "issue-1"}})
        ended = sidecar.wait_for("agent_exited", f"agent_id:{agent_id}")
        assert ended["data"]["exit_code"] == 0, ended
        said = sidecar.operator.get(f"/api/agents/{agent_id}/logs").json()["data"]
        assert "2 files" in said
        assert "operator said go on" in said


@pytest.fixture
def linkbook(tmp_path: Path) -> Path:
    """The project of the demo, before any agent came to it."""
    demo_project.make_project(tmp_path)
    return tmp_path


def design_of(linkbook: Path, task: str = demo_project.TASK) -> Design:
    files = [
        File(path=str(path.relative_to(linkbook)), content=path.read_text(), language="python")
        for path in sorted(linkbook.rglob("*.py"))
    ]
    design = chief_architect.decide("issue-1", task, files)
    return convert(msgspec.to_builtins(design), Design)  # as it comes out of an event


def build(linkbook: Path, design: Design) -> None:
    """The parts of the specialists and the tests of the test engineer."""
    (linkbook / design.file_of("sql-specialist")).write_text(sql_specialist.schema_of(design))
    (linkbook / design.file_of("python-specialist")).write_text(python_specialist.module_of(design))
    (linkbook / "tests" / "test_built.py").write_text(test_engineer.tests_of(design))


class TestTheTeam:
    def test_designs_from_the_fields_that_the_code_has(self, linkbook: Path) -> None:
        (linkbook / "linkbook" / "note.py").write_text(
            "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Note:\n"
            "    number: int\n    text: str\n    weight: float\n    people: tuple[str, ...] = ()\n"
            "    places: tuple[str, ...] = ()\n"
        )
        design = design_of(linkbook, "Keep each Note")
        assert (design.record, design.key, design.lists) == ("Note", "number", ("people", "places"))
        build(linkbook, design)
        outcome = test_engineer.run_tests(linkbook, design.package)
        assert (outcome.passed, outcome.tests) == (True, 8), outcome
        assert outcome.coverage["linkbook.store"] == 100.0

    def test_refuses_to_design_what_it_does_not_understand(self, linkbook: Path) -> None:
        with pytest.raises(LookupError, match="no dataclass"):
            design_of(linkbook, "Make it faster")

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("ORDER BY place", "ORDER BY value"),
            ("DELETE FROM link WHERE", "DELETE FROM link WHERE 0 AND"),
            ("WHERE value = ?", "WHERE value >= ?"),
            ("return None", "return Link(url, '')"),
        ],
    )
    def test_tests_find_a_store_that_is_wrong(self, linkbook: Path, right: str, wrong: str) -> None:
        design = design_of(linkbook)
        build(linkbook, design)
        store = linkbook / design.file_of("python-specialist")
        assert right in store.read_text()
        store.write_text(store.read_text().replace(right, wrong, 1))
        assert not test_engineer.run_tests(linkbook, design.package).passed

    def test_notices_a_module_that_a_crash_left_half_written(self, tmp_path: Path) -> None:
        path = tmp_path / "store.py"
        assert not python_specialist.is_half_written(path)
        path.write_text("def put")
        assert python_specialist.is_half_written(path)
        path.write_text("def put(): ...\n")
        assert not python_specialist.is_half_written(path)

    @pytest.mark.parametrize(
        ("source", "rule"),
        [
            ("eval(input())\n", "eval runs what it is given"),
            ("import subprocess\nsubprocess.run('ls', shell=True)\n", "subprocess.run goes through a shell"),
            ("db.execute(f'SELECT {x}')\n", "an SQL statement is put together"),
            ("db.execute('SELECT ' + x)\n", "an SQL statement is put together"),
            ("API_KEY = 'abcd1234efgh'\n", "a secret stands in the file"),
            ("def broken(:\n", "no Python: invalid syntax"),
        ],
    )
    def test_finds_what_should_not_be_there(self, tmp_path: Path, source: str, rule: str) -> None:
        (tmp_path / "code.py").write_text(source)
        findings = list(security_auditor.findings_in(tmp_path, "code.py"))
        assert [(finding.rule, finding.line) for finding in findings] == [(rule, source.count("\n"))]

    def test_has_nothing_against_its_own_work(self, linkbook: Path) -> None:
        build(linkbook, design_of(linkbook))
        names = security_auditor.project_files(linkbook)
        assert len(names) == 11
        assert [finding for name in names for finding in security_auditor.findings_in(linkbook, name)] == []


def test_the_readme_names_every_example() -> None:
    named = (EXAMPLES / "README.md").read_text()
    for path in (*EXAMPLES.glob("agents/*.py"), *EXAMPLES.glob("raw/*.*"), *EXAMPLES.glob("raw/*/main.*")):
        assert f"`{path.relative_to(EXAMPLES)}`" in named
    for path in EXAMPLES.glob("workflows/*.py"):
        assert path.stem == "stage" or f"sidecar.examples.workflows.{path.stem}`" in named
