"""Rate limits: a token bucket for each agent of a project. Every decision takes `now`.

A bucket holds per_minute + burst requests and refills at the per-minute rate.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

import msgspec

from ...state.errors import RateLimited
from ...state.identity import AgentClass, Caller
from ...state.token_bucket import TokenBucket


class ClassLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limit of one class of agents. per_minute 0: unlimited."""

    per_minute: int
    burst: int = 0

    @property
    def capacity(self) -> int:
        return self.per_minute + self.burst

    @property
    def per_s(self) -> float:
        return self.per_minute / 60


_WORKER = ClassLimit(per_minute=60, burst=10)
_READER = ClassLimit(per_minute=30, burst=5)
_UNLIMITED = ClassLimit(per_minute=0)

# Source: the protocol, "Tokens", last column.
BUILT_IN: Mapping[AgentClass, ClassLimit] = {
    AgentClass.ARCHITECT: _UNLIMITED,
    AgentClass.CODING: _WORKER,
    AgentClass.QA: _WORKER,
    AgentClass.DEVOPS: _WORKER,
    AgentClass.DOCUMENTATION: _READER,
    AgentClass.SUPPORT: _READER,
    AgentClass.OPERATOR: _UNLIMITED,
}


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings `[limits]`.

    classes: overrides of the built-in limits, by agent class.
    """

    enabled: bool = True
    classes: dict[AgentClass, ClassLimit] = {}

    def of(self, agent_class: AgentClass) -> ClassLimit | None:
        """The limit of a class; None: unlimited."""
        if not self.enabled:
            return None
        limit = self.classes.get(agent_class) or BUILT_IN[agent_class]
        return limit if limit.per_minute > 0 else None


class Taken(msgspec.Struct, frozen=True):
    """Whether a request is within the limit.

    allowed: whether the request may go on. reset_s: until the bucket is full. retry_after_s: 0 when allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: int


def take(bucket: TokenBucket, limit: ClassLimit, *, now: float) -> tuple[TokenBucket, Taken]:
    """Take one request out of the bucket if there is one. A refused request costs nothing."""
    left, wait_s = bucket.take(capacity=limit.capacity, per_s=limit.per_s, now=now)
    return left, Taken(
        allowed=wait_s == 0,
        limit=limit.capacity,
        remaining=math.floor(left.level + 1e-9),
        reset_s=(limit.capacity - left.level) / limit.per_s,
        retry_after_s=0 if wait_s == 0 else max(1, math.ceil(wait_s - 1e-9)),
    )


MAX_BUCKETS = 10_000

Owner = tuple[str, str]  # project and agent id: the same id in another project is another agent


def owner_of(caller: Caller) -> Owner:
    return caller.project_id, caller.agent_id


class Buckets:
    """One bucket for each owner; used by every request thread."""

    def __init__(self) -> None:
        self._buckets: dict[Owner, tuple[TokenBucket, ClassLimit]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, owner: Owner, limit: ClassLimit, *, now: float) -> Taken:
        """Count one request at monotonic time `now`."""
        with self._lock:
            known = self._buckets.get(owner)
            bucket = known[0] if known is not None else TokenBucket(float(limit.capacity), now)
            left, taken = take(bucket, limit, now=now)
            if known is None and len(self._buckets) >= MAX_BUCKETS:
                self._forget_full(now)
            self._buckets[owner] = (left, limit)
        return taken

    def _forget_full(self, now: float) -> None:
        """Forget full buckets: new ones are full too. If none is full, the fullest goes: its owner loses least."""
        levels = {
            owner: bucket.refilled(capacity=limit.capacity, per_s=limit.per_s, now=now).level / limit.capacity
            for owner, (bucket, limit) in self._buckets.items()
        }
        full = [owner for owner, level in levels.items() if level >= 1.0]
        for owner in full or [max(levels, key=levels.__getitem__)]:
            del self._buckets[owner]


# Each refresh is written to the disk, and adds a token that may have to be revoked. An agent needs one an hour.
REFRESHES = ClassLimit(per_minute=6, burst=4)


class Limiter:
    """The limits of requests, for callers of limited classes, and of refreshes, for all callers."""

    def __init__(self, options: LimitOptions) -> None:
        self._options = options
        self._requests = Buckets()
        self._refreshes = Buckets()

    def take(self, caller: Caller, agent_class: AgentClass, *, now: float) -> Taken | None:
        """Count one request at monotonic time `now`; None for a class without a limit."""
        limit = self._options.of(agent_class)
        return self._requests.take(owner_of(caller), limit, now=now) if limit is not None else None

    def refresh(self, caller: Caller, *, now: float) -> None:
        """Count one refresh of a token. Raises RateLimited."""
        taken = self._refreshes.take(owner_of(caller), REFRESHES, now=now)
        if not taken.allowed:
            raise RateLimited(
                f"agent {caller.agent_id} refreshes its token too often: use the newest one until it expires",
                limit=taken.limit,
                retry_after_s=taken.retry_after_s,
            )


def headers_of(taken: Taken, *, wall_now: float) -> list[tuple[str, str]]:
    """X-RateLimit-*. Reset is the Unix time, in whole seconds, at which the bucket is full again."""
    return [
        ("X-RateLimit-Limit", str(taken.limit)),
        ("X-RateLimit-Remaining", str(taken.remaining)),
        ("X-RateLimit-Reset", str(math.ceil(wall_now + taken.reset_s))),
    ]


def refuse(taken: Taken, agent_id: str) -> RateLimited:
    return RateLimited(
        f"agent {agent_id} has asked more often than its limit allows",
        limit=taken.limit,
        retry_after_s=taken.retry_after_s,
    )
