"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

storage_option = click.option(
    "--storage",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SIDECAR_STORAGE",
    show_envvar=True,
    help="Storage directory of the sidecar.  [default: the one of the project here]",
)
project_option = click.option("--project", metavar="ID", help="Act in this project.  [default: the token's]")


def format_option_for(json: str) -> Callable[[F], F]:
    """An option `--format`. json: what that format holds."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        show_default=True,
        help=f"json: {json}; csv: exact values, for other programs.",
    )


format_option = format_option_for("the server's whole answer")
