"""BuildInputs: collects what the other actors know about an issue, and the text that says what the work is about."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Generic

import msgspec

from ...state.errors import SidecarError
from ...state.models import AgentSpec, Event, StoredResult
from ...supervision.profile import Profiles
from ..messages import BuildContext, FindResults, FindSpec, ListEvents
from ..replies import ResultListing
from ..runtime.asking import R, Recipient, Request
from .build_request import BuildRequest
from .earlier import Earlier, earlier_outputs, last_build_status, said_of_issue
from .requirements import FilePatterns, known_requirements

ASK_S = 2.0  # what other actors know is worth waiting for, not worth failing for
EARLIER_RESULTS = 50
EARLIER_BYTES = 32 << 20  # of their bodies; a page more may be read
EVENTS = 200  # the newest of the project: enough to find the last build and what was said of an issue
MAX_QUERY_CHARS = 4000


class BuildInputs:
    """Asks the other actors, all at once. For threads that may wait; an answer that comes too late is left out."""

    def __init__(self, spawner: Recipient, results: Recipient, bus: Recipient) -> None:
        self._spawner = spawner
        self._results = results
        self._bus = bus

    def of(
        self,
        request: BuildContext,
        requirements: frozenset[str],
        patterns: FilePatterns,
        max_bytes: int,
        profiles: Profiles,
    ) -> BuildRequest:
        """The request with everything that is known about its issue, and a warning for each part that is missing."""
        until = time.monotonic() + ASK_S
        asked_spec = _Question(self._spawner, FindSpec(agent_id=request.agent_id))
        asked_results = _Question(self._results, _first_results(request))
        asked_events = _Question(self._bus, ListEvents(project_id=request.project_id, limit=EVENTS))
        warnings: list[str] = []
        spec = asked_spec.answer(until, "the agent's task is not known", warnings)
        # The token names the asker; what an agent of another project was asked to do is not for this one.
        if spec is not None and spec.project_id != request.project_id:
            spec = None
        if not requirements and spec is not None:
            requirements, unknown = known_requirements(spec.context_requirements)
            warnings += unknown
        earlier = earlier_outputs(self._results_of(request, asked_results, until, warnings))
        page = asked_events.answer(until, "events are not known", warnings)
        events = page.events if page is not None else ()
        query, query_from = _query(request, spec, earlier, events)
        return BuildRequest(
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

    def _results_of(
        self, request: BuildContext, asked: _Question[ResultListing], until: float, warnings: list[str]
    ) -> Iterator[StoredResult]:
        """The newest results of the issue, newest first; one page of them is in memory at a time."""
        left, size = EARLIER_RESULTS, 0
        while True:
            page = asked.answer(until, "earlier results could not be read", warnings)
            if page is None:
                return
            yield from page.results
            left -= len(page.results)
            size += sum(len(bytes(result.result)) for result in page.results)
            if page.next_cursor is None or left <= 0:
                return
            if size > EARLIER_BYTES:
                warnings.append(f"results of this issue before {page.results[-1].id} are left out: too large in all")
                return
            find = msgspec.structs.replace(_first_results(request), limit=left, cursor=page.next_cursor)
            asked = _Question(self._results, find)


def _first_results(request: BuildContext) -> FindResults:
    return FindResults(project_id=request.project_id, issue_id=request.issue_id, limit=EARLIER_RESULTS)


class _Question(Generic[R]):
    """A request that was sent to an actor, and whose answer can be waited for later."""

    def __init__(self, recipient: Recipient, request: Request[R]) -> None:
        self._recipient = recipient
        self._request = request
        self._later = recipient.request(request)

    def answer(self, until: float, missing: str, warnings: list[str]) -> R | None:
        """The answer, or None and a warning if there is none in time. until: monotonic seconds."""
        try:
            return self._later.result(max(until - time.monotonic(), 0.0))
        except TimeoutError:
            self._later.cancel()
            what = f"{self._recipient.name} did not answer {type(self._request).__name__} within {ASK_S:g} s"
            warnings.append(f"{missing}: {what}")
        except SidecarError as error:
            warnings.append(f"{missing}: {error.message}")
        return None


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
