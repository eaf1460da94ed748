"""Groups of commands: how errors become one line on standard error, and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

import click

from ...state.errors import SidecarError
from ..visible import lines
from .cannot_run import say_why_it_cannot_run
from .stderr import tell

REFUSED, USAGE, NO_SERVER = 1, 2, 3

# Errors of a storage, a backup or a socket are raised as the sidecar's own; these are of standard output.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE}


class Commands(click.Group):
    """Commands that may raise the sidecar's errors: the message goes to standard error, the code sets the exit code.

    The same holds for a file that cannot be read, a standard output that cannot be written, such as one on a full
    disk, arguments that are not UTF-8, and memory that runs out.
    """

    def main(self, *args: Any, **more: Any) -> Any:
        _write_escapes_for_what_cannot_be_written()
        try:
            try:
                return super().main(*args, **more)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()  # else it is tried at the interpreter's end, where nobody can catch what fails
        except OSError as error:
            if error.filename is not None:
                tell(f"Error: {error.filename}: {error.strerror}")
                raise SystemExit(REFUSED) from None
            if error.errno not in _UNWRITABLE:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer must not fail again at the end
            if not isinstance(error, BrokenPipeError):
                with suppress(OSError):  # standard error may be on the same disk
                    tell(f"Error: standard output cannot be written: {error.strerror}")
            raise SystemExit(REFUSED) from None
        except (MemoryError, ImportError) as error:
            say_why_it_cannot_run(error)
            raise SystemExit(REFUSED) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # It may quote an argument that an agent chose.
            raise click.UsageError(lines(error.format_message()), error.ctx) from None
        except UnicodeEncodeError as error:
            # Bytes that are not UTF-8; only names of files may hold such.
            raise click.UsageError(f"{error.object[:100]!r} is not UTF-8") from None
        except SidecarError as error:
            named = [str(error.details[name]) for name in ("wire_code", "request_id") if error.details.get(name)]
            code = f" ({', request '.join(named)})" if named else ""
            tell(f"Error: {error.message}{_hint(error)}{code}")
            ctx.exit({"no_server": NO_SERVER, "config": USAGE}.get(error.code, REFUSED))


def _write_escapes_for_what_cannot_be_written() -> None:
    """Escape characters that the output cannot hold, such as in Latin-1, and file names that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hint(error: SidecarError) -> str:
    """Advice in addition to the message: the expected value, or how to start a server."""
    if error.code == "no_server" and "`sidecar serve`" not in error.message and "--url" not in error.message:
        return "; start it with `sidecar serve`, or name another with --url"
    if error.code == "token_expired":
        return "; mint another with `sidecar token`, or leave --token and JWT_TOKEN out"
    if error.code == "storage_in_use" and "`sidecar " not in error.message:
        return "; if that is a sidecar, `sidecar stop` ends it"
    expected = error.details.get("expected")
    if not error.details.get("wire_code") or not expected or str(expected) in error.message:
        return ""
    return f"; expected {', '.join(map(str, expected)) if isinstance(expected, list) else expected}"
