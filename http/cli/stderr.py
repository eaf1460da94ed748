"""Prints lines for people on standard error."""

from __future__ import annotations

import click

from ..visible import one_line


def tell(line: str) -> None:
    """Print one line on standard error, with control characters escaped."""
    click.echo(one_line(line), err=True)
