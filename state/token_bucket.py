"""TokenBucket: how often something may happen. Pure: every decision takes `now`."""

from __future__ import annotations

import msgspec

# What comes exactly when a wait is over must not be refused by a rounding error.
_ROUNDING = 1e-9


class TokenBucket(msgspec.Struct, frozen=True):
    """A bucket that is filled at a steady rate, and from which each use takes one token.

    level: tokens left at the time `at` (seconds, any clock that only goes forward).
    """

    level: float
    at: float

    def refilled(self, *, capacity: float, per_s: float, now: float) -> TokenBucket:
        """The bucket at `now`, if nothing is taken. capacity: the most that it holds. per_s: what a second adds."""
        return TokenBucket(min(float(capacity), self.level + (now - self.at) * per_s), now)

    def take(self, *, capacity: float, per_s: float, now: float) -> tuple[TokenBucket, float]:
        """The bucket after one use, and 0; or, where it has no token, the bucket as it is and the seconds to wait."""
        full = self.refilled(capacity=capacity, per_s=per_s, now=now)
        if full.level < 1.0 - _ROUNDING:
            return full, (1.0 - full.level) / per_s
        return TokenBucket(max(0.0, full.level - 1.0), now), 0.0
