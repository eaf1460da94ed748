"""What the README says is so: its settings are the documented ones, its links lead somewhere, its examples are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click import Context, Group

from sidecar.http.cli.main import main
from sidecar.http.config import Flags, load
from sidecar.state.identity import PERMISSIONS, TOPICS, AgentClass, Permission

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTING = re.compile(r"^\| (?:`(\[+[A-Za-z.]+\]+)`)? ?\| `(\w+)` \| (.*?) \|", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_its_table_of_settings_is_that_of_the_reference() -> None:
    shown, section = set(), ""
    for named, setting, default in SETTING.findall(README):
        section = named or section
        shown.add((section, setting, default))
    documented, section = set(), ""
    for line in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(\[+[A-Za-z.]+\]+)`", line):
            section = heading[1]
        elif section and (row := re.match(r"\| `([a-z_]+)` \| (.*?) \|", line)):
            documented.add((section, row[1], row[2]))
    assert shown == documented


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_every_link_leads_to_a_file_of_the_repository(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not (ROOT / page).parent.joinpath(t).exists()]
    assert not missing


def test_every_command_it_names_exists() -> None:
    assert isinstance(main, Group)
    code = "\n".join([*blocks("sh"), *re.findall(r"`[^`\n]+`", README)])
    named = set(re.findall(r"(?:^|`|\()sidecar ([a-z]+)", code, re.MULTILINE))
    assert {"serve", "token"} <= named
    assert named <= set(main.list_commands(Context(main)))


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_its_configuration_is_one(tmp_path: Path) -> None:
    (toml,) = blocks("toml")
    (tmp_path / "sidecar.toml").write_text(toml, encoding="utf-8")
    config = load(Flags(), {"XDG_STATE_HOME": str(tmp_path)}, working_dir=tmp_path)
    assert config.profiles.of("python-specialist").command == ("python", "agents/specialist.py")
    assert [trigger.on for trigger in config.triggers] == ["implementation_complete"]


def test_its_agent_is_python_that_uses_what_the_client_has() -> None:
    (python,) = blocks("python")
    compile(python, "README.md", "exec")
    from sidecar.http.sdk import Agent

    assert all(hasattr(Agent, name) for name in re.findall(r"agent\.(\w+)\(", python))


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_every_test_that_is_said_to_try_a_promise_exists(page: str) -> None:
    named = set(re.findall(r"`(tests/\w+\.py)`", (ROOT / "docs" / page).read_text(encoding="utf-8")))
    assert len(named) > 5
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_what_each_class_may_is_what_the_security_model_says() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("| class | contexts")[2].partition("\n\n")[0]
    shown = {}
    for classes, *rights in re.findall(r"^\| ([a-z, ]+) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE):
        shown |= dict.fromkeys(classes.split(", "), rights)
    for agent_class in AgentClass:
        may, topics = PERMISSIONS[agent_class], TOPICS[agent_class]
        named = "every topic" if topics is None else ", ".join(f"`{topic}`" for topic in sorted(topics))
        events = ", ".join(sorted(shown[agent_class][2].split(", "))) if topics is not None else shown[agent_class][2]
        assert [shown[agent_class][0], shown[agent_class][1], events, shown[agent_class][3]] == [
            "read" if Permission.READ_CONTEXT in may else "no",
            "write" if Permission.WRITE_RESULTS in may else "no",
            named,
            "yes" if Permission.SPAWN_AGENTS in may else "no",
        ]


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text(encoding="utf-8")
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([^)#]+)", index))


def test_every_file_that_the_architecture_page_names_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folder, missing, count = "", [], 0
    for line in page.splitlines():
        if row := re.match(r"\| `(\w+/)` \|", line):
            folder = row[1]
        elif line.startswith("## "):
            folder = ""
        for name in re.findall(r"`(\w+(?:/\w+)*\.(?:py|md|yml)|\w+(?:/\w+)*/)`", line):
            count += 1
            if not ((ROOT / name).exists() or (ROOT / folder / name).exists()):
                missing.append(name)
    assert missing == []
    assert count > 100
