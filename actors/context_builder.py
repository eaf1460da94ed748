"""ContextBuilder: gives each agent the part of its project that matters to its task, from the cache while that is true.

The actor owns the cache and never waits. A pool of its own threads asks the other actors, reads git and the files,
and tells the actor what came of it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from ..state.clock import utc_now
from ..state.errors import ContextFailed, InvalidContextRequest, SidecarError
from ..state.projects import Projects
from ..supervision.profile import Profiles
from .context.options import ContextOptions
from .context.requests import RequestsSeen
from .messages import BuildContext, ClearContext, ContextBuilderRequest, CountContexts, ListContextRequests
from .replies import ContextBundle, ContextCleared, ContextNumbers, ContextRequested, ContextRequests
from .runtime.asking import Fact, Later, Recipient
from .runtime.owner import Owner
from .runtime.timers import Timers

if TYPE_CHECKING:
    from .context.build import Built
    from .context.service import ContextService

log = logging.getLogger(__name__)

BUILD_THREADS = 4  # of as many projects; builds of one take turns
MIN_BYTES = 8 * 1024  # below that the sections alone do not fit
MAX_QUERY_NOTED = 500  # characters, of what a request for a context is remembered by
MAX_FILES_NOTED, MAX_PATTERN_NOTED = 20, 200  # patterns, and characters of each
_TEXT_BYTES, _STAMP_BYTES = 60, 300  # of memory: for a text besides its characters, for a path with its stamp
WARM_UP_AFTER_S = 10.0  # by then a fleet that is started with the sidecar runs

_Key = tuple[object, ...]


class _Arrival(msgspec.Struct, frozen=True):
    """A request and the time of its arrival. began: the same time in monotonic seconds."""

    request: BuildContext
    at: datetime
    began: float


class _Ready(Fact, frozen=True):
    """A pool thread has built a context, or could not. body: None also if the client has it already."""

    key: _Key
    asked: _Arrival
    later: Later[ContextBundle]
    built: Built | None
    was_kept: bool
    body: bytes | None = None
    error: BaseException | None = None


class _Skipped(Fact, frozen=True):
    """A build was skipped, because nobody waits for it any more."""

    project_id: str


class _WarmUp(Fact, frozen=True):
    """Be ready for the first request, if there was none yet."""


class ContextBuilder(Owner):
    """Owns the contexts that are ready. See `messages.py` for what it answers."""

    def __init__(
        self,
        *,
        projects: Projects,
        profiles: Profiles,
        options: ContextOptions,
        spawner: Recipient,
        results: Recipient,
        bus: Recipient,
        timers: Timers,
        storage: Path | None = None,
    ) -> None:
        super().__init__()
        self._storage = storage
        self._roots = projects
        self._profiles = profiles
        self._options = options
        self._others = (spawner, results, bus)
        self._timers = timers
        half = options.cache_mb * 1024 * 1024 // 2
        self._cache = _Contexts(half)
        self._fragments_bytes = half
        self._service: ContextService | None = None
        self._seen = RequestsSeen(since=utc_now())
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._building: set[str] = set()  # projects of which a thread builds a context
        self._pool = ThreadPoolExecutor(max_workers=BUILD_THREADS, thread_name_prefix="context")

    def on_start(self) -> None:
        self._timers.tell_after(WARM_UP_AFTER_S, self.me, _WarmUp())

    def handle(
        self, message: ContextBuilderRequest | _Ready | _Skipped | _WarmUp
    ) -> Later[ContextBundle] | ContextCleared | ContextNumbers | ContextRequests | None:
        match message:
            case BuildContext():
                return self._build(message)
            case _Ready():
                self._end(message.asked.request.project_id)
                self._ready(message)
                return None
            case _Skipped(project_id=project_id):
                self._end(project_id)
                return None
            case _WarmUp():
                self._pool.submit(_import_service)
                return None
            case ClearContext(project_id=project_id, issue_id=issue_id):
                return self._cache.clear(project_id, issue_id)
            case CountContexts(project_id=project_id):
                return self._cache.numbers(project_id)
            case ListContextRequests(agent_id=agent_id, project_id=project_id):
                return self._seen.of(agent_id, project_id)
            case _:
                assert_never(message)

    def release(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._service is not None:
            self._service.close()

    def _opened(self) -> ContextService:
        if self._service is None:
            self._service = _import_service()(
                self._options,
                *self._others,
                self._profiles,
                fragments_bytes=self._fragments_bytes,
                storage=self._storage,
            )
        return self._service

    def _build(self, request: BuildContext) -> Later[ContextBundle]:
        service = self._opened()
        checked = service.checked(request, self._budget(request.max_bytes))
        project = service.project(self._roots.root_of(request.project_id))
        key = (
            request.project_id,
            request.issue_id,
            request.agent_type,
            request.agent_id,
            tuple(sorted(checked.requirements)),
            checked.patterns.patterns,
            request.query,
            checked.max_bytes,
        )
        kept = None if request.refresh else self._cache.get(key)
        later: Later[ContextBundle] = self.later()
        me, asked = self.me, _Arrival(request, utc_now(), time.monotonic())

        def work() -> None:
            if later.cancelled():
                me.tell(_Skipped(request.project_id))
                return
            try:
                built, was_kept = service.build(request, checked, project, kept)
                if request.if_none_match is not None and _names(request.if_none_match, built.etag):
                    body = None
                else:  # here, since to copy ten megabytes would keep the actor for milliseconds
                    body = service.finish(built, cache_hit=was_kept, at=utc_now())
                fact = _Ready(key, asked, later, built, was_kept, body)
            except SidecarError as error:
                fact = _Ready(key, asked, later, None, False, error=error)
            except Exception as error:
                log.exception("context not built project=%s issue=%s", request.project_id, request.issue_id)
                fact = _Ready(key, asked, later, None, False, error=error)
            me.tell(fact)

        self._waiting.setdefault(request.project_id, deque()).append(work)
        self._begin(request.project_id)
        return later

    def _begin(self, project_id: str) -> None:
        """Give the next build of a project a thread, unless one of them has one.

        They take turns anyway, and a project whose builds take long should not hold every thread.
        """
        waiting = self._waiting[project_id]
        if waiting and project_id not in self._building:
            self._building.add(project_id)
            self._pool.submit(waiting.popleft())
        elif not waiting:
            del self._waiting[project_id]

    def _end(self, project_id: str) -> None:
        self._building.discard(project_id)
        if project_id in self._waiting:
            self._begin(project_id)

    def _budget(self, asked: int | None) -> int:
        if asked is None:
            return self._options.max_bytes
        if asked < MIN_BYTES:
            raise InvalidContextRequest(
                f"max_bytes is {asked}", field="max_bytes", expected=f"at least {MIN_BYTES}, in bytes"
            )
        return min(asked, self._options.max_bytes)

    def _ready(self, fact: _Ready) -> None:
        if fact.built is None:
            error = _tellable(fact.error)
            self._note(fact, error.code)
            fact.later.refuse(error)
            return
        self._cache.count(hit=fact.was_kept)
        if not fact.was_kept:
            self._cache.put(fact.key, fact.built)
        if fact.body is None:
            self._note(fact, "unchanged")
        else:
            self._note(fact, "sent", size_bytes=len(fact.body))
        fact.later.answer(ContextBundle(fact.body, fact.built.etag, cache_hit=fact.was_kept))

    def _note(self, fact: _Ready, outcome: str, *, size_bytes: int = 0) -> None:
        request = fact.asked.request
        requested = ContextRequested(
            at=fact.asked.at,
            issue_id=request.issue_id,
            agent_type=request.agent_type,
            query=self._opened().without_secrets(request.query, MAX_QUERY_NOTED),
            files=tuple(pattern[:MAX_PATTERN_NOTED] for pattern in request.files[:MAX_FILES_NOTED]),
            requirements=request.requirements,
            outcome=outcome,
            took_ms=round((time.monotonic() - fact.asked.began) * 1000, 1),
            size_bytes=size_bytes,
            file_count=fact.built.file_count if fact.built is not None else 0,
            truncation_strategy=fact.built.strategy if fact.built is not None else "none",
            cache_hit=fact.was_kept,
        )
        self._seen.add(request.project_id, request.agent_id, requested)


def _import_service() -> type[ContextService]:
    from .context.service import ContextService  # a start waits for none of what it imports

    return ContextService


def _tellable(error: BaseException | None) -> SidecarError:
    if isinstance(error, SidecarError):
        return error
    return ContextFailed("the context could not be built; the log says why")


def _names(if_none_match: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 section 13.1.2 asks for If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


class _Contexts:
    """Contexts ready to send, the least recently used dropped beyond `max_bytes`, which questions count towards too."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[_Key, Built] = OrderedDict()
        self._hits = 0
        self._misses = 0

    def get(self, key: _Key) -> Built | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: _Key, built: Built) -> None:
        self._drop(key)
        self._kept[key] = built
        self._bytes += _size_of(key, built)
        while self._bytes > self._max_bytes and self._kept:
            self._drop(next(iter(self._kept)))

    def count(self, *, hit: bool) -> None:
        self._hits += hit
        self._misses += not hit

    def clear(self, project_id: str | None, issue_id: str | None) -> ContextCleared:
        gone = [key for key in self._kept if _is_of(key, project_id, issue_id)]
        freed = sum(self._drop(key) for key in gone)
        return ContextCleared(entries_removed=len(gone), bytes_freed=freed)

    def numbers(self, project_id: str | None) -> ContextNumbers:
        kept = [built for key, built in self._kept.items() if _is_of(key, project_id, None)]
        asked = self._hits + self._misses
        return ContextNumbers(
            cache_entries=len(kept),
            cache_bytes=sum(len(built.core) for built in kept),
            cache_hit_rate=self._hits / asked if asked else 0.0,
        )

    def _drop(self, key: _Key) -> int:
        gone = self._kept.pop(key, None)
        if gone is None:
            return 0
        self._bytes -= _size_of(key, gone)
        return len(gone.core)


def _size_of(key: _Key, built: Built) -> int:
    """About how many bytes a context takes in memory: the answer, the question, and the state of each file sent."""
    texts = [text for part in key for text in (part if isinstance(part, tuple) else (part,)) if isinstance(text, str)]
    return len(built.core) + sum(_TEXT_BYTES + len(text) for text in texts) + _STAMP_BYTES * len(built.stamps)


def _is_of(key: _Key, project_id: str | None, issue_id: str | None) -> bool:
    return (project_id is None or key[0] == project_id) and (issue_id is None or key[1] == issue_id)
