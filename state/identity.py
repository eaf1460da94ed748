"""Callers and their rights: agent classes, permissions, and the tokens that carry them.

A token is HS256 only, with every claim verified; `TokenKey.verify` is pure apart from the secret. Revocations are
kept by the Spawner and looked up here by `jti`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from .clock import utc_at
from .errors import TokenExpired, Unauthorized
from .ids import unique_hex
from .models import IDENTIFIER, AgentId
from .proof import proof_of
from .signing import signed, verified
from .typed import convert

ISSUER = "orchestration-sidecar"
AUDIENCE = "sidecar-agents"
TOKEN_TTL_S = 3600
REFRESH_GRACE_S = 300  # a token that expired less than this ago may still be refreshed by a supervised agent
MIN_SECRET_BYTES = 32
_REQUIRED = ("iss", "aud", "sub", "iat", "nbf", "exp", "jti")
CLOCK_SKEW_S = 5  # `iat` and `nbf` come from this machine; an adjusted clock must not lock every agent out


class Permission(StrEnum):
    """A right that a token carries."""

    READ_CONTEXT = "read_context"
    WRITE_RESULTS = "write_results"
    PUBLISH_EVENTS = "publish_events"
    SPAWN_AGENTS = "spawn_agents"
    ADMIN = "admin"


class AgentClass(StrEnum):
    """The kind of work of an agent type; decides its permissions, its rate and its context."""

    ARCHITECT = "architect"
    CODING = "coding"
    QA = "qa"
    DEVOPS = "devops"
    DOCUMENTATION = "documentation"
    SUPPORT = "support"
    OPERATOR = "operator"


# Source: the table of classes in the protocol, "Tokens". An operator is made by `sidecar token --operator` only.
_CLASS_OF_TYPE: Mapping[str, AgentClass] = {
    "test-engineer": AgentClass.QA,
    "qa-engineer": AgentClass.QA,
    "security-auditor": AgentClass.QA,
    "code-reviewer": AgentClass.QA,
    "devops-engineer": AgentClass.DEVOPS,
    "deployment-engineer": AgentClass.DEVOPS,
    "documentation-expert": AgentClass.DOCUMENTATION,
}
_CLASS_BY_ENDING: Mapping[str, AgentClass] = {
    "-architect": AgentClass.ARCHITECT,
    "-writer": AgentClass.DOCUMENTATION,
    "-specialist": AgentClass.CODING,
    "-developer": AgentClass.CODING,
}


def class_of(agent_type: str) -> AgentClass:
    """The class of an agent type that no profile gives another one. Types we do not know are `support`."""
    if (known := _CLASS_OF_TYPE.get(agent_type)) is not None:
        return known
    endings = (agent_class for ending, agent_class in _CLASS_BY_ENDING.items() if agent_type.endswith(ending))
    return next(endings, AgentClass.SUPPORT)


def types_like(agent_type: str) -> set[str]:
    """Types that have a class of their own and that this one may be a misspelling of, such as `rust-specialist`."""
    first, _, _ = agent_type.rpartition("-")
    return {*_CLASS_OF_TYPE, *(first + ending for ending in _CLASS_BY_ENDING if first)}


_EVERYONE = frozenset({Permission.READ_CONTEXT, Permission.PUBLISH_EVENTS})
_WORKERS = _EVERYONE | {Permission.WRITE_RESULTS}

PERMISSIONS: Mapping[AgentClass, frozenset[Permission]] = {
    AgentClass.ARCHITECT: _WORKERS | {Permission.SPAWN_AGENTS},
    AgentClass.CODING: _WORKERS,
    AgentClass.QA: _WORKERS,
    AgentClass.DEVOPS: _WORKERS,
    AgentClass.DOCUMENTATION: _WORKERS,
    AgentClass.SUPPORT: _EVERYONE,
    AgentClass.OPERATOR: frozenset(Permission),
}

_NARROW_TOPICS = frozenset({"coordination", "error", "system"})

# None: every topic.
TOPICS: Mapping[AgentClass, frozenset[str] | None] = {
    AgentClass.ARCHITECT: None,
    AgentClass.CODING: None,
    AgentClass.QA: None,
    AgentClass.DEVOPS: None,
    AgentClass.DOCUMENTATION: _NARROW_TOPICS | {"documentation"},
    AgentClass.SUPPORT: _NARROW_TOPICS,
    AgentClass.OPERATOR: None,
}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The verified holder of a token."""

    agent_id: AgentId
    agent_type: str
    project_id: str
    issue_id: str | None
    permissions: frozenset[Permission]
    token_id: str
    issued_at: datetime
    expires_at: datetime

    @property
    def is_operator(self) -> bool:
        return Permission.ADMIN in self.permissions

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A signed token. `repr` never shows it."""

    text: str
    token_id: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Token(token_id={self.token_id!r}, expires_at={self.expires_at.isoformat()})"


def new_secret() -> bytes:
    """A fresh 256-bit signing secret."""
    return secrets.token_bytes(32)


class Minted(msgspec.Struct, frozen=True, kw_only=True):
    """That a token was made and for whom; not the token."""

    token_id: str
    agent_id: str
    agent_type: str
    project_id: str
    expires_at: datetime


class TokenKey:
    """Signs and verifies tokens with one secret.

    secret: at least 32 bytes (RFC 7518, section 3.2, for HS256). minted: called with every token, in any thread.
    """

    def __init__(self, secret: bytes, *, minted: Callable[[Minted], None] | None = None) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the signing secret has {len(secret)} bytes, expected at least {MIN_SECRET_BYTES}")
        self._secret = secret
        self._minted = minted

    def __repr__(self) -> str:
        return "TokenKey(…)"

    def prove(self, *, address: str, nonce: str) -> str:
        """Prove to a client that holds the secret that this server does, too; see `proof`."""
        return proof_of(self._secret, address=address, nonce=nonce)

    def mint(
        self,
        *,
        agent_id: str,
        agent_type: str,
        project_id: str,
        issue_id: str | None,
        permissions: frozenset[Permission],
        now: datetime,
        ttl_s: int = TOKEN_TTL_S,
        again: str | None = None,
    ) -> Token:
        """A token that is good from `now` (aware UTC) for `ttl_s` seconds.

        again: the id of one that was minted with all the same, to have its text once more.
        """
        issued_at = int(now.timestamp())
        token_id = again or unique_hex(32)  # what makes a token good is its signature
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": agent_id,
            "agent_type": agent_type,
            "project_id": project_id,
            "permissions": sorted(permissions),
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + ttl_s,
            "jti": token_id,
        }
        if issue_id is not None:
            claims["issue_id"] = issue_id
        expires_at = utc_at(issued_at + ttl_s)
        if self._minted is not None and again is None:
            self._minted(
                Minted(
                    token_id=token_id,
                    agent_id=agent_id,
                    agent_type=agent_type,
                    project_id=project_id,
                    expires_at=expires_at,
                )
            )
        text = signed(claims, self._secret)
        return Token(text=text, token_id=token_id, expires_at=expires_at)

    def verify(self, text: str, *, now: datetime, grace_s: int = 0, kept: Container[str] = ()) -> Caller:
        """The caller a token speaks for.

        grace_s: how long ago, in seconds, the token may have expired (refresh only). kept: ids of tokens that may have
        expired at any time.
        Raises TokenExpired, or Unauthorized for everything else that is wrong with it, without quoting it.
        """
        # `now` decides about time, below: PyJWT would ask the wall clock itself.
        claims = verified(text, self._secret, issuer=ISSUER, audience=AUDIENCE, required=_REQUIRED)
        try:
            body = convert(claims, _Claims)
        except msgspec.ValidationError as error:
            raise Unauthorized("the token is not one of this sidecar's") from error
        for value in (body.sub, body.agent_type, body.project_id, body.issue_id, body.jti):
            if value is not None and IDENTIFIER.fullmatch(value) is None:
                raise Unauthorized("the token has an invalid identifier")
        try:
            issued_at, expires_at = utc_at(body.iat), utc_at(body.exp)
        except OverflowError:
            raise Unauthorized("the token has an impossible time") from None
        if max(body.iat, body.nbf) > now.timestamp() + CLOCK_SKEW_S:
            raise Unauthorized("the token is not valid yet")
        if now - timedelta(seconds=grace_s) >= expires_at and body.jti not in kept:
            raise TokenExpired("the token has expired", expired_at=expires_at)
        return Caller(
            agent_id=AgentId(body.sub),
            agent_type=body.agent_type,
            project_id=body.project_id,
            issue_id=body.issue_id,
            permissions=_interned(body.permissions),
            token_id=body.jti,
            issued_at=issued_at,
            expires_at=expires_at,
        )


@lru_cache(maxsize=1 << len(Permission))
def _interned(permissions: frozenset[Permission]) -> frozenset[Permission]:
    """One set for all who have the same permissions."""
    return permissions


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    agent_type: str
    project_id: str
    permissions: frozenset[Permission]
    iat: int
    nbf: int
    exp: int
    jti: str
    issue_id: str | None = None


class Revocations:
    """Revoked token ids, each from a moment on, and token ids that are good beyond their expiry.

    Written by the Spawner alone, read by every request thread without a lock: one dict look-up is atomic.
    """

    def __init__(self) -> None:
        self._from: dict[str, tuple[datetime, datetime]] = {}
        self.kept: set[str] = set()  # tokens of running incarnations: good however long ago they expired
        self._told: Callable[[str, datetime], None] | None = None

    def watch(self, told: Callable[[str, datetime], None]) -> None:
        """Call `told` with each revocation: the token's id, and from when on. In the Spawner's thread."""
        self._told = told

    def revoke(self, token_id: str, *, from_: datetime, expires_at: datetime) -> None:
        """Refuse the token from `from_` on. After `expires_at` plus the refresh grace it is refused anyhow."""
        known = self._from.get(token_id)
        if known is None or from_ < known[0]:
            self._from[token_id] = (from_, expires_at)
            if self._told is not None:
                self._told(token_id, from_)

    def keep(self, token_id: str) -> None:
        """Keep the token of a running incarnation good, even after it expires, until it is revoked."""
        self.kept.add(token_id)

    def is_revoked(self, token_id: str, *, now: datetime) -> bool:
        entry = self._from.get(token_id)
        return entry is not None and now >= entry[0]

    def good_until(self, caller: Caller) -> datetime:
        """When the caller's token expires, or is refused before that. One that is kept may be good for longer."""
        entry = self._from.get(caller.token_id)
        return caller.expires_at if entry is None else min(entry[0], caller.expires_at)

    def forget_expired(self, *, now: datetime) -> None:
        expired_before = now - timedelta(seconds=REFRESH_GRACE_S)
        for token_id, (_, expires_at) in list(self._from.items()):
            if expires_at < expired_before:
                self.kept.discard(token_id)  # first: it must be refused at every moment
                del self._from[token_id]
