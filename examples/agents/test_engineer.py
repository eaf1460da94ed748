"""Test engineer: waits until every part of the design is written, writes tests for it and really runs them."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

import msgspec

from sidecar.examples.agents.workbench import (
    DECISION_WITHIN_S,
    Design,
    Stopwatch,
    await_design,
    command,
    finish,
    interpreter,
    log,
    root_of,
    run,
    write,
)
from sidecar.http.sdk import Agent

TESTS = ("-m", "unittest", "discover", "-s", "tests", "-t", ".")


class TestRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the whole suite came to. coverage: percent of each module's lines that were executed."""

    passed: bool
    tests: int
    last_line: str
    coverage: dict[str, float]

    @property
    def percent(self) -> float:
        return round(sum(self.coverage.values()) / len(self.coverage), 1) if self.coverage else 0.0


def work(agent: Agent) -> None:
    watch = Stopwatch()
    root, design = root_of(agent), await_design(agent)
    await_parts(agent, {part.agent_type for part in design.components})
    name = write(root, f"tests/test_{design.table}_store.py", tests_of(design))
    outcome = run_tests(root, design.package)
    report = write(root, "coverage.xml", as_cobertura(outcome.coverage))
    log.info("%s, %.1f %% of the lines executed", outcome.last_line, outcome.percent)
    finish(
        agent,
        "testing_complete",
        watch=watch,
        status="success" if outcome.passed else "failed",
        decisions=[f"{outcome.tests} tests: {outcome.last_line}"],
        files_created=[name, report],
        metrics={"tests": outcome.tests, "test_coverage": outcome.percent},
        errors=[] if outcome.passed else [outcome.last_line],
        data={"tests": outcome.tests, "coverage": outcome.percent},
    )
    if not outcome.passed:
        raise SystemExit(1)


def await_parts(agent: Agent, agent_types: set[str]) -> None:
    """Return when each of these types has said that its part is written."""
    missing = set(agent_types)
    deadline = time.monotonic() + DECISION_WITHIN_S
    while missing:
        batch = agent.wait(
            "implementation_complete",
            filter=f"issue_id:{agent.issue_id},status:success",
            timeout_s=max(0.0, deadline - time.monotonic()),
        )
        if not batch.events:
            raise TimeoutError(f"not written within {DECISION_WITHIN_S:g} s: the parts of {', '.join(sorted(missing))}")
        for event in batch.events:
            missing.discard(event.publisher_type)
            log.info("%s is ready, %s", event.publisher_type, f"{len(missing)} to come" if missing else "that is all")


def run_tests(root: Path, package: str) -> TestRun:
    """The whole suite with the project's own interpreter: once for the verdict, once more to count lines."""
    python = interpreter(root)
    verdict = command(root, python, *TESTS)
    said = verdict.stderr.strip().splitlines()
    ran = re.search(r"^Ran (\d+) tests?", verdict.stderr, re.MULTILINE)
    if verdict.returncode != 0:
        print(verdict.stderr)
    with tempfile.TemporaryDirectory() as counts:
        options = ("--count", "--missing", "--summary", f"--coverdir={counts}")
        traced = command(root, python, "-m", "trace", *options, "--module", *TESTS[1:])
    return TestRun(
        passed=verdict.returncode == 0,
        tests=int(ran.group(1)) if ran else 0,
        last_line=said[-1] if said else "no output",
        coverage=coverage_in(traced.stdout, package),
    )


def coverage_in(summary: str, package: str) -> dict[str, float]:
    """Percent by module, of the modules of `package`, from what `python -m trace --summary` prints."""
    lines = re.findall(r"^ *\d+ +(\d+)% +(\S+) ", summary, re.MULTILINE)
    return {module: float(percent) for percent, module in lines if module.startswith(f"{package}.")}


def as_cobertura(coverage: dict[str, float]) -> str:
    """The report that CI systems read."""
    total = sum(coverage.values()) / len(coverage) / 100 if coverage else 0.0
    classes = "".join(
        f'      <class name="{module}" filename="{module.replace(".", os.sep)}.py" line-rate="{percent / 100:.4f}"/>\n'
        for module, percent in sorted(coverage.items())
    )
    return (
        '<?xml version="1.0"?>\n'
        f'<coverage line-rate="{total:.4f}" branch-rate="0" version="1" timestamp="{int(time.time())}">\n'
        f'  <packages><package name="." line-rate="{total:.4f}"><classes>\n{classes}'
        "  </classes></package></packages>\n</coverage>\n"
    )


def tests_of(design: Design) -> str:
    """Tests of the store's promises: what is put comes back, one key has one record, and text is never code."""
    record, key = design.record, design.key
    hostile = "'; DROP TABLE " + design.table + "; --"
    first = _call(design, number=1, several=("red", "blue"))
    second = _call(design, number=2, several=("blue",))
    lines = [
        f'"""What {record}Store promises."""',
        "",
        "import dataclasses",
        "import unittest",
        "",
        f"from {design.module} import {record}",
        f"from {design.package}.store import {record}Store",
        "",
        f"ONE = {first}",
        f"TWO = {second}",
        "",
        "",
        f"class {record}StorePromises(unittest.TestCase):",
        "    def setUp(self):",
        f'        self.store = {record}Store(":memory:")',
        "        self.addCleanup(self.store.close)",
        "",
        "    def test_what_was_put_comes_back_as_it_was(self):",
        "        self.store.put(ONE)",
        f"        self.assertEqual(self.store.get(ONE.{key}), ONE)",
        "",
        "    def test_what_was_never_put_is_none(self):",
        f"        self.assertIsNone(self.store.get(ONE.{key}))",
        "",
        "    def test_the_same_key_replaces_and_leaves_nothing_behind(self):",
        "        self.store.put(ONE)",
        f"        changed = dataclasses.replace(TWO, {key}=ONE.{key})",
        "        self.store.put(changed)",
        f"        self.assertEqual(self.store.get(ONE.{key}), changed)",
    ]
    for field in design.lists:
        finder = f"with_{field.removesuffix('s')}"
        lines += [
            "",
            f"    def test_{finder}_finds_every_record_that_has_it_and_no_other(self):",
            "        self.store.put(ONE)",
            "        self.store.put(TWO)",
            f'        self.assertEqual(self.store.{finder}("blue"), [ONE, TWO])',
            f'        self.assertEqual(self.store.{finder}("red"), [ONE])',
            f'        self.assertEqual(self.store.{finder}("green"), [])',
            "",
            f"    def test_{field}_are_text_and_never_code(self):",
            f"        hostile = dataclasses.replace(ONE, {field}=({hostile!r},))",
            "        self.store.put(hostile)",
            f"        self.assertEqual(self.store.{finder}({hostile!r}), [hostile])",
        ]
    lines += ["", "", 'if __name__ == "__main__":', "    unittest.main()", ""]
    return "\n".join(lines)


def _call(design: Design, *, number: int, several: tuple[str, ...]) -> str:
    sample: dict[str, object] = {"int": number, "float": number + 0.5, "bool": number % 2 == 1}
    fields = {name: sample.get(kind, f"{name} {number}") for name, kind in design.columns}
    fields |= dict.fromkeys(design.lists, several)
    return f"{design.record}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


if __name__ == "__main__":
    run(work)
