"""AgentTokens: creates a token at each start of an agent, and keeps it valid as long as that process runs."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from ...state.agent_entries import AgentRecord, Revoked, TokenRef
from ...state.agent_registry import AgentRegistry
from ...state.errors import TokenExpired, Unauthorized
from ...state.identity import PERMISSIONS, TOKEN_TTL_S, Caller, Revocations, Token, TokenKey
from ...state.models import AgentSpec
from ...supervision.profile import Profile

_FOR_EVER_S = 10 * 365 * 86_400
REVOKED_KEPT_FOR = timedelta(hours=1)  # after the token has expired
OLD_TOKEN_GOOD_FOR_S = 60  # after a refresh: requests under way still carry it


class AgentTokens:
    """`mint` may be called in any thread; the rest in the Spawner's, which keeps what it is given."""

    def __init__(self, key: TokenKey, revocations: Revocations, registry: AgentRegistry) -> None:
        self._key = key
        self._revocations = revocations
        self._registry = registry
        for entry in registry.revoked.values():
            revocations.revoke(entry.token_id, from_=entry.from_, expires_at=entry.expires_at)

    def mint(self, spec: AgentSpec, profile: Profile, *, now: datetime) -> Token:
        return self._mint(spec, profile, now)

    def found(self, spec: AgentSpec, text: str, *, now: datetime) -> Token | None:
        """The token that a process was started with; None if it is not this agent's."""
        try:
            caller = self._key.verify(text, now=now, grace_s=_FOR_EVER_S)
        except (Unauthorized, TokenExpired):
            return None
        if caller.agent_id != spec.agent_id:
            return None
        return Token(text=text, token_id=caller.token_id, expires_at=caller.expires_at)

    def caller(self, text: str, *, now: datetime) -> Caller | None:
        """The caller of a token; None if it was revoked, or expired so long ago that it may have been revoked."""
        try:
            caller = self._key.verify(text, now=now, grace_s=int(REVOKED_KEPT_FOR.total_seconds()))
        except (Unauthorized, TokenExpired):
            return None
        return None if self._revocations.is_revoked(caller.token_id, now=now) else caller

    def remint(self, spec: AgentSpec, profile: Profile, ref: TokenRef) -> Token:
        """Create the text of an earlier token again."""
        return self._mint(spec, profile, ref.expires_at - timedelta(seconds=TOKEN_TTL_S), again=ref.token_id)

    def _mint(self, spec: AgentSpec, profile: Profile, now: datetime, *, again: str | None = None) -> Token:
        return self._key.mint(
            agent_id=spec.agent_id,
            agent_type=spec.agent_type,
            project_id=spec.project_id,
            issue_id=spec.issue_id,
            permissions=PERMISSIONS[profile.agent_class],
            now=now,
            again=again,
        )

    def revoke_all(self, record: AgentRecord, *, now: datetime) -> None:
        """Revoke the tokens that the record names."""
        for ref in record.tokens:
            self._revoke(ref, now)

    def refresh(self, caller: Caller, record: AgentRecord | None, *, now: datetime) -> tuple[Token, AgentRecord | None]:
        """A new token for the caller, and the record that knows of it.

        record: the caller's agent, or None for a token minted by hand. Raises TokenExpired for an expired token
        whose agent does not run.
        """
        is_supervised = record is not None and not record.state.has_ended
        if caller.expires_at <= now and not is_supervised:
            raise TokenExpired(f"the token has expired, and no agent {caller.agent_id} runs that could refresh it")
        token = self._key.mint(
            agent_id=caller.agent_id,
            agent_type=caller.agent_type,
            project_id=caller.project_id,
            issue_id=caller.issue_id,
            permissions=caller.permissions,
            now=now,
        )
        old = TokenRef(caller.token_id, caller.expires_at)
        self._revoke(old, now + timedelta(seconds=OLD_TOKEN_GOOD_FOR_S))
        if record is not None and not record.state.has_ended:
            is_revoked = self._revocations.is_revoked
            # A refused token need not be revoked again at the agent's end: the record would grow with each refresh.
            known = (ref for ref in record.tokens if not is_revoked(ref.token_id, now=now))
            record = msgspec.structs.replace(record, tokens=(*known, TokenRef(token.token_id, token.expires_at)))
            self._revocations.keep(token.token_id)
        return token, record

    def keep(self, record: AgentRecord) -> None:
        """Keep its tokens valid until its running incarnation ends, even after they expire."""
        for ref in record.tokens:
            self._revocations.keep(ref.token_id)

    def forget_expired(self, *, now: datetime) -> None:
        self._revocations.forget_expired(now=now)
        self._registry.forget_revoked(expired_before=now - REVOKED_KEPT_FOR)

    def _revoke(self, ref: TokenRef, from_: datetime) -> None:
        self._revocations.revoke(ref.token_id, from_=from_, expires_at=ref.expires_at)
        known = self._registry.revoked.get(ref.token_id)
        if known is None or from_ < known.from_:
            self._registry.put(Revoked(token_id=ref.token_id, from_=from_, expires_at=ref.expires_at))
