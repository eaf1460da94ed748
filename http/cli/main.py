"""The command `sidecar`. Modules that take long to import are imported by the commands that need them."""

from __future__ import annotations

import click

from ... import __version__
from .agents import agent
from .audit import audit
from .connection import Commands
from .context import context
from .demo import demo
from .events import events
from .results import results
from .server import actors, dashboard, serve, status, stop, token
from .storage import backup, doctor, restore
from .top import top


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sidecar")
def main() -> None:
    """One server beside a fleet of coding agents: it spawns and supervises them, builds their context, keeps their
    results and carries their events.

    \b
    Begin here:
      sidecar demo                 watch a team of agents finish a piece of work
      sidecar serve                run the sidecar of the project in this directory
      sidecar status               see how it is

    The server is found by --url or SIDECAR_URL, else by the settings of the project in this directory; the token by
    --token or JWT_TOKEN, else one is made from the storage directory. Exit codes: 0 done, 1 the server said no,
    2 wrong usage, 3 no server there. Completion: eval "$(_SIDECAR_COMPLETE=bash_source sidecar)" (or zsh, fish).
    """


for command in (
    serve,
    stop,
    status,
    token,
    agent,
    context,
    results,
    events,
    actors,
    audit,
    top,
    dashboard,
    doctor,
    backup,
    restore,
    demo,
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="sidecar")
