"""Signs and verifies JSON Web Tokens with HS256. The PyJWT door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jwt

from .errors import Unauthorized

_ALGORITHM = "HS256"


def signed(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token with these claims."""
    return jwt.encode(dict(claims), secret, algorithm=_ALGORITHM)


def verified(text: str, secret: bytes, *, issuer: str, audience: str, required: Sequence[str]) -> dict[str, Any]:
    """The claims of a token that was signed with this secret, by this issuer for this audience.

    The caller judges its times. Raises Unauthorized for any other text, without quoting it.
    """
    try:
        return jwt.decode(
            text,
            secret,
            algorithms=[_ALGORITHM],
            audience=audience,
            issuer=issuer,
            options={"require": list(required), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError as error:
        raise Unauthorized("the token is not one of this sidecar's") from error
