"""Reads a token's own claims. Nothing is verified here: only the server has the key."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

import msgspec

from ...state.errors import ConfigError
from ...state.typed import decode


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token: its holder and its times."""

    agent_id: str
    agent_type: str
    project_id: str
    issued_at: datetime
    expires_at: datetime


class _TokenClaims(msgspec.Struct):
    sub: str
    agent_type: str
    project_id: str
    iat: int
    exp: int


def holder_of(token: str) -> Holder:
    """Raises ConfigError for what is no token of a sidecar."""
    try:
        payload = token.split(".")[1]
        claims = decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), _TokenClaims)
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("the token is no token of a sidecar", field="token", expected="a JWT") from error
    return Holder(
        agent_id=claims.sub,
        agent_type=claims.agent_type,
        project_id=claims.project_id,
        issued_at=datetime.fromtimestamp(claims.iat, UTC),
        expires_at=datetime.fromtimestamp(claims.exp, UTC),
    )
