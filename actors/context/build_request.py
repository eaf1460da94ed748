"""BuildRequest: a request for a context, with what the rest of the sidecar knows about the issue."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ...state.identity import AgentClass
from .earlier import Earlier
from .requirements import FilePatterns


class BuildRequest(NamedTuple):
    """A context to build, with all that the rest of the sidecar knows about it."""

    issue_id: str
    agent_type: str
    agent_class: AgentClass
    requirements: frozenset[str]
    patterns: FilePatterns
    query: str
    query_from: str
    max_bytes: int
    refresh: bool
    earlier: Earlier
    last_build_status: str | None
    warnings: tuple[str, ...]

    @property
    def version(self) -> str:
        """The same for requests that give the same context of an unchanged project."""
        told = self._replace(requirements=frozenset(), patterns=FilePatterns(()), refresh=False)[5:]
        kept = (*self[:3], sorted(self.requirements), self.patterns.patterns, *told)
        return hashlib.blake2b(repr(kept).encode("utf-8", "replace"), digest_size=16).hexdigest()
