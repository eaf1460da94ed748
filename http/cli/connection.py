"""Finds the server and the token of a command."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ...state.clock import utc_now
from ...state.errors import SidecarError, TokenExpired, Unauthorized
from ...state.identity import TokenKey
from ..access.minting import mint_operator_token
from ..client.client import Client
from ..client.errors import NoServer
from ..client.retry import ONE_ATTEMPT
from ..client.vouching import SidecarCheck
from ..storage import SECRET_FILE, SECRET_VARIABLE, announced_url, token_key
from .here import storage_of
from .local_client import LocalClient
from .options import storage_option

F = TypeVar("F", bound=Callable[..., Any])

TOKEN_TTL_S = 86_400  # `events subscribe --continuous` and `top` outlive an hour


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
    same = type(error)(message)
    same.details = dict(error.details)  # the server's own names, which need not be fit for arguments
    return same


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
    key = _key_of(storage)
    if token is not None:
        _require_token_of(key, token, storage)
    check = SidecarCheck(key, storage)
    if url is None:
        return LocalClient(_announced(storage), token or _operator_token(storage), check, storage)
    if url.startswith("https:"):
        raise click.UsageError("a server behind https cannot prove that it is the sidecar: name the token (--token)")
    return Client(url, _operator_token(storage), retries=ONE_ATTEMPT, check=check)


def _announced(storage: Path) -> str:
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


def _key_of(storage: Path) -> TokenKey:
    """The key of the storage's tokens. Raises NoServer if there is none."""
    if SECRET_VARIABLE not in os.environ and not (storage / SECRET_FILE).is_file():
        # Asking a question must not make a storage directory.
        raise NoServer(
            f"no sidecar has run with storage {storage}: start one with `sidecar serve`, or name --url and --token"
        )
    return token_key(storage, os.environ)


def _operator_token(storage: Path) -> str:
    """A short-lived operator's token, signed with the storage's secret."""
    return mint_operator_token(storage, os.environ, ttl_s=TOKEN_TTL_S).text
