"""`sidecar stop`: stops a running server."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from .commands import NO_SERVER, REFUSED
from .here import holder_of_lock, storage_of
from .options import storage_option
from .stderr import tell

STOPPED_WITHIN_S = 15.0  # a server drains for up to 10 s


@click.command()
@storage_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=STOPPED_WITHIN_S,
    show_default=True,
    help="Seconds to wait for it to exit.",
)
def stop(storage: Path | None, timeout: float) -> None:
    """Stop the sidecar of the project here, and its agents.

    Returns when it has ended.

    \b
    Example: sidecar stop --storage /srv/sidecar/shop
    """
    path = storage_of(storage)
    pid = holder_of_lock(path)
    if pid is None:
        tell(f"Error: no sidecar runs with storage {path}")
        raise SystemExit(NO_SERVER)
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        tell(f"Error: process {pid} belongs to another user; only that user, or root, can stop it")
        raise SystemExit(REFUSED) from None
    except ProcessLookupError:
        pass  # it has just ended
    deadline = time.monotonic() + timeout
    while holder_of_lock(path) == pid:
        if time.monotonic() > deadline:
            tell(f"Error: process {pid} has not ended within {timeout:g} s")
            raise SystemExit(REFUSED)
        time.sleep(0.05)
    click.echo(f"stopped process {pid}")
