"""Wire names of contexts. The bundle itself comes from the ContextBuilder as JSON; its shape stands here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...actors.context.requirements import REQUIREMENTS
from ...actors.replies import ContextCleared, ContextRequested
from ...state.models import AgentId, ResultStatus
from .codec import Nothing, Timed
from .shapes import Globs, Moment, described_range

MIN_BYTES = 8 * 1024  # of a context; the ContextBuilder refuses to cut one further
_ONE = "|".join(REQUIREMENTS)
Requirements = Annotated[
    str,
    Meta(
        extra_json_schema={
            "title": f"comma list of {', '.join(REQUIREMENTS)}",
            "pattern": f"^(({_ONE})(,({_ONE}))*)?$",
        }
    ),
]


class ContextQuery(Nothing, frozen=True, kw_only=True):
    """What a context should hold.

    requirements, files: comma-separated. q: a description of the work.
    """

    requirements: Requirements = ""
    files: Globs = ""
    q: str = ""
    max_bytes: Annotated[int, described_range(MIN_BYTES)] | None = None
    refresh: bool = False


class ProjectStructure(msgspec.Struct, frozen=True, kw_only=True):
    """The tree. If it is cut, the part nearest the root stays; `files_in_directory` counts the files of a folder."""

    root: str
    files: list[str]
    directories: list[str]
    total_files: int
    total_size_bytes: int
    files_in_directory: dict[str, int] | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET


class Excerpt(msgspec.Struct, frozen=True):
    """Line numbers from 1, including the last."""

    start_line: int
    end_line: int


class RelevantFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the project. checksum: of the whole file. excerpts: the lines in `content`, if it is not the start.

    score: relative to the first file. why: the main reasons for choosing it. redacted: number of redacted secrets.
    """

    path: str
    content: str
    last_modified: Moment
    size: int
    language: str
    checksum: str | None
    truncated: bool
    encoding: str | UnsetType = UNSET
    redacted: int | UnsetType = UNSET
    excerpts: list[Excerpt] | UnsetType = UNSET
    score: float
    why: str


class CommitOut(msgspec.Struct, frozen=True, kw_only=True):
    """A commit of the project's history. hash: as git writes it in full."""

    hash: str
    message: str
    author: str
    timestamp: Moment
    files_changed: list[str]
    files_changed_total: int | UnsetType = UNSET


class ChangeOut(msgspec.Struct, frozen=True, kw_only=True):
    """A changed file. diff: lines added and removed, such as `+10 -5`; null if they cannot be counted."""

    path: str
    status: str
    diff: str | None


class GitContext(msgspec.Struct, frozen=True, kw_only=True):
    """What git says of the project.

    branch: null without a repository or with a detached head. problem: the missing parts, and why.
    """

    branch: str | None
    head: str | None
    remote: str | None
    remote_url: str | None
    recent_commits: list[CommitOut]
    uncommitted_changes: list[ChangeOut]
    problem: str | UnsetType = UNSET


class AgentOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an earlier agent of the issue."""

    agent: str
    agent_type: str
    timestamp: Moment
    status: ResultStatus
    decision: str | None
    decisions: list[Any]
    files_affected: list[str]
    next_steps: list[Any]
    errors: list[Any]
    warnings: list[Any]
    result_id: str


class CoverageReport(msgspec.Struct, frozen=True):
    """A coverage report. stale: older than the newest commit."""

    path: str
    stale: bool


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What files of the project say of it.

    dependencies: as written in the manifests. test_coverage: percent of lines, from the newest report.
    """

    project_type: str
    project_types: list[str]
    languages: list[str]
    dependencies: list[str]
    dependency_count: int
    manifests: list[str]
    test_coverage: float | None
    coverage_report: CoverageReport | None
    last_build_status: str | None
    problems: list[str]


class OmissionOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was left out, cut or redacted; ask for it with `files`."""

    path: str
    reason: str
    size: int | None


class ContextOut(msgspec.Struct, frozen=True, kw_only=True):
    """A context.

    relevant_files: most relevant first. omitted: a limited list; omitted_counts: all of them, by reason.
    """

    project_structure: ProjectStructure
    relevant_files: list[RelevantFile]
    git_context: GitContext
    previous_agent_outputs: list[AgentOutput]
    metadata: Metadata
    omitted: list[OmissionOut]
    omitted_counts: dict[str, int]


class QueryUsed(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The text that the files were chosen for, and its source."""

    from_: str
    text: str


class ContextAnswer(Timed, frozen=True, kw_only=True):
    """A context. index: whether words of files could be looked up: ready, warming or unavailable."""

    issue_id: str
    agent_type: str
    context: ContextOut
    truncated: bool
    truncation_strategy: str
    total_size_bytes: int
    estimated_tokens: int
    file_count: int
    max_bytes: int
    index: str
    query: QueryUsed
    warnings: list[str]
    cache_hit: bool


class ContextRequestOut(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a context. q, files, requirements: as requested.

    outcome: sent, unchanged (304), or the kind of error. size_bytes: of the answer. file_count: of the context.
    """

    at: Moment
    issue_id: str
    agent_type: str
    q: str
    files: list[str]
    requirements: list[str]
    outcome: str
    took_ms: float
    size_bytes: int
    file_count: int
    truncation_strategy: str
    cache_hit: bool

    @classmethod
    def of(cls, request: ContextRequested) -> ContextRequestOut:
        return cls(
            at=request.at,
            issue_id=request.issue_id,
            agent_type=request.agent_type,
            q=request.query,
            files=list(request.files),
            requirements=list(request.requirements),
            outcome=request.outcome,
            took_ms=request.took_ms,
            size_bytes=request.size_bytes,
            file_count=request.file_count,
            truncation_strategy=request.truncation_strategy,
            cache_hit=request.cache_hit,
        )


class ContextsListed(Timed, frozen=True, kw_only=True):
    """The last 50 of an agent, newest first. since: earlier requests are not known."""

    agent_id: AgentId
    contexts: list[ContextRequestOut]
    since: Moment


class CacheCleared(Timed, frozen=True, kw_only=True):
    """How many cached contexts were forgotten, and how many bytes they took."""

    cleared: bool
    entries_removed: int
    bytes_freed: int

    @classmethod
    def of(cls, cleared: ContextCleared, *, now: datetime) -> CacheCleared:
        return cls(
            cleared=True,
            entries_removed=cleared.entries_removed,
            bytes_freed=cleared.bytes_freed,
            timestamp=now,
        )
