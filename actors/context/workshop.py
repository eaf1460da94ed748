"""Workshop: what contexts are made with: the projects, the index, and the libraries that read them.

They take longer to import than all the rest of the sidecar, so the context builder imports this module only when it is
needed: agents can be spawned before.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ...supervision.profile import Profiles
from ..messages import BuildContext
from .build import Built, build
from .emit import finished
from .fragments import FragmentCache
from .git.repository import Shadows
from .index.client import IndexClient
from .options import ContextOptions
from .outside import Outside
from .project import Project
from .requirements import FilePatterns, checked_requirements


class Wish(NamedTuple):
    """A checked context request."""

    requirements: frozenset[str]
    patterns: FilePatterns
    max_bytes: int


class Workshop:
    """`build` and `finish` are called in a thread that may take its time. fragments_bytes: how much is kept of what
    files gave."""

    def __init__(
        self,
        options: ContextOptions,
        outside: Outside,
        profiles: Profiles,
        *,
        fragments_bytes: int,
        storage: Path | None,
    ) -> None:
        self._options = options
        self._outside = outside
        self._profiles = profiles
        self._fragments = FragmentCache(fragments_bytes)
        self._index = IndexClient()
        self._storage = storage
        self._shadows = Shadows(storage / "shadows" if storage is not None else None)
        self._projects: dict[Path, Project] = {}
        self._folder_of: dict[Path, Path] = {}

    def wish(self, request: BuildContext, max_bytes: int) -> Wish:
        """Raises InvalidContextRequest."""
        return Wish(checked_requirements(request.requirements), FilePatterns(request.files), max_bytes)

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

    def build(self, request: BuildContext, wish: Wish, project: Project, kept: Built | None) -> tuple[Built, bool]:
        """The context, and whether it is the one that was kept."""
        order = self._outside.order(request, wish.requirements, wish.patterns, wish.max_bytes, self._profiles)
        with project.lock:
            return build(order, project, self._index, kept)

    def finish(self, built: Built, *, cache_hit: bool, at: datetime) -> bytes:
        return finished(built.core, cache_hit=cache_hit, at=at)

    def close(self) -> None:
        for project in self._projects.values():
            project.close()
        self._index.close()
        self._shadows.close()
