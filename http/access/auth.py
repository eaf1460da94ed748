"""From `Authorization: Bearer …` to a Caller, and what a Caller may do.

Verifying a signature costs 37 µs, so verified tokens are remembered by their header, in bounds; expiry and revocation
are still checked on every request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from ...state.clock import utc_now
from ...state.errors import PermissionDenied, TokenExpired, Unauthorized, WrongIdentity, WrongProject
from ...state.events.topics import OF_THE_SIDECAR
from ...state.identity import REFRESH_GRACE_S, TOPICS, AgentClass, Caller, Permission, Revocations, TokenKey
from ...state.models import identifier
from ...supervision.profile import Profiles

REMEMBERED_TOKENS = 4096  # agents alive at once, with room; a token takes about 1 KiB
MAX_REMEMBERED_CHARS = 2048  # a client can write the same token in many longer ways, and each would take memory
MAX_TOKEN_CHARS = 8192


class Authenticator:
    """Authenticates callers. Used by every request thread."""

    def __init__(
        self,
        key: TokenKey,
        revocations: Revocations,
        *,
        remembered: int = REMEMBERED_TOKENS,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._key = key
        self._revocations = revocations
        self._remembered = remembered
        self._now = now
        self._callers: dict[str, Caller] = {}
        self._lock = threading.Lock()

    def caller(self, authorization: str | None) -> Caller:
        """The holder of the token in the header. Raises Unauthorized or TokenExpired."""
        return self._verified(authorization, grace_s=0)

    def refresher(self, authorization: str | None) -> Caller:
        """Like `caller`, also for a token that expired within the refresh grace."""
        return self._verified(authorization, grace_s=REFRESH_GRACE_S)

    def _verified(self, authorization: str | None, *, grace_s: int) -> Caller:
        now = self._now()
        header = authorization or ""
        caller = self._callers.get(header)
        if caller is None:
            caller = self._key.verify(_bearer(header), now=now, grace_s=grace_s, kept=self._revocations.kept)
            if len(header) <= MAX_REMEMBERED_CHARS:
                self._remember(header, caller)
        return self._checked(caller, expired_at=now - timedelta(seconds=grace_s), now=now)

    def recheck(self, caller: Caller) -> Caller:
        """`caller`, if the token it came with is good even now. Raises TokenExpired, Unauthorized."""
        now = self._now()
        return self._checked(caller, expired_at=now, now=now)

    def good_until(self, caller: Caller) -> datetime:
        """The time from which the caller's token is refused, as far as is known now."""
        return self._revocations.good_until(caller)

    def _checked(self, caller: Caller, *, expired_at: datetime, now: datetime) -> Caller:
        """expired_at: tokens that had expired by then are refused."""
        if caller.expires_at <= expired_at and caller.token_id not in self._revocations.kept:
            raise TokenExpired("the token has expired", expired_at=caller.expires_at)
        if self._revocations.is_revoked(caller.token_id, now=now):
            raise Unauthorized("the token was revoked")
        return caller

    def _remember(self, header: str, caller: Caller) -> None:
        with self._lock:
            while len(self._callers) >= self._remembered:
                self._callers.pop(next(iter(self._callers)), None)
            self._callers[header] = caller


def _bearer(authorization: str) -> str:
    if not authorization:
        raise Unauthorized("a token is needed: Authorization: Bearer <token>")
    scheme, _, text = authorization.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text or len(text) > MAX_TOKEN_CHARS or not text.isascii():
        raise Unauthorized("the Authorization header is not of the form: Bearer <token>")
    return text


def class_of_caller(caller: Caller, profiles: Profiles) -> AgentClass:
    """An operator's token says so itself; an agent's class is that of its type's profile."""
    return AgentClass.OPERATOR if caller.is_operator else profiles.of(caller.agent_type).agent_class


def require(caller: Caller, permission: Permission) -> None:
    """Raises PermissionDenied."""
    if not caller.may(permission):
        raise PermissionDenied(
            f"agents of type {caller.agent_type} lack the permission {permission}", permission=permission.value
        )


def admit(caller: Caller, needs: Permission | None, parts: Mapping[str, str]) -> None:
    """Check a route's permission, and the identifiers in its path.

    Raises PermissionDenied, InvalidRequest.
    """
    if needs is not None:
        require(caller, needs)
    for name, value in parts.items():
        identifier(value, name)


def require_project(caller: Caller, project_id: str) -> None:
    """Raises WrongProject unless the caller acts in that project or is an operator."""
    if project_id != caller.project_id and not caller.is_operator:
        raise WrongProject(f"the token acts in project {caller.project_id} only", field="project_id")


def require_own(*, field: str, value: str, own: str) -> None:
    """Raises WrongIdentity unless `value`, what the request says of its sender, is the token's."""
    if value != own:
        raise WrongIdentity(f"{field} is not the token's", field=field, expected=own)


def require_topic(caller: Caller, profiles: Profiles, topic: str) -> None:
    """Raises PermissionDenied when the caller's class may not publish to `topic`."""
    allowed = TOPICS[class_of_caller(caller, profiles)]
    if allowed is not None and topic not in allowed:
        raise PermissionDenied(
            f"agents of type {caller.agent_type} may not publish to topic {topic}",
            field="topic",
            expected=sorted(allowed),
        )


def require_own_event(event_type: str) -> None:
    """Raises PermissionDenied for an event that only the sidecar may publish."""
    if event_type in OF_THE_SIDECAR:
        raise PermissionDenied(
            f"event type {event_type} is published by the sidecar alone",
            field="event_type",
            expected="another event type, such as agent_completed",
        )
