"""Proves to clients that hold the storage's secret that this server holds it too, and at which address it listens."""

from __future__ import annotations

from ipaddress import ip_address

from ...state.errors import InvalidRequest
from ...state.identity import TokenKey
from ...state.proof import NONCE_CHARS, address_of, is_nonce


class AddressProofs:
    """Proofs for this server's addresses: the one it listens on, or loopback's if it listens on all."""

    def __init__(self, key: TokenKey, host: str, port: int) -> None:
        self._key = key
        hosts = ("127.0.0.1", "::1") if ip_address(host).is_unspecified else (host,)
        self._addresses = frozenset(address_of(each, port) for each in hosts)

    def of(self, address: str, nonce: str) -> str:
        """The proof. Raises InvalidRequest for an invalid nonce, or an address that may not be this server's."""
        if not is_nonce(nonce):
            expected = f"{NONCE_CHARS} digits of 0-9 a-f"
            raise InvalidRequest("invalid nonce", field="nonce", expected=expected)
        if address not in self._addresses:
            raise InvalidRequest(
                "this sidecar does not listen on the address",
                field="address",
                expected="the address that it listens on",
            )
        return self._key.prove(address=address, nonce=nonce)
