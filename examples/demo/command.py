"""`sidecar demo`: a team of agents finishes a piece of work before your eyes."""

from __future__ import annotations

import click


@click.command()
@click.option("--keep", is_flag=True, help="Keep the server and the project, and say how to explore them.")
def demo(keep: bool) -> None:
    """Watch a team of agents finish a piece of work.

    In a scratch project, with a real sidecar: an architect makes the decisions, a Python and an SQL specialist start
    in parallel on its event, and a test engineer, a security auditor and a documentation expert follow. One of them
    crashes on its first run, on purpose. Nothing is left behind. Exit code 0 only if every agent completed.

    \b
    Example: sidecar demo --keep
    """
    from sidecar.examples.demo.run import run

    raise SystemExit(run(keep=keep))
