"""What this server proves to clients that hold the storage's secret: that it does so too, and where it listens."""

from __future__ import annotations

from ipaddress import ip_address

from ...state.errors import InvalidRequest
from ...state.identity import TokenKey
from ...state.proof import NONCE_CHARS, address_of, is_nonce


class AddressProofs:
    """Proofs for the addresses that are surely this server's: the one it listens on; of all of them, the loopback's."""

    def __init__(self, key: TokenKey, host: str, port: int) -> None:
        self._key = key
        hosts = ("127.0.0.1", "::1") if ip_address(host).is_unspecified else (host,)
        self._addresses = frozenset(address_of(each, port) for each in hosts)

    def of(self, address: str, nonce: str) -> str:
        """Raises InvalidRequest for what is no nonce, or an address that may be another's."""
        if not is_nonce(nonce):
            expected = f"{NONCE_CHARS} digits of 0-9 a-f"
            raise InvalidRequest("the nonce cannot be used", field="nonce", expected=expected)
        if address not in self._addresses:
            raise InvalidRequest(
                "this sidecar does not listen there", field="address", expected="the address that it listens on"
            )
        return self._key.prove(address=address, nonce=nonce)
