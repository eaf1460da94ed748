"""Signs and verifies JSON Web Tokens with HS256. The PyJWT door.

The first token imports PyJWT: with its client for keys on the web, and with `cryptography` where that is installed, it
takes a fifth of the time in which a sidecar starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from .errors import Unauthorized

_ALGORITHM = "HS256"


@cache
def _pyjwt() -> ModuleType:
    import jwt  # slow

    return jwt


def signed(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token with these claims."""
    text: str = _pyjwt().encode(dict(claims), secret, algorithm=_ALGORITHM)
    return text


def verified(text: str, secret: bytes, *, issuer: str, audience: str, required: Sequence[str]) -> dict[str, Any]:
    """The claims of a token that was signed with this secret, by this issuer for this audience.

    The caller judges its times. Raises Unauthorized for any other text, without quoting it.
    """
    jwt = _pyjwt()
    try:
        claims: dict[str, Any] = jwt.decode(
            text,
            secret,
            algorithms=[_ALGORITHM],
            audience=audience,
            issuer=issuer,
            options={"require": list(required), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError as error:
        raise Unauthorized("the token is not one of this sidecar's") from error
    return claims
