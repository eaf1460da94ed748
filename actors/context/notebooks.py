"""Turns notebooks into text: their cells without the outputs, which are pictures and tables. Pure."""

from __future__ import annotations

import msgspec

from ...state import typed


class _Cell(msgspec.Struct, frozen=True):
    cell_type: str = ""
    source: str | list[str] = ""


class _Notebook(msgspec.Struct, frozen=True):
    """A notebook. Fields that are not named here, such as outputs, are skipped without being decoded."""

    cells: list[_Cell]


def cells_of(text: str) -> str | None:
    """The cells in the percent format, prose as comments, or None if it is no notebook of version 4."""
    try:
        notebook = typed.decode(text, _Notebook)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return "\n".join(map(_shown, notebook.cells))


def _shown(cell: _Cell) -> str:
    source = (cell.source if isinstance(cell.source, str) else "".join(cell.source)).rstrip()
    if cell.cell_type == "code":
        return f"# %%\n{source}\n"
    lines = "".join(f"# {line}".rstrip() + "\n" for line in source.split("\n"))
    return f"# %% [{'raw' if cell.cell_type == 'raw' else 'markdown'}]\n{lines}"
