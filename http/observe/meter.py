"""Measures the server: latencies, rates and errors of the last minute, and counters for /metrics."""

from __future__ import annotations

import math
import time
from collections import deque

import msgspec

from .observer import ObservedRequest, Observer
from .series import Counter, Counters, Histogram, Histograms, Measured

WINDOW_S = 60.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "(other)"  # clients must not invent labels
MAX_SAMPLES = 20_000  # a minute at 333 requests/s; a busier minute is judged by its latest part


class _Sample(msgspec.Struct, frozen=True, gc=False):
    at: float
    took_ms: float | None
    is_error: bool
    project_id: str | None


class _Kind(msgspec.Struct, frozen=True):
    """The counter of one method, route and status, kept: looking it up by labels takes longer than counting."""

    requests: Counter
    seconds: Histogram


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """Over the last minute, or since the start if that is shorter. Waits count as requests, not as response times."""

    avg_response_time_ms: float
    p95_response_time_ms: float
    p99_response_time_ms: float
    requests_per_second: float
    errors_per_minute: float


class RequestMeter(Observer):
    """Counts answers and errors, and judges the last minute for /status.

    Fed by every thread that answers; to append to a bounded deque is atomic. measured: what /metrics shows of it.
    """

    def __init__(self, *, started_at: float | None = None) -> None:
        self._started_at = time.monotonic() if started_at is None else started_at
        self._samples: deque[_Sample] = deque(maxlen=MAX_SAMPLES)
        self._kinds: dict[tuple[str, str, int], _Kind] = {}
        self._requests = Counters("sidecar_http_requests", "Requests answered.", "method", "route", "status")
        self._refusals = Counters("sidecar_http_errors", "Errors sent to clients, by code.", "code")
        self._seconds = Histograms(
            "sidecar_http_request_duration_seconds",
            "Time from a request to its answer, without waits.",
            (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            "route",
        )
        self.measured: Measured = (self._requests, self._refusals, self._seconds)

    def answered(self, request: ObservedRequest, *, status: int, body_bytes: int, now: float) -> None:  # noqa: ARG002
        """Count an answer."""
        caller = request.caller
        self.record(
            method=request.method,
            route=request.route,
            status=status,
            took_s=now - request.started_at,
            is_wait=request.is_wait,
            project_id=caller.project_id if caller is not None else None,
            now=now,
        )

    def record(
        self, *, method: str, route: str, status: int, took_s: float, is_wait: bool, project_id: str | None, now: float
    ) -> None:
        """One answered request. An error is an answer of 400 or above. now: monotonic."""
        self._samples.append(_Sample(now, None if is_wait else took_s * 1000, status >= 400, project_id))
        kind = (method, route, status)
        known = self._kinds.get(kind) or self._kind(kind)
        known.requests.add()
        if not is_wait:
            known.seconds.observe(took_s)

    def _kind(self, kind: tuple[str, str, int]) -> _Kind:
        method, route, status = kind
        method = method if method in METHODS else OTHER
        known = _Kind(self._requests.of(method, route, str(status)), self._seconds.of(route))
        if method is not OTHER:
            self._kinds[kind] = known
        return known

    def refused(self, request: ObservedRequest, *, status: int, wire_code: str, code: str) -> None:  # noqa: ARG002
        """Count an error sent to a client, also inside an answer of another protocol."""
        self._refusals.of(wire_code).add()

    def performance(self, *, project_id: str | None, now: float) -> Performance:
        """The figures of the last minute; project_id None: of all projects."""
        everything = tuple(self._samples)
        recent = [s for s in everything if now - s.at <= WINDOW_S]
        # When the window does not fit into the samples kept, rates are those of the part that does.
        since = recent[0].at if recent and len(everything) == MAX_SAMPLES else max(self._started_at, now - WINDOW_S)
        span_s = max(now - since, 1e-3)
        if project_id is not None:
            recent = [s for s in recent if s.project_id == project_id]
        times = sorted(s.took_ms for s in recent if s.took_ms is not None)
        return Performance(
            avg_response_time_ms=round(sum(times) / len(times), 3) if times else 0.0,
            p95_response_time_ms=round(percentile(times, 0.95), 3),
            p99_response_time_ms=round(percentile(times, 0.99), 3),
            requests_per_second=round(len(recent) / span_s, 3),
            errors_per_minute=round(sum(s.is_error for s in recent) / span_s * 60, 3),
        )


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value with at least `share` of all values not above it (nearest rank); 0 without values."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
