"""What the README says is so: its settings are the documented ones, its links lead somewhere, its examples are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click import Group

from sidecar.http.cli.main import main
from sidecar.http.config import Flags, load

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
    assert named <= set(main.commands)


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
