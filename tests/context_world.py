"""Projects on the disk and contexts built of them, for the tests of contexts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.actors.context.build import Built, build
from sidecar.actors.context.build_request import BuildRequest
from sidecar.actors.context.earlier import Earlier, earlier_outputs
from sidecar.actors.context.emit import finished
from sidecar.actors.context.fragments import FragmentCache
from sidecar.actors.context.git.repository import Shadows
from sidecar.actors.context.index.client import IndexClient
from sidecar.actors.context.options import ContextOptions
from sidecar.actors.context.project import Project
from sidecar.actors.context.requirements import FilePatterns
from sidecar.actors.context_builder import ContextBuilder
from sidecar.actors.messages import BuildContext, FindResults, FindSpec, ListEvents
from sidecar.actors.replies import ContextBundle, EventPage, ResultListing
from sidecar.actors.runtime.actor_supervisor import ActorHandle, ActorSupervisor
from sidecar.actors.runtime.asking import Fact, Later, R, Request, ask
from sidecar.actors.runtime.timers import Timers
from sidecar.state.clock import utc_now
from sidecar.state.errors import Unavailable
from sidecar.state.identity import class_of
from sidecar.state.models import AgentId, AgentSpec, Event, StoredResult
from sidecar.state.projects import Projects
from sidecar.supervision.profile import Profiles

_ENVIRON = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(root: Path, *arguments: str, check: bool = True, **environ: str) -> str:
    ran = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=root,
        env=_ENVIRON | environ,
        check=check,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return ran.stdout


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def repository(root: Path, files: Mapping[str, str | bytes], message: str = "Begin") -> Path:
    """A git repository of these files and one commit."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main")
    return commit(root, files, message)


def commit(root: Path, files: Mapping[str, str | bytes], message: str) -> Path:
    write(root, files)
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", message)
    return root


def order(agent_type: str = "python-specialist", query: str = "", **changes: Any) -> BuildRequest:
    plain = BuildRequest(
        issue_id="issue-1",
        agent_type=agent_type,
        agent_class=class_of(agent_type),
        requirements=frozenset(),
        patterns=FilePatterns(()),
        query=query,
        query_from="q",
        max_bytes=10 * 1024 * 1024,
        refresh=False,
        earlier=Earlier((), (), "", 0),
        last_build_status=None,
        warnings=(),
    )
    files = changes.pop("files", ())
    return plain._replace(patterns=FilePatterns(files), **changes)


class Builds:
    """Contexts of one folder, built without an actor."""

    def __init__(
        self, root: Path, *, max_file_bytes: int = 1 << 20, exclude: tuple[str, ...] = (), storage: Path | None = None
    ) -> None:
        cache = FragmentCache(8 << 20)
        self.project = Project(
            root,
            cache,
            max_file_bytes=max_file_bytes,
            exclude=exclude,
            watches=False,
            shadows=Shadows(),
            storage=storage,
        )
        self.index = IndexClient()

    def built(self, asked: BuildRequest, kept: Built | None = None) -> tuple[Built, bool]:
        return build(asked, self.project, self.index, kept)

    def raw(self, agent_type: str = "python-specialist", query: str = "", **changes: Any) -> bytes:
        built, _ = self.built(order(agent_type, query, **changes))
        return finished(built.core, cache_hit=False, at=utc_now())

    def answer(self, agent_type: str = "python-specialist", query: str = "", **changes: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.raw(agent_type, query, **changes))
        return answer

    def files(
        self, agent_type: str = "python-specialist", query: str = "", **changes: Any
    ) -> dict[str, dict[str, Any]]:
        """What is sent, by path, in the order it is sent."""
        answer = self.answer(agent_type, query, **changes)
        return {file["path"]: file for file in answer["context"]["relevant_files"]}


def context_of(root: Path, agent_type: str = "python-specialist", query: str = "", **changes: Any) -> dict[str, Any]:
    context: dict[str, Any] = Builds(root).answer(agent_type, query, **changes)["context"]
    return context


def sent_of(root: Path, agent_type: str = "python-specialist", query: str = "", **changes: Any) -> list[str]:
    return list(Builds(root).files(agent_type, query, **changes))


def omitted_of(context: Mapping[str, Any]) -> dict[str, str]:
    return {one["path"]: one["reason"] for one in context["omitted"]}


def earlier(*results: StoredResult) -> Earlier:
    return earlier_outputs(results)


class Neighbours:
    """What the other actors know; `silent` as when they are down."""

    name = "neighbours"

    def __init__(self) -> None:
        self.specs: dict[str, AgentSpec] = {}
        self.results: tuple[StoredResult, ...] = ()
        self.events: tuple[Event, ...] = ()
        self.silent = False

    def tell(self, fact: Fact) -> None:
        pass

    def request(self, request: Request[R]) -> Later[R]:
        later: Later[Any] = Later()
        match request:
            case _ if self.silent:
                later.refuse(Unavailable("nobody is there"))
            case FindSpec(agent_id=agent_id):
                later.answer(self.specs.get(agent_id))
            case FindResults(issue_id=issue_id):
                found = tuple(result for result in self.results if result.issue_id == issue_id)
                later.answer(ResultListing(found, None, len(found)))
            case ListEvents(topic=topic):
                events = tuple(event for event in self.events if topic in (None, event.topic))
                later.answer(EventPage(events, None, len(events)))
        return later


class Contexts:
    """A ContextBuilder under its supervisor."""

    def __init__(self, handle: ActorHandle, neighbours: Neighbours) -> None:
        self.handle = handle
        self.neighbours = neighbours

    def get(self, **changes: Any) -> ContextBundle:
        plain: dict[str, Any] = {
            "issue_id": "issue-1",
            "agent_type": "python-specialist",
            "agent_id": AgentId("agent-1"),
            "project_id": "default",
        }
        return ask(self.handle, BuildContext(**{**plain, **changes}), timeout_s=30.0)

    def answer(self, **changes: Any) -> dict[str, Any]:
        body = self.get(**changes).body
        assert body is not None
        answer: dict[str, Any] = json.loads(body)
        return answer


@contextmanager
def contexts(projects: Projects, **options: Any) -> Iterator[Contexts]:
    """A ContextBuilder over these projects, stopped at the end."""
    neighbours = Neighbours()
    timers = Timers()
    timers.start()
    supervisor = ActorSupervisor(gave_up=lambda name, reason: None)
    handle = supervisor.handle(
        "context_builder",
        lambda: ContextBuilder(
            projects=projects,
            profiles=Profiles({}),
            options=ContextOptions(**options),
            spawner=neighbours,
            results=neighbours,
            bus=neighbours,
            timers=timers,
        ),
    )
    supervisor.start()
    try:
        yield Contexts(handle, neighbours)
    finally:
        supervisor.stop()
        timers.stop()
