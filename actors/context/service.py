"""ContextService: the projects, the index, and everything else that contexts are built with.

The libraries take longer to import than the rest of the sidecar, so the context builder imports this module only when
it needs it: agents can be spawned before.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ...supervision.profile import Profiles
from ..messages import BuildContext
from ..runtime.asking import Recipient
from .build import Built, build
from .build_inputs import BuildInputs
from .emit import finished
from .fragments import FragmentCache
from .git.repository import Shadows
from .index.client import IndexClient
from .options import ContextOptions
from .project import Project
from .requirements import FilePatterns, checked_requirements
from .secrets.redaction import redact_start


class CheckedRequest(NamedTuple):
    """A checked context request."""

    requirements: frozenset[str]
    patterns: FilePatterns
    max_bytes: int


class ContextService:
    """Builds contexts. `build` and `finish` are called in a thread that may take its time.

    spawner, results, bus: the actors that know the issue. fragments_bytes: of encoded files that are kept.
    """

    def __init__(
        self,
        options: ContextOptions,
        spawner: Recipient,
        results: Recipient,
        bus: Recipient,
        profiles: Profiles,
        *,
        fragments_bytes: int,
        storage: Path | None,
    ) -> None:
        self._options = options
        self._inputs = BuildInputs(spawner, results, bus)
        self._profiles = profiles
        self._fragments = FragmentCache(fragments_bytes)
        self._index = IndexClient()
        self._storage = storage
        self._shadows = Shadows(storage / "shadows" if storage is not None else None)
        self._projects: dict[Path, Project] = {}
        self._folder_of: dict[Path, Path] = {}

    def checked(self, request: BuildContext, max_bytes: int) -> CheckedRequest:
        """The request with its requirements and patterns checked. Raises InvalidContextRequest."""
        return CheckedRequest(checked_requirements(request.requirements), FilePatterns(request.files), max_bytes)

    def project(self, root: Path) -> Project:
        """The project in the folder that the path leads to now: a link on the way may have a new target."""
        folder = Path(os.path.realpath(root))
        before = self._folder_of.get(root)
        self._folder_of[root] = folder
        if before is not None and before not in self._folder_of.values():
            self._projects.pop(before).close()
        project = self._projects.get(folder)
        if project is None:
            project = Project(
                folder,
                self._fragments,
                max_file_bytes=self._options.max_file_bytes,
                exclude=self._options.exclude,
                watches=self._options.watch,
                shadows=self._shadows,
                storage=self._storage,
            )
            self._projects[folder] = project
        return project

    def build(
        self, request: BuildContext, checked: CheckedRequest, project: Project, kept: Built | None
    ) -> tuple[Built, bool]:
        """The context, and whether it is the one that was kept."""
        whole = self._inputs.of(request, checked.requirements, checked.patterns, checked.max_bytes, self._profiles)
        with project.lock:
            return build(whole, project, self._index, kept)

    def finish(self, built: Built, *, cache_hit: bool, at: datetime) -> bytes:
        return finished(built.core, cache_hit=cache_hit, at=at)

    def without_secrets(self, query: str, max_chars: int) -> str:
        """The start of a query, to be remembered."""
        return redact_start(query, max_chars)[0][:max_chars]

    def close(self) -> None:
        for project in self._projects.values():
            project.close()
        self._index.close()
        self._shadows.close()
