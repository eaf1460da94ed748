"""A token bucket gives its burst at once, its rate in the long run, and says how long a refused use has to wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.state.token_bucket import TokenBucket

RATES = st.floats(0.01, 50)


@given(st.lists(st.floats(0, 3), max_size=60).map(sorted), RATES, st.integers(1, 10))
def test_a_bucket_never_gives_more_than_its_burst_and_rate(times: list[float], per_s: float, burst: int) -> None:
    bucket, taken = TokenBucket(float(burst), 0.0), []
    for now in times:
        bucket, wait_s = bucket.take(capacity=burst, per_s=per_s, now=now)
        if wait_s == 0:
            taken.append(now)
    for place, begin in enumerate(taken):
        for count, end in enumerate(taken[place:], start=1):
            assert count <= burst + (end - begin) * per_s + 1e-6


@given(st.floats(0, 5), RATES, st.integers(1, 10), st.floats(0, 1e6))
def test_a_use_that_waits_as_long_as_it_was_told_to_gets_its_token(
    level: float, per_s: float, capacity: int, at: float
) -> None:
    bucket, wait_s = TokenBucket(min(level, capacity), at).take(capacity=capacity, per_s=per_s, now=at)
    if wait_s > 0:
        assert bucket.level < 1, "a refused use costs nothing, and there was no token"
        # One moment later: `at` may be so large that the wait rounds down next to it.
        _, again = bucket.take(capacity=capacity, per_s=per_s, now=at + wait_s + 1e-6)
        assert again == 0


@given(st.floats(0, 10), RATES, st.integers(1, 10), st.lists(st.floats(0, 100), min_size=1).map(sorted))
def test_to_look_at_a_bucket_changes_nothing(level: float, per_s: float, capacity: int, times: list[float]) -> None:
    first = TokenBucket(min(level, capacity), 0.0)
    bucket = first
    for now in times:
        bucket = bucket.refilled(capacity=capacity, per_s=per_s, now=now)
        assert 0 <= bucket.level <= capacity
    direct = first.refilled(capacity=capacity, per_s=per_s, now=times[-1])
    assert abs(bucket.level - direct.level) < 1e-6
