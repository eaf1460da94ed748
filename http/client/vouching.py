"""Asks a server that has just been connected to for a proof that it is the sidecar of a storage, before any token.

The proof is asked for on the very connection that the request will take, on each connection again: also when a sidecar
was restarted meanwhile, or something else listens where it did. See `state/proof.py`.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import h11
import msgspec

from ...state.proof import NONCE_CHARS, address_of
from ...state.typed import decode
from .errors import NoServer

if TYPE_CHECKING:
    from ...state.identity import TokenKey

ANSWER_WITHIN_S = 5.0
_MAX_ANSWER_BYTES = 16 * 1024


class NotTheSidecar(NoServer):
    """The server has not proven that it is the intended sidecar; it was sent only a nonce."""


class NetworkStream(Protocol):
    """A TCP connection."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes: ...

    def write(self, buffer: bytes, timeout: float | None = None) -> None: ...

    def close(self) -> None: ...

    def get_extra_info(self, info: str) -> Any: ...


class _Proof(msgspec.Struct):
    address: str
    proof: str


class SidecarCheck:
    """Asks each new connection for the proof. key: of the intended sidecar's storage. storage: its name, for errors."""

    def __init__(self, key: TokenKey, storage: object) -> None:
        self._key = key
        self._storage = storage

    def __call__(self, stream: NetworkStream) -> None:
        """Ask for the proof. Raises NotTheSidecar, and closes the connection then."""
        try:
            self._check(stream)
        except BaseException:
            stream.close()
            raise

    def _check(self, stream: NetworkStream) -> None:
        address = address_of(*stream.get_extra_info("server_addr")[:2])
        nonce = secrets.token_hex(NONCE_CHARS // 2)
        status, body = _get(stream, address, f"/api/proof?{urlencode({'nonce': nonce, 'address': address})}")
        meant = f"the sidecar with storage {self._storage}"
        if status == 200:
            try:
                given = decode(body, _Proof).proof
            except (msgspec.DecodeError, UnicodeDecodeError):
                given = ""
            if hmac.compare_digest(given.encode(), self._key.prove(address=address, nonce=nonce).encode()):
                return
        if status == 401:  # a path that an earlier version does not know needs a token there
            raise NotTheSidecar(f"the server on {address} cannot prove that it is {meant}: {_OLDER}")
        raise NotTheSidecar(
            f"the server on {address} is not {meant}, so it was sent no token: another program, or another sidecar; "
            "`sidecar serve` starts one, or name another with --url and --token"
        )


_OLDER = "it may be a sidecar of an earlier version; restart it, or name it with --url and --token"


def _get(stream: NetworkStream, host: str, target: str) -> tuple[int, bytes]:
    """One GET over the connection, which stays usable. Raises NotTheSidecar for anything except a short HTTP answer."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("Accept", "application/json")]
    request = connection.send(h11.Request(method="GET", target=target, headers=headers))
    stream.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""), ANSWER_WITHIN_S)
    status, body, received = 0, b"", 0
    deadline = time.monotonic() + ANSWER_WITHIN_S  # for all of it: byte by byte it could go on for hours
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise NotTheSidecar(
                        f"the server on {host} has not proven within {ANSWER_WITHIN_S:g} s that it is a sidecar"
                    )
                data = stream.read(_MAX_ANSWER_BYTES, left_s)
                received += len(data)
                if received > _MAX_ANSWER_BYTES:
                    raise NotTheSidecar(f"the server on {host} is not a sidecar: its answer is too long")
                connection.receive_data(data)
                continue
        except h11.RemoteProtocolError as error:
            raise NotTheSidecar(f"the server on {host} is not a sidecar: {error}") from error
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            if status == 200 and connection.their_state is not h11.DONE:
                raise NotTheSidecar(f"the server on {host} closes the connection after its proof")
            return status, body
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise NotTheSidecar(f"the server on {host} is not a sidecar: it closed the connection")
