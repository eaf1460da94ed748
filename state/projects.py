"""Which folder a project id stands for. The id comes from a token; it is looked up here and never becomes a path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import NotFound


class Projects:
    """The roots of all projects.

    configured: the table of projects; if it is not empty, no other project exists. default: the root of every project
    if the table is empty.
    """

    def __init__(self, default: Path, configured: Mapping[str, Path] | None = None) -> None:
        self.default = default
        self.configured = dict(configured or {})

    def root_of(self, project_id: str) -> Path:
        """The project's root. Raises NotFound for an id that the configuration does not name."""
        if not self.configured:
            return self.default
        try:
            return self.configured[project_id]
        except KeyError:
            raise NotFound(f"project {project_id} is not configured", field="project_id") from None
