"""`sidecar serve`: the server itself. Agents wait for its start, so little is imported for it."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

from .here import working_dir
from .options import storage_option


@click.command()
@click.option("--host", help="Address to listen on.  [env: SIDECAR_HOST; default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 picks a free port.  [env: SIDECAR_PORT; default: 3001]")
@storage_option
@click.option(
    "--project-root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Root folder of the project.  [env: SIDECAR_PROJECT_ROOT; default: here]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file.  [env: SIDECAR_CONFIG; default: sidecar.toml of the project, if there is one]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Log level.  [env: SIDECAR_LOG_LEVEL; default: info]",
)
def serve(
    host: str | None,
    port: int | None,
    storage: Path | None,
    project_root: Path | None,
    config: Path | None,
    log_level: str | None,
) -> None:
    """Run the sidecar of a project until it is stopped.

    Works in any git project without configuration; sidecar.toml maps agent types to commands. The start-up message
    names the URL. SIGTERM or Ctrl-C shuts it down: waiting requests are answered, agents are stopped.

    \b
    Example: sidecar serve --project-root ~/src/shop --port 0
    """
    # Nothing that is made until it listens is garbage; `serve` collects from then on.
    gc.disable()
    from .. import serve as server
    from ..config import Flags, load

    flags = Flags(host=host, port=port, storage=storage, project_root=project_root, config=config, log_level=log_level)
    raise SystemExit(server.serve(load(flags, os.environ, working_dir=working_dir())))
