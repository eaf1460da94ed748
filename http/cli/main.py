"""The command `sidecar`. Modules that take long to import are imported by the commands that need them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import MutableMapping
from importlib import import_module
from typing import cast

import click

from ... import __version__
from .connection import Commands

MODULES = {
    "serve": "serve",
    "stop": "server",
    "status": "server",
    "token": "server",
    "actors": "server",
    "dashboard": "server",
    "agent": "agents",
    "context": "context",
    "results": "results",
    "events": "events",
    "audit": "audit",
    "top": "top",
    "doctor": "storage",
    "backup": "storage",
    "restore": "storage",
    "demo": "demo",
}


class _OnDemand(UserDict[str, str]):
    """Commands by name, each imported when somebody wants it."""

    def __getitem__(self, name: str) -> click.Command:  # type: ignore[override]  # the module goes in, what is in it comes out
        return cast(click.Command, getattr(import_module(f".{super().__getitem__(name)}", __package__), name))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sidecar")
def main() -> None:
    """One server next to a fleet of coding agents: it spawns and supervises them, builds their context, keeps their
    results and carries their events.

    \b
    Begin here:
      sidecar demo                 watch a team of agents finish a piece of work
      sidecar serve                run the sidecar of the project in this directory
      sidecar status               see how it is

    The server is found by --url or SIDECAR_URL, else by the storage directory of the project that this directory is
    in, where a sidecar that runs leaves its URL; the token by --token or JWT_TOKEN, else one is made from the storage
    directory. Unless you name both, the server must first prove that it is the sidecar of that storage. These go by the
    storage directory, --storage or SIDECAR_STORAGE, and not by a URL: stop, token, audit verify, doctor, backup,
    restore.

    \b
    Exit codes: 0 done, 1 the server said no, 2 wrong usage, 3 no server there.
    Completion: eval "$(_SIDECAR_COMPLETE=bash_source sidecar)" (or zsh, fish).
    """


main.commands = cast(MutableMapping[str, click.Command], _OnDemand(MODULES))


if __name__ == "__main__":
    main(prog_name="sidecar")
