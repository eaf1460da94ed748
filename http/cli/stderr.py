"""What commands say to people on standard error."""

from __future__ import annotations

import click

from ..visible import one_line


def tell(line: str) -> None:
    """One line on standard error; agents' text in it steers no terminal."""
    click.echo(one_line(line), err=True)
