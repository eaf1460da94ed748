"""Wire names of contexts. The bundle itself comes from the ContextBuilder as JSON; its shape stands here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from ...actors.context.requirements import REQUIREMENTS
from ...actors.replies import ContextCleared
from .codec import Nothing, Timed
from .shapes import Globs

MIN_BYTES = 8 * 1024  # of a context; the ContextBuilder refuses to cut one further
_ONE = "|".join(REQUIREMENTS)
Requirements = Annotated[str, Meta(extra_json_schema={"pattern": f"^(({_ONE})(,({_ONE}))*)?$"})]


class ContextQuery(Nothing, frozen=True, kw_only=True):
    """requirements, files: comma lists. q: what the work is about."""

    requirements: Requirements = ""
    files: Globs = ""
    q: str = ""
    max_bytes: Annotated[int, Meta(extra_json_schema={"minimum": MIN_BYTES})] | None = None
    refresh: bool = False


class ContextAnswer(Timed, frozen=True, kw_only=True):
    issue_id: str
    agent_type: str
    context: dict[str, Any]
    truncated: bool
    truncation_strategy: str
    total_size_bytes: int
    file_count: int
    cache_hit: bool


class CacheCleared(Timed, frozen=True, kw_only=True):
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
