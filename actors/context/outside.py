"""Outside: what the other actors know of an issue, and what of it says what the work is about."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from ...state.errors import SidecarError
from ...state.models import AgentSpec, Event, StoredResult
from ...supervision.profile import Profiles
from ..messages import BuildContext, FindResults, FindSpec, ListEvents
from ..runtime.asking import Recipient, ask
from .earlier import Earlier, earlier_outputs, last_build_status, said_of_issue
from .order import Order
from .requirements import FilePatterns, known_requirements

ASK_S = 2.0  # what other actors know is worth waiting for, not worth failing for
EARLIER_RESULTS = 50
EARLIER_BYTES = 32 << 20  # of their bodies; a page more may be read
EVENTS = 200  # the newest of the project: enough to find the last build and what was said of an issue
MAX_QUERY_CHARS = 4000


class Outside:
    """Asked from threads that may wait; what does not answer in time is left out."""

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
        return earlier_outputs(self._results_of(request, warnings))

    def _results_of(self, request: BuildContext, warnings: list[str]) -> Iterator[StoredResult]:
        """The newest results of the issue, newest first; one page of them is in memory at a time."""
        until = time.monotonic() + ASK_S
        left, size = EARLIER_RESULTS, 0
        cursor: str | None = None
        while left > 0:
            find = FindResults(project_id=request.project_id, issue_id=request.issue_id, limit=left, cursor=cursor)
            try:
                page = ask(self._results, find, timeout_s=max(until - time.monotonic(), 0.0))
            except SidecarError as error:
                warnings.append(f"earlier results could not be read: {error.message}")
                return
            yield from page.results
            left -= len(page.results)
            size += sum(len(bytes(result.result)) for result in page.results)
            cursor = page.next_cursor
            if cursor is None:
                return
            if left > 0 and size > EARLIER_BYTES:
                warnings.append(f"results of this issue before {page.results[-1].id} are left out: too large in all")
                return

    def _events(self, request: BuildContext, warnings: list[str]) -> tuple[Event, ...]:
        """The project's events, newest first."""
        try:
            page = ask(self._bus, ListEvents(project_id=request.project_id, limit=EVENTS), timeout_s=ASK_S)
        except SidecarError as error:
            warnings.append(f"events are not known: {error.message}")
            return ()
        return page.events


def _query(request: BuildContext, spec: AgentSpec | None, earlier: Earlier, events: Iterable[Event]) -> tuple[str, str]:
    """The text that says what the work is about, and its source."""
    if request.query:
        return request.query[:MAX_QUERY_CHARS], "q"
    if spec is not None and spec.task:
        return spec.task[:MAX_QUERY_CHARS], "task"
    if earlier.words:
        return earlier.words[:MAX_QUERY_CHARS], "results"
    if said := said_of_issue(events, request.issue_id):
        return said[:MAX_QUERY_CHARS], "events"
    return "", "changes"
