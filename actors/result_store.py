"""ResultStore: sole owner of the agents' results. A store is answered when the result is on disk and announced.

Many requests share one fdatasync: all stores in the mailbox are committed together. A result and its `result_stored`
event belong together: the result's transaction also puts it into an outbox, which it leaves when the bus has the
event. Events left there after a crash are published again, and the bus recognises them by their idempotency keys.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, assert_never

import msgspec
from msgspec import Meta

from ..state.allocator import LARGE_BYTES, give_back_large_blocks
from ..state.clock import utc_now
from ..state.errors import IdempotencyConflict, NotFound, StorageUnavailable, StorageUnreadable
from ..state.journal.fs import Fs
from ..state.models import ResultId, StoredResult
from ..state.results.stored_results import ResultHead, StoredAnswer, StoredResults, digest_of
from ..supervision.profile import Profiles
from .messages import CountResults, FindResults, GetResult, ResultStoreRequest, StoreResult
from .replies import AcceptedResult, ResultListing, ResultNumbers
from .results.compaction import ResultCompaction
from .results.facts import (
    ResultAnnounced,
    ResultFact,
    ResultsCompacted,
    TimeToAnnounce,
    TimeToForget,
    TimeToSettle,
)
from .results.outbox import ResultOutbox, next_agents, stored
from .runtime.asking import Later, Recipient
from .runtime.owner import Owner
from .runtime.timers import Timers

log = logging.getLogger(__name__)

# A group is committed when no more requests wait, and at the latest when one of these is reached.
GROUP_RESULTS = 256
GROUP_BYTES = 1 << 20
GROUP_WAIT_S = 0.002  # reads may keep the mailbox from ever being empty

SETTLE_AFTER_S = 0.25
FORGET_EVERY_S = 60.0  # at least: a clock that is set sends no notice
FORGET_SOONEST_S = 1.0
FORGET_AT_ONCE = 500  # a longer piece would delay writers


class ResultOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[results]`. retention_days: older results are deleted; 0 keeps them forever.

    memory_max_mb: memory for the most recently used results; the others are read from disk.
    """

    retention_days: Annotated[float, Meta(le=36_500)] = 0.0
    memory_max_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 32


class ResultStore(Owner):
    """directory: of the results' journal. fs: another file system than the operating system's, in tests."""

    def __init__(
        self,
        *,
        directory: Path,
        options: ResultOptions,
        bus: Recipient,
        profiles: Profiles,
        timers: Timers,
        fs: Fs | None = None,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._options = options
        self._profiles = profiles
        self._timers = timers
        self._results = StoredResults(directory, fs=fs, memory_bytes=options.memory_max_mb << 20)
        self._problem: str | None = None
        self._unreadable: str | None = None  # the last damage that was found
        self._group: dict[int, ResultHead] = {}  # results that are not committed yet, by their places
        self._group_bytes = 0
        self._group_since = 0.0
        self._outbox = ResultOutbox(self._results, bus, profiles, timers)
        self._compaction = ResultCompaction(self._results.store)
        self._settle_at = math.inf  # monotonic
        self._forget_at = 0.0  # monotonic; facts from a timer of an earlier incarnation come too early

    def on_start(self) -> None:
        self._outbox.announce_left(self.me)
        self._forget()

    def release(self) -> None:
        self._compaction.close()
        try:
            if self._commit() and self._results.store.stats().failure is None:
                self._outbox.let_go(everything=True)
        finally:
            self._results.store.close()

    def handle(self, message: ResultStoreRequest | ResultFact) -> Any:
        try:
            return self._handle_one(message)
        except StorageUnreadable as error:
            log.error("result cannot be read: %s", error.message)
            self._unreadable = error.message
            raise

    def _handle_one(self, message: ResultStoreRequest | ResultFact) -> Any:
        match message:
            case StoreResult():
                return self._store(message)
            case GetResult():
                return self._get(message)
            case FindResults():
                return self._find(message)
            case CountResults():
                return self._count(message)
            case ResultAnnounced():
                self._announced(message)
            case TimeToAnnounce():
                self._commit()
                self._outbox.announce_left(self.me)
            case TimeToSettle():
                self._settle()
            case TimeToForget():
                self._forget()
            case ResultsCompacted():
                if isinstance(message.error, StorageUnreadable):
                    self._unreadable = message.error.message
                if self._commit():
                    self._compaction.written(message, self.me)
                else:
                    self._timers.tell_after(SETTLE_AFTER_S, self.me, message)
            case _:
                assert_never(message)
        self._commit_if_due()
        return None

    # --- storing ---

    def _store(self, request: StoreResult) -> Later[AcceptedResult] | AcceptedResult:
        answer = None
        if request.idempotency_key is not None:
            answer = self._answer(request, request.idempotency_key)
            repeated = self._repeated(request, answer)
            if repeated is not None:
                return repeated
        now = utc_now()
        result = StoredResult(
            id=ResultId(""),  # it gets one with its place
            project_id=request.project_id,
            issue_id=request.issue_id,
            agent_id=request.agent_id,
            agent_type=request.agent_type,
            status=request.status,
            result=request.result,
            timestamp=request.timestamp or now,
            stored_at=now,
            traceparent=request.traceparent,
        )
        place, head = self._results.put(result, answer)
        if not self._group:
            self._group_since = time.monotonic()
        self._group[place] = head
        size = len(bytes(request.result))
        if size >= LARGE_BYTES:
            give_back_large_blocks()
        self._group_bytes += size
        later: Later[AcceptedResult] = self.later()
        self._outbox.wait(place, later)
        self._commit_if_due()
        return later

    def _answer(self, request: StoreResult, idempotency_key: str) -> StoredAnswer:
        """The record that recognises a repeat of this request."""
        return StoredAnswer(
            key=f"{request.project_id} {request.agent_id} {idempotency_key}",
            digest=digest_of(
                request.issue_id,
                request.agent_type,
                request.status,
                request.timestamp.isoformat() if request.timestamp else None,
                bytes(request.result),
            ),
            next_agents=next_agents(self._profiles, request.agent_type, request.status),
        )

    def _repeated(self, request: StoreResult, answer: StoredAnswer) -> Later[AcceptedResult] | AcceptedResult | None:
        """The answer, given or pending, to an earlier request with the same key; None without one."""
        known = self._results.answer_to(answer.key)
        if known is None:
            return None
        place, first = known
        if first.digest != answer.digest:
            raise IdempotencyConflict(
                f"agent {request.agent_id} used this idempotency key before, for another result",
                field="Idempotency-Key",
                expected="a new key for a new result",
            )
        result = self._results.head_at(place)
        event_id = first.event_id or self._outbox.event_of(place)
        if result is not None and event_id is not None:
            return stored(result, first.next_agents, event_id)
        later: Later[AcceptedResult] = self.later()
        self._outbox.wait(place, later)
        self._commit_if_due()
        return later

    def _commit_if_due(self) -> None:
        if self._group and (
            self.mailbox_depth() == 0
            or len(self._group) >= GROUP_RESULTS
            or self._group_bytes >= GROUP_BYTES
            or time.monotonic() - self._group_since >= GROUP_WAIT_S
        ):
            self._commit()

    def _commit(self) -> bool:
        """Make everything durable and announce the results. Returns whether that worked; if not, the requests get the
        error."""
        group, self._group, self._group_bytes = self._group, {}, 0
        try:
            self._results.commit()
        except StorageUnavailable as error:
            self._not_committed(group, error)
            return False
        if group:
            self._problem = None
            self._settle_after(SETTLE_AFTER_S)
        for place, head in group.items():
            self._outbox.announce(place, self.me, head)
        self._compaction.start_if_worth(self.me)
        return True

    def _not_committed(self, group: Iterable[int], error: StorageUnavailable) -> None:
        self._problem = error.message
        refused = list(group)
        log.error("results not stored count=%d: %s", len(refused), error.message)
        for place in refused:
            self._outbox.refuse(place, error)
        self._outbox.try_again(self.me)  # results that had left the outbox may be in it again
        failure = self._results.store.stats().failure
        if failure is not None and self._handle is not None:
            # The file must not be synced again: the next incarnation reads what is on the disk. Not at once: the
            # request at hand has to get its error first.
            self._handle.restart(failure)
        else:
            self._compaction.start_if_worth(self.me)  # it may free space

    def _announced(self, fact: ResultAnnounced) -> None:
        self._outbox.announced(fact, self.me)
        self._settle_after(SETTLE_AFTER_S)

    def _settle_after(self, delay_s: float) -> None:
        at = time.monotonic() + delay_s
        if at < self._settle_at:
            self._settle_at = at
            self._timers.tell_after(delay_s, self.me, TimeToSettle())

    def _settle(self) -> None:
        """Commit what could wait, and note in the journal what is synced."""
        if time.monotonic() < self._settle_at:
            return  # a timer that a sooner one has made superfluous
        self._settle_at = math.inf
        next_s = self._outbox.let_go()
        if self._commit():
            self._results.store.settle()
        if next_s is not None:
            self._settle_after(max(next_s, SETTLE_AFTER_S))

    # --- reading: what is stored but not committed is committed first, so that nothing is seen that may vanish ---

    def _get(self, request: GetResult) -> StoredResult:
        if self._group:
            self._commit()
        result = self._results.get(request.result_id)
        if result is None or request.project_id not in (None, result.project_id):
            raise NotFound(f"result {request.result_id} is not known", field="result_id")
        return result

    def _find(self, request: FindResults) -> ResultListing:
        if self._group:
            self._commit()
        results, next_cursor, total = self._results.find(
            project_id=request.project_id,
            issue_id=request.issue_id,
            agent_type=request.agent_type,
            agent_id=request.agent_id,
            status=request.status,
            since=request.since,
            until=request.until,
            limit=request.limit,
            cursor=request.cursor,
        )
        if sum(len(bytes(result.result)) for result in results) >= LARGE_BYTES:
            give_back_large_blocks()
        return ResultListing(results=results, next_cursor=next_cursor, total=total)

    def _count(self, request: CountResults) -> ResultNumbers:
        if self._group:
            self._commit()
        count, size = self._results.count(request.project_id)
        stats = self._results.store.stats()
        return ResultNumbers(
            results_stored=count,
            total_bytes=size,
            storage_path=str(self._directory.parent),
            problem=stats.failure or self._problem or self._unreadable,
            quarantined=stats.quarantined,
        )

    # --- forgetting ---

    def _forget(self) -> None:
        now = time.monotonic()
        retention = timedelta(days=self._options.retention_days)
        if not retention or now < self._forget_at:
            return
        moment = utc_now() - retention
        old, _ = self._results.oldest(moment, FORGET_AT_ONCE)
        self._results.forget(place for place in old if not self._outbox.is_open(place))
        forgotten = self._commit()
        if old and forgotten:
            log.info("results forgotten count=%d stored_before=%s", len(old), moment.isoformat())
        wait_s = 0.0 if forgotten and len(old) == FORGET_AT_ONCE else self._forget_after_s(retention)
        self._forget_at = now + wait_s
        self._timers.tell_after(wait_s, self.me, TimeToForget())

    def _forget_after_s(self, retention: timedelta) -> float:
        """Seconds until the next result is due for deletion, at most FORGET_EVERY_S."""
        now = utc_now()
        _, oldest = self._results.oldest(now, 0)
        due = retention if oldest is None else oldest + retention - now
        return min(max(due.total_seconds(), FORGET_SOONEST_S), FORGET_EVERY_S)
