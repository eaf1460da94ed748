"""The project of the demo: a small Python package under git, before any agent came to it, and its sidecar.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT_ID = "linkbook"
ISSUE_ID = "issue-1"
TASK = "Keep every Link in a database, so that links survive a restart and can be found by tag"
AGENTS = Path(__file__).resolve().parents[1] / "agents"

_FILES = {
    "README.md": """\
# linkbook

Links worth keeping, with tags.
""",
    "SECURITY.md": """\
# Security policy

- No SQL statement is put together from text; values come in as parameters.
- No secret stands in a file.
""",
    "pyproject.toml": """\
[project]
name = "linkbook"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = []
""",
    ".gitignore": "__pycache__/\n.venv/\n.env\n",
    "linkbook/__init__.py": '"""Links worth keeping, with tags."""\n',
    "linkbook/link.py": '''\
"""What a link is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A page worth finding again. tags: as its reader wrote them, in their order."""

    url: str
    title: str
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.url.strip():
            raise ValueError("a link needs a url")
''',
    "tests/__init__.py": "",
    "tests/test_link.py": '''\
"""What a link promises."""

import unittest

from linkbook.link import Link


class LinkPromises(unittest.TestCase):
    def test_a_link_needs_a_url(self):
        with self.assertRaises(ValueError):
            Link(url=" ", title="nowhere")
''',
}

# The environment of the drill is in the profile, for all to see: nothing else in the demo is staged.
_CONFIGURATION = """\
# Who runs for which agent type, and which event starts whom.

[projects.{project_id}]
root = {root}

{profiles}
[profiles.python-specialist]
command = {python_specialist}
env = {{ CRASH_DRILL = "first-run" }}   # it kills itself once, in the middle of its work

[[triggers]]
on = "architecture_defined"
spawn = "python-specialist"

[[triggers]]
on = "architecture_defined"
spawn = "sql-specialist"

[[triggers]]
on = "testing_complete"
filter = "status:success"
spawn = "security-auditor"

[[triggers]]
on = "security_audit_complete"
filter = "status:success"
spawn = "documentation-expert"
"""

_OTHERS = ("chief-architect", "sql-specialist", "test-engineer", "security-auditor", "documentation-expert")
TEAM = (*_OTHERS[:1], "python-specialist", *_OTHERS[1:])


def make_project(root: Path) -> None:
    """Write the project's files and commit them."""
    for name, content in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    _git(root, "init", "--quiet", "--initial-branch", "main")
    _git(root, "add", "--all")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    _git(root, *who, "commit", "--quiet", "--message", "Say what a link is")


def write_configuration(path: Path, root: Path) -> None:
    """The sidecar.toml of the demo: each type's command is an agent of the examples."""
    profiles = "\n".join(f"[profiles.{name}]\ncommand = {_command(name)}\n" for name in _OTHERS)
    path.write_text(
        _CONFIGURATION.format(
            project_id=PROJECT_ID,
            root=_quoted(str(root)),
            profiles=profiles,
            python_specialist=_command("python-specialist"),
        ),
        encoding="utf-8",
    )


def _command(agent_type: str) -> str:
    script = AGENTS / f"{agent_type.replace('-', '_')}.py"
    return f"[{_quoted(sys.executable)}, {_quoted(str(script))}]"


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, timeout=30)
