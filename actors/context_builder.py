"""ContextBuilder: gives each agent the part of its project that matters to its task, from the cache while that is true.

The actor owns the cache and never waits. A pool of its own threads asks the other actors, reads git and the files,
and tells the actor what came of it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from ..state.clock import utc_now
from ..state.errors import ContextFailed, InvalidContextRequest, SidecarError
from ..state.models import AgentSpec, Event
from ..state.projects import Projects
from ..supervision.profile import Profiles
from .asking import Fact, Later, Recipient, ask
from .context.build import Built, build
from .context.earlier import Earlier, earlier_outputs, last_build_status, said_of_issue
from .context.emit import finished
from .context.fragments import FragmentCache
from .context.index_client import IndexClient
from .context.options import ContextOptions
from .context.order import Order
from .context.project import Project
from .context.requirements import FilePatterns, checked_requirements, known_requirements
from .messages import (
    BuildContext,
    ClearContext,
    ContextBuilderRequest,
    CountContexts,
    FindResults,
    FindSpec,
    ListEvents,
)
from .owner import Owner
from .replies import ContextBundle, ContextCleared, ContextNumbers
from .timers import Timers

log = logging.getLogger(__name__)

ASK_S = 2.0  # what other actors know is worth waiting for, not worth failing for
BUILD_THREADS = 4  # builds of one project take turns; more threads would only share one interpreter
MIN_BYTES = 8 * 1024  # below that the sections alone do not fit
EARLIER_RESULTS = 50
EVENTS = 200  # the newest of the project: enough to find the last build and what was said of an issue
MAX_QUERY_CHARS = 4000


_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Ready(Fact):
    """A pool thread has built a context, or could not."""

    key: _Key
    later: Later[ContextBundle]
    built: Built | None
    was_kept: bool
    if_none_match: str | None
    error: BaseException | None = None


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
    ) -> None:
        super().__init__()
        self._roots = projects
        self._profiles = profiles
        self._options = options
        self._outside = _Outside(spawner, results, bus)
        self._timers = timers
        half = options.cache_mb * 1024 * 1024 // 2
        self._cache = _Contexts(half)
        self._fragments = FragmentCache(half)
        self._index = IndexClient()
        self._projects: dict[Path, Project] = {}
        self._pool = ThreadPoolExecutor(max_workers=BUILD_THREADS, thread_name_prefix="context")

    def handle(
        self, message: ContextBuilderRequest | _Ready
    ) -> Later[ContextBundle] | ContextCleared | ContextNumbers | None:
        match message:
            case BuildContext():
                return self._build(message)
            case _Ready():
                self._ready(message)
                return None
            case ClearContext(project_id=project_id, issue_id=issue_id):
                return self._cache.clear(project_id, issue_id)
            case CountContexts(project_id=project_id):
                return self._cache.numbers(project_id)
            case _:
                assert_never(message)

    def release(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for project in self._projects.values():
            project.close()
        self._index.close()

    def _build(self, request: BuildContext) -> Later[ContextBundle]:
        requirements = checked_requirements(request.requirements)
        patterns = FilePatterns(request.files)
        max_bytes = self._budget(request.max_bytes)
        project = self._project(self._roots.root_of(request.project_id))
        key = (
            request.project_id,
            request.issue_id,
            request.agent_type,
            request.agent_id,
            tuple(sorted(requirements)),
            patterns.patterns,
            request.query,
            max_bytes,
        )
        kept = None if request.refresh else self._cache.get(key)
        later: Later[ContextBundle] = Later()
        me, index = self.me, self._index

        def work() -> None:
            if later.cancelled():
                return
            try:
                order = self._outside.order(request, requirements, patterns, max_bytes, self._profiles)
                with project.lock:
                    built, was_kept = build(order, project, index, kept)
                fact = _Ready(key, later, built, was_kept, request.if_none_match)
            except SidecarError as error:
                fact = _Ready(key, later, None, False, None, error)
            except Exception as error:
                log.exception("context not built project=%s issue=%s", request.project_id, request.issue_id)
                fact = _Ready(key, later, None, False, None, error)
            me.tell(fact)

        self._pool.submit(work)
        return later

    def _budget(self, asked: int | None) -> int:
        if asked is None:
            return self._options.max_bytes
        if asked < MIN_BYTES:
            raise InvalidContextRequest(
                f"max_bytes is {asked}", field="max_bytes", expected=f"at least {MIN_BYTES}, in bytes"
            )
        return min(asked, self._options.max_bytes)

    def _project(self, root: Path) -> Project:
        project = self._projects.get(root)
        if project is None:
            project = Project(
                root,
                self._fragments,
                max_file_bytes=self._options.max_file_bytes,
                exclude=self._options.exclude,
                watches=self._options.watch,
            )
            self._projects[root] = project
        return project

    def _ready(self, fact: _Ready) -> None:
        if fact.built is None:
            fact.later.refuse(_tellable(fact.error))
            return
        self._cache.count(hit=fact.was_kept)
        if not fact.was_kept:
            self._cache.put(fact.key, fact.built)
        if fact.if_none_match is not None and _names(fact.if_none_match, fact.built.etag):
            fact.later.answer(ContextBundle(None, fact.built.etag, cache_hit=fact.was_kept))
            return
        body = finished(fact.built.core, cache_hit=fact.was_kept, at=utc_now())
        fact.later.answer(ContextBundle(body, fact.built.etag, cache_hit=fact.was_kept))


def _tellable(error: BaseException | None) -> SidecarError:
    if isinstance(error, SidecarError):
        return error
    return ContextFailed("the context could not be built; the log says why")


def _names(if_none_match: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 section 13.1.2 asks for If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


class _Outside:
    """What other actors know of an issue. Asked from pool threads only; what does not answer in time is left out."""

    def __init__(self, spawner: Recipient, results: Recipient, bus: Recipient) -> None:
        self._spawner = spawner
        self._results = results
        self._bus = bus

    def order(
        self,
        request: BuildContext,
        requirements: frozenset[str],
        patterns: FilePatterns,
        max_bytes: int,
        profiles: Profiles,
    ) -> Order:
        warnings: list[str] = []
        spec = self._spec(request, warnings)
        if not requirements and spec is not None:
            requirements, unknown = known_requirements(spec.context_requirements)
            warnings += unknown
        earlier = self._earlier(request, warnings)
        events = self._events(request, warnings)
        query, query_from = _query(request, spec, earlier, events)
        return Order(
            issue_id=request.issue_id,
            agent_type=request.agent_type,
            agent_class=profiles.of(request.agent_type).agent_class,
            requirements=requirements,
            patterns=patterns,
            query=query,
            query_from=query_from,
            max_bytes=max_bytes,
            refresh=request.refresh,
            earlier=earlier,
            last_build_status=last_build_status(events, earlier.outputs),
            warnings=tuple(warnings),
        )

    def _spec(self, request: BuildContext, warnings: list[str]) -> AgentSpec | None:
        try:
            spec = ask(self._spawner, FindSpec(agent_id=request.agent_id), timeout_s=ASK_S)
        except SidecarError as error:
            warnings.append(f"the agent's task is not known: {error.message}")
            return None
        # A token tells who asks; what another project's agent was told is not for this one.
        return spec if spec is not None and spec.project_id == request.project_id else None

    def _earlier(self, request: BuildContext, warnings: list[str]) -> Earlier:
        find = FindResults(project_id=request.project_id, issue_id=request.issue_id, limit=EARLIER_RESULTS)
        try:
            return earlier_outputs(ask(self._results, find, timeout_s=ASK_S).results)
        except SidecarError as error:
            warnings.append(f"earlier results are not known: {error.message}")
            return earlier_outputs(())

    def _events(self, request: BuildContext, warnings: list[str]) -> tuple[Event, ...]:
        """The project's events, newest first."""
        try:
            page = ask(self._bus, ListEvents(project_id=request.project_id, limit=EVENTS), timeout_s=ASK_S)
        except SidecarError as error:
            warnings.append(f"events are not known: {error.message}")
            return ()
        return page.events


def _query(request: BuildContext, spec: AgentSpec | None, earlier: Earlier, events: Iterable[Event]) -> tuple[str, str]:
    """What the work is about, and who said so."""
    if request.query:
        return request.query, "q"
    if spec is not None and spec.task:
        return spec.task, "task"
    if earlier.words:
        return earlier.words[:MAX_QUERY_CHARS], "results"
    if said := said_of_issue(events, request.issue_id):
        return said[:MAX_QUERY_CHARS], "events"
    return "", "changes"


class _Contexts:
    """Contexts ready to send, the least recently used dropped beyond `max_bytes`."""

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
        self._bytes += len(built.core)
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
        size = len(gone.core) if gone is not None else 0
        self._bytes -= size
        return size


def _is_of(key: _Key, project_id: str | None, issue_id: str | None) -> bool:
    return (project_id is None or key[0] == project_id) and (issue_id is None or key[1] == issue_id)
