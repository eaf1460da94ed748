"""`sidecar demo`: a team of agents finishes a piece of work before your eyes."""

from __future__ import annotations

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave the server and the project, and say how to look at them.")
def demo(keep: bool) -> None:
    """Watch a team of agents finish a piece of work.

    In a scratch project, under a real sidecar: an architect decides; a Python and an SQL specialist write in parallel
    on its event; a test engineer tests, a security auditor scans, a documentation expert documents. One of them
    crashes on its first run, on purpose. Nothing is left behind. Exit code 0 only if every agent completed.

    \b
    Example: sidecar demo --keep
    """
    from sidecar.examples.demo.run import run

    raise SystemExit(run(keep=keep))
