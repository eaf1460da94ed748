"""Security auditor: reads every file of the project for what should not be there, and reports it with its line."""

from __future__ import annotations

import ast
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sidecar.examples.agents.workbench import Stopwatch, command, finish, log, root_of, run
from sidecar.http.sdk import Agent

_SECRET = re.compile(
    r"""(?i)\b(password|secret|api_?key|token)\b\s*[:=]\s*["'][^"'\s]{8,}["']|-----BEGIN [A-Z ]*PRIVATE KEY"""
)
_RUNS_TEXT = {"eval", "exec", "os.system", "os.popen", "pickle.loads", "pickle.load", "yaml.load", "marshal.loads"}
_MAX_BYTES = 1_000_000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    path: str
    line: int
    severity: str


def work(agent: Agent) -> None:
    watch = Stopwatch()
    root = root_of(agent)
    context = agent.context(requirements=["security_policies", "previous_decisions", "project_structure"])
    policies = [file.path for file in context.files if "security" in file.path.lower()]
    log.info("policies: %s", ", ".join(policies) or "the project has none")
    names = project_files(root)
    findings = [finding for name in names for finding in findings_in(root, name)]
    for finding in findings:
        log.info("%s %s:%d %s", finding.severity, finding.path, finding.line, finding.rule)
    grave = [finding for finding in findings if finding.severity == "high"]
    finish(
        agent,
        "security_audit_complete",
        watch=watch,
        status="failed" if grave else "success",
        decisions=[f"{len(names)} files read, {len(findings)} findings, {len(grave)} of them grave"],
        metrics={"files_scanned": len(names), "findings": len(findings)},
        warnings=[f"{f.path}:{f.line} {f.rule}" for f in findings],
        artifacts={"findings": msgspec.to_builtins(findings), "policies": policies},
        data={"findings": len(findings), "files_scanned": len(names)},
    )


def project_files(root: Path) -> list[str]:
    """What is tracked, and what is new and not ignored."""
    listed = command(root, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed.returncode != 0:
        raise RuntimeError(f"git ls-files: {listed.stderr.strip()}")
    return sorted(name for name in listed.stdout.split("\0") if name and (root / name).is_file())


def findings_in(root: Path, name: str) -> Iterator[Finding]:
    """Everything one file is accused of."""
    path = root / name
    if path.stat().st_mode & stat.S_IWOTH:
        yield Finding(rule="anyone on this machine may write it", path=name, line=1, severity="medium")
    if path.stat().st_size > _MAX_BYTES:
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    for match in _SECRET.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Finding(rule="a secret stands in the file", path=name, line=line, severity="high")
    if name.endswith(".py"):
        yield from _findings_in_python(name, text)


def _findings_in_python(name: str, text: str) -> Iterator[Finding]:
    try:
        tree = ast.parse(text, name)
    except SyntaxError as error:
        yield Finding(rule=f"no Python: {error.msg}", path=name, line=error.lineno or 1, severity="high")
        return
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        if called in _RUNS_TEXT:
            yield Finding(rule=f"{called} runs what it is given", path=name, line=call.lineno, severity="high")
        if any(keyword.arg == "shell" and ast.unparse(keyword.value) == "True" for keyword in call.keywords):
            yield Finding(rule=f"{called} goes through a shell", path=name, line=call.lineno, severity="high")
        if called.rpartition(".")[2] in ("execute", "executemany") and call.args and not _is_constant(call.args[0]):
            yield Finding(rule="an SQL statement is put together", path=name, line=call.lineno, severity="high")


def _is_constant(statement: ast.expr) -> bool:
    return isinstance(statement, ast.Constant)


if __name__ == "__main__":
    run(work)
