"""Proof that a server holds the secret of a storage, without sending the secret or a token. Pure.

A client sends a fresh nonce and the address that it is connected to; the server answers with a MAC over both. The
address is in it because another program could hand the nonce on to the real server: that one proves its own address
only, and the client is connected to another. The key of the MAC is derived, so that no proof is a token's signature.

See docs/security.md.
"""

from __future__ import annotations

import hashlib
import hmac

NONCE_CHARS = 64  # 256 bits in hexadecimal

# Source: RFC 5869 (HKDF with SHA-256, one block). The salt and the purpose are ours; another purpose, another key.
_SALT = b"orchestration-sidecar"
_PURPOSE = b"proof of address, version 1"


def proof_of(secret: bytes, *, address: str, nonce: str) -> str:
    """The MAC, in hexadecimal, that only a holder of the secret can make. address: as `address_of` writes it."""
    extracted = hmac.digest(_SALT, secret, hashlib.sha256)
    key = hmac.digest(extracted, _PURPOSE + b"\x01", hashlib.sha256)
    return hmac.digest(key, f"{address}\n{nonce}".encode(), hashlib.sha256).hex()


def is_nonce(text: str) -> bool:
    return len(text) == NONCE_CHARS and set(text) <= set("0123456789abcdef")


def address_of(host: str, port: int) -> str:
    """`127.0.0.1:3001` or `[::1]:3001`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
