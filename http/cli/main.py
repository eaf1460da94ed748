"""The command `sidecar`. Each subcommand is imported when it is asked for, so that `serve` starts quickly."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, cast

import click
from click.shell_completion import CompletionItem

from ... import __version__
from .commands import Commands


class Subcommand(NamedTuple):
    """A command that is not imported yet. module: below the package `sidecar`. help: the first sentence of its own."""

    module: str
    help: str


SUBCOMMANDS = {
    "serve": Subcommand("http.cli.serve", "Run the sidecar of a project until it is stopped."),
    "stop": Subcommand("http.cli.stop", "Stop the sidecar of the project here, and its agents."),
    "status": Subcommand("http.cli.server", "Show the checks and the numbers of the sidecar."),
    "token": Subcommand("http.cli.token", "Print a token and nothing else."),
    "actors": Subcommand("http.cli.server", "Show the sidecar's actors: state, mailbox, failures, restarts."),
    "dashboard": Subcommand("http.cli.server", "Open the dashboard in a browser, already logged in."),
    "agent": Subcommand("http.cli.agents", "Spawn, inspect, stop and restart agents."),
    "context": Subcommand("http.cli.context", "Show the context that an agent would get, or clear its cache."),
    "results": Subcommand("http.cli.results", "Store, list and get the results of agents."),
    "events": Subcommand("http.cli.events", "Publish, follow and list events."),
    "audit": Subcommand("http.cli.audit", "See who did what, and verify that the trail is complete."),
    "top": Subcommand("http.cli.top", "Watch agents, actors, numbers and events, live."),
    "doctor": Subcommand("http.cli.storage", "Find problems that may keep the sidecar from working."),
    "backup": Subcommand("http.cli.storage", "Copy the storage into a new FILE, also while the server runs."),
    "restore": Subcommand("http.cli.storage", "Restore the backup FILE into an empty or new storage."),
    "demo": Subcommand("examples.demo.command", "Watch a team of agents finish a piece of work."),
}


class LazyCommands(Commands):
    """The command `sidecar`: imports a subcommand when it is asked for; its own help and completion import none.

    Source: click's documentation, "Lazily Loading Subcommands".
    """

    def list_commands(self, _: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module = import_module(f"...{SUBCOMMANDS[cmd_name].module}", __package__)
        return cast(click.Command, getattr(module, cmd_name))

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help.removesuffix(".")) for name, command in SUBCOMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [
            CompletionItem(name, help=command.help)
            for name, command in SUBCOMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="sidecar")
def main() -> None:
    """One server next to a fleet of coding agents: it spawns and supervises them, builds their context, keeps their
    results and carries their events.

    \b
    Start here:
      sidecar demo                 watch a team of agents finish a piece of work
      sidecar serve                run the sidecar of the project in this directory
      sidecar status               see how it is doing

    The server is found by --url or SIDECAR_URL, else by the storage directory of the project in this directory, where
    a running sidecar writes its URL. The token is taken from --token or JWT_TOKEN, else one is made from the storage
    directory. Unless you name both, the server must first prove that it is the sidecar of that storage. These go by the
    storage directory, --storage or SIDECAR_STORAGE, and not by a URL: stop, token, audit verify, doctor, backup,
    restore.

    \b
    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server found.
    Completion: eval "$(_SIDECAR_COMPLETE=bash_source sidecar)" (or zsh, fish).
    """


if __name__ == "__main__":
    main(prog_name="sidecar")
