"""Whether to ask again after a failed exchange, and when: pure, so that every rule can be read and tested here."""

from __future__ import annotations

import random
from enum import Enum

import msgspec

from ...state.errors import ContextFailed, SpawnFailed


class AttemptFailure(Enum):
    """The failure of one attempt, by what the server may have done with the request."""

    NOT_CONNECTED = "not_connected"  # nothing reached it
    ANSWER_LOST = "answer_lost"  # it may have acted
    UNAVAILABLE = "unavailable"  # 502, 503, 504: it may have acted
    RATE_LIMITED = "rate_limited"  # 429: it has not acted


_NOT_ACTED = (AttemptFailure.NOT_CONNECTED, AttemptFailure.RATE_LIMITED)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential delays with full jitter, so that the agents of a fleet do not all retry at once.

    patience_s: how long a request may keep failing, from its first failure on; 0 means one attempt only. The time in
    which a server holds the request does not count.
    Source: "Exponential Backoff and Jitter" (AWS Architecture Blog), full jitter.
    """

    patience_s: float = 60.0
    first_pause_s: float = 0.1
    max_pause_s: float = 5.0

    def pause_s(
        self,
        failure: AttemptFailure,
        *,
        attempt: int,
        failing_s: float,
        repeatable: bool,
        retry_after_s: float | None,
        rng: random.Random,
    ) -> float | None:
        """Seconds until the next attempt, or None to give up.

        attempt: 1 for the first. failing_s: for how long the request has failed so far. repeatable: doing it twice is
        doing it once (a GET, or an Idempotency-Key). retry_after_s: what the server asked for; all of it is waited out.
        """
        if not repeatable and failure not in _NOT_ACTED:
            return None
        ceiling_s = min(self.max_pause_s, self.first_pause_s * 2 ** min(attempt - 1, 20))
        pause_s = rng.uniform(0, ceiling_s) + (retry_after_s or 0.0)
        return pause_s if failing_s + pause_s <= self.patience_s else None


ONE_ATTEMPT = RetryPolicy(patience_s=0.0)


# These are answered with 503 too, but asking again would do the same work to fail again.
_FINAL = frozenset({SpawnFailed.code, ContextFailed.code})


def failure_of(status: int, code: str) -> AttemptFailure | None:
    """The failure that an error answer stands for, or None for one that will not change by asking again.

    code: of the SidecarError that the answer named.
    """
    if status == 429:
        return AttemptFailure.RATE_LIMITED
    return AttemptFailure.UNAVAILABLE if status in (502, 503, 504) and code not in _FINAL else None
