"""Documentation expert: writes the API page from the code itself, tries its example, and commits the team's work."""

from __future__ import annotations

import ast
from pathlib import Path

from sidecar.examples.agents.workbench import (
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
from sidecar.http.sdk import Agent, Context


def work(agent: Agent) -> None:
    watch = Stopwatch()
    root, design = root_of(agent), await_design(agent)
    context = agent.context()
    page = write(root, "docs/api.md", api_page(root, design))
    example = example_of(design)
    tried = command(root, interpreter(root), "-c", example)
    if tried.returncode != 0:
        raise RuntimeError(f"the example of the README does not run: {tried.stderr.strip()}")
    log.info("the example prints %s", tried.stdout.strip())
    readme = write(root, "README.md", with_usage(root / "README.md", example, tried.stdout, context))
    commit = commit_all(root, f"{design.decision} ({design.issue_id})")
    finish(
        agent,
        "documentation_complete",
        watch=watch,
        decisions=[f"Documented {design.record}Store from its code, committed as {commit}"],
        files_created=[page],
        files_modified=[readme],
        metrics={"results_read": len(context.outputs)},
        data={"commit": commit},
    )


def api_page(root: Path, design: Design) -> str:
    """Every public class and method of the design's modules, with its signature and first sentence."""
    lines = [f"# {design.package}", ""]
    for name in (design.module.replace(".", "/") + ".py", design.file_of("python-specialist")):
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        for found in tree.body:
            if isinstance(found, ast.ClassDef):
                lines += [f"## {found.name}", "", _summary(found), ""]
                methods = [_method(method) for method in found.body if isinstance(method, ast.FunctionDef)]
                lines += [line for line in methods if line]
                lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def example_of(design: Design) -> str:
    """A few lines that use the store; they are run before they are published."""
    sample: dict[str, object] = {"int": 1, "float": 1.5, "bool": True}
    fields = {name: sample.get(kind, f"a {name}") for name, kind in design.columns}
    fields |= dict.fromkeys(design.lists, ("one", "two"))
    arguments = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return (
        f"from {design.module} import {design.record}\n"
        f"from {design.package}.store import {design.record}Store\n\n"
        f'store = {design.record}Store(":memory:")\n'
        f"store.put({design.record}({arguments}))\n"
        f"print(store.get({fields[design.key]!r}))\n"
    )


def with_usage(readme: Path, example: str, printed: str, context: Context) -> str:
    """The README with its Usage section written again, and the contributors."""
    before = readme.read_text(encoding="utf-8").partition("\n## Usage\n")[0].rstrip()
    authors = ", ".join(sorted({output.agent_type for output in context.outputs if output.agent_type}))
    return f"{before}\n\n## Usage\n\n```python\n{example}```\n\nprints `{printed.strip()}`.\n\nWritten by {authors}.\n"


def commit_all(root: Path, message: str) -> str:
    """Commit what the team wrote; returns the short hash."""
    who = ("-c", "user.name=documentation-expert", "-c", "user.email=documentation-expert@localhost")
    for arguments in (("add", "--all"), (*who, "commit", "--quiet", "--message", message)):
        done = command(root, "git", *arguments)
        if done.returncode != 0:
            raise RuntimeError(f"git {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return command(root, "git", "rev-parse", "--short", "HEAD").stdout.strip()


def _summary(found: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(found) or "").partition("\n")[0]


def _method(method: ast.FunctionDef) -> str:
    if method.name.startswith("_") and method.name != "__init__":
        return ""
    returns = f" -> {ast.unparse(method.returns)}" if method.returns else ""
    said = _summary(method)
    return f"- `{method.name}({ast.unparse(method.args)}){returns}`" + (f": {said}" if said else "")


if __name__ == "__main__":
    run(work)
