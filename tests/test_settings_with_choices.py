"""Every page that lists settings names every value of a setting that has a choice of values, such as `restart`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from sidecar.supervision.restart import RestartType
from tests.test_configuration import SECTIONS, section_of

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| *(?:`\[+([a-zA-Z.]+)\]+`)? *\| `(\w+)` \|.*$", re.MULTILINE)


def choices() -> list[tuple[str, str, tuple[str, ...]]]:
    """Section, setting and values of each setting whose type is a Literal."""
    found = []
    for section, options in SECTIONS.items():
        hints = get_type_hints(options)
        for field in msgspec.structs.fields(options):
            values = get_args(hints[field.name])
            if values and all(isinstance(value, str) for value in values):
                found.append((section, field.encode_name, values))
    return found


def rows_of_readme() -> dict[tuple[str, str], str]:
    """The rows of the table of settings; only the first row of a section names it."""
    rows, section = {}, ""
    for row in ROW.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        section = row[1] or section
        rows[section, row[2]] = row[0]
    return rows


def test_there_are_such_settings() -> None:
    assert ("profiles.NAME", "restart", get_args(RestartType)) in choices()
    assert {name for _, name, _ in choices()} >= {"restart", "strategy", "durability", "on_shutdown", "log_level"}


@pytest.mark.parametrize(("section", "name", "values"), choices())
def test_the_tables_name_each_value(section: str, name: str, values: tuple[str, ...]) -> None:
    page = section_of((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"), section)
    (of_page,) = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
    for row in (of_page, rows_of_readme()[section, name]):
        assert [value for value in values if f"`{value}`" not in row.replace('"', "")] == []


@pytest.mark.parametrize("restart", get_args(RestartType))
def test_the_page_on_supervision_explains_each_value_of_restart(restart: str) -> None:
    page = (ROOT / "docs" / "supervision.md").read_text(encoding="utf-8")
    section = page.partition("## When an agent is restarted")[2].partition("\n## ")[0]
    assert f'"{restart}"`' in section
