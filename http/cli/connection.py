"""How commands find the server and a token, and what their exit codes mean."""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ...state.clock import utc_now
from ...state.errors import ConfigError, SidecarError, TokenExpired, Unauthorized
from ..visible import lines
from .stderr import tell

if TYPE_CHECKING:
    from ...state.identity import TokenKey
    from ..client.client import Client


F = TypeVar("F", bound=Callable[..., Any])

REFUSED, USAGE, NO_SERVER = 1, 2, 3

# Where a storage, a backup or a socket fails, that is told as one of the sidecar's errors.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE}

TOKEN_TTL_S = 86_400  # `events subscribe --continuous` and `top` outlive an hour


class Commands(click.Group):
    """Commands that may raise the sidecar's errors: the text goes to standard error, the kind to the exit code.

    So does a file that cannot be read, a standard output that cannot be written, such as one on a full disk, and text
    that is no text.
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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # It may quote an argument that an agent chose.
            raise click.UsageError(lines(error.format_message()), error.ctx) from None
        except UnicodeEncodeError as error:
            # Bytes of an argument that are none; only names of files may hold such.
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
    return f"; expected {', '.join(expected) if isinstance(expected, list) else expected}"


storage_option = click.option(
    "--storage",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SIDECAR_STORAGE",
    show_envvar=True,
    help="Storage directory of the sidecar.  [default: the one of the project here]",
)
project_option = click.option("--project", metavar="ID", help="Act in this project.  [default: the token's]")


def format_option_for(json: str) -> Callable[[F], F]:
    """json: what it is there."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        show_default=True,
        help=f"json: {json}; csv: exact values, for other programs.",
    )


format_option = format_option_for("the server's whole answer")


def with_client(command: F) -> F:
    """Give a command `--url`, `--token` and `--storage`, and a Client made of them as its first argument."""

    @click.option(
        "--url", envvar="SIDECAR_URL", show_envvar=True, help="Where the sidecar listens.  [default: as --storage says]"
    )
    @click.option("--token", envvar="JWT_TOKEN", show_envvar=True, help="[default: an operator's, from --storage]")
    @storage_option
    @functools.wraps(command)
    def run(*args: Any, url: str | None, token: str | None, storage: Path | None, **options: Any) -> Any:
        with connect(url, token, storage) as client:
            try:
                return command(client, *args, **options)
            except Unauthorized as error:
                sent = f"{_source_of_token(token)} was sent to the sidecar at {client.url}"
                raise _same_kind(error, f"{error.message}; {sent}") from None

    return run  # type: ignore[return-value]


def require_project(client: Client, project: str | None) -> None:
    """Raises NotFound for a project that is not configured: an empty list would hide that it is misspelt."""
    if project is not None:
        client.call("GET", "/api/agents", query={"project_id": project})


def _same_kind(error: SidecarError, message: str) -> SidecarError:
    return type(error)(message, **error.details)


def _source_of_token(given: str | None) -> str:
    if given is None:
        return "a token made from the storage directory"
    source = click.get_current_context().get_parameter_source("token")
    return "JWT_TOKEN of the environment" if source is ParameterSource.ENVIRONMENT else "the token of --token"


def connect(url: str | None, token: str | None, storage: Path | None) -> Client:
    """A client for the server and the token named, else for those of the project in the working directory.

    Where one of the two was not named, the server must prove that it is the sidecar of the storage before it is sent
    anything. Raises NoServer when no sidecar runs there, Unauthorized for a token of another.
    """
    from ..client.client import Client
    from ..client.retry import ONE_ATTEMPT

    if token is not None and not (token.isascii() and token.isprintable()):
        raise click.BadParameter("it is no token; `sidecar token` prints one", param_hint="--token")
    try:
        if url is not None and token is not None:
            return Client(url, token, retries=ONE_ATTEMPT)
        return _client_of(storage_of(storage), url, token)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None


def _client_of(storage: Path, url: str | None, token: str | None) -> Client:
    """A client that asks for the proof; the URL or the token, or both, are the storage's."""
    from ..client.client import Client
    from ..client.retry import ONE_ATTEMPT
    from ..client.vouching import SidecarCheck
    from .local_client import LocalClient

    key = _key_of(storage)
    if token is not None:
        _require_token_of(key, token, storage)
    check = SidecarCheck(key, storage)
    if url is None:
        return LocalClient(_announced(storage), token or operator_token(storage), check, storage)
    if url.startswith("https:"):
        raise click.UsageError("a server behind https cannot prove that it is the sidecar: name the token (--token)")
    return Client(url, operator_token(storage), retries=ONE_ATTEMPT, check=check)


def _announced(storage: Path) -> str:
    from ..client.errors import NoServer
    from ..storage import announced_url

    url = announced_url(storage)
    if url is None:
        raise NoServer(f"no sidecar runs with storage {storage}: start one with `sidecar serve`, or name its --url")
    return url


def _require_token_of(key: TokenKey, token: str, storage: Path) -> None:
    """Refuse a token of another sidecar before it is sent. The server refuses an expired one."""
    try:
        key.verify(token, now=utc_now())
    except TokenExpired:
        return
    except Unauthorized:
        raise Unauthorized(
            f"{_source_of_token(token)} is not a token of the sidecar with storage {storage}, and was not sent; "
            "leave it out, or name the sidecar that it is of with --url",
            wire_code="AUTH_001",
        ) from None


def working_dir() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working directory is not there any more") from None


def storage_of(named: Path | None) -> Path:
    """The storage directory that was named, without links and `..`, else that of the project here."""
    from .here import storage_here

    return storage_here() if named is None else Path(os.path.realpath(named))


def _key_of(storage: Path) -> TokenKey:
    """The key of the storage's tokens. Raises NoServer if there is none."""
    from ..client.errors import NoServer
    from ..storage import SECRET_FILE, SECRET_VARIABLE, token_key

    if SECRET_VARIABLE not in os.environ and not (storage / SECRET_FILE).is_file():
        # Asking a question must not make a storage directory.
        raise NoServer(
            f"no sidecar has run with storage {storage}: start one with `sidecar serve`, or name --url and --token"
        )
    return token_key(storage, os.environ)


def operator_token(storage: Path) -> str:
    """A short-lived operator's token, signed with the storage's secret."""
    from ..access.minting import mint_operator_token

    return mint_operator_token(storage, os.environ, ttl_s=TOKEN_TTL_S).text
