"""What an agent asks for by name: sections of the context, and files by path or pattern. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...state.errors import InvalidContextRequest
from .kinds import Role

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

REQUIREMENTS = (
    "project_structure",
    "previous_decisions",
    "security_policies",
    "test_coverage_reports",
    "git_history",
    "dependencies",
    "documentation",
    "code_reviews",
)
_ROLES = {
    "security_policies": (Role.POLICY,),
    "test_coverage_reports": (Role.COVERAGE,),
    "dependencies": (Role.MANIFEST,),
    "documentation": (Role.DOC, Role.DESIGN, Role.API_SPEC),
}
_MAX_PATTERNS = 100
_MAX_PATTERN_CHARS = 1024


def checked_requirements(names: Iterable[str]) -> frozenset[str]:
    """The names, if each is one we know. Raises InvalidContextRequest."""
    wanted = frozenset(names)
    for name in sorted(wanted):
        if name not in REQUIREMENTS:
            raise InvalidContextRequest(
                f"requirement {name[:100]!r} is not known",
                field="requirements",
                expected="some of " + ", ".join(REQUIREMENTS),
            )
    return wanted


def known_requirements(names: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Those of the names that we know, and a warning for each other: a spawn request is not refused afterwards."""
    unknown = sorted(set(names) - set(REQUIREMENTS))
    warnings = tuple(f"context_requirements: {name[:100]!r} is not known" for name in unknown)
    return frozenset(names) & frozenset(REQUIREMENTS), warnings


def roles_of(requirements: Iterable[str]) -> frozenset[Role]:
    """Which roles of files the requirements ask for."""
    return frozenset(role for name in requirements for role in _ROLES.get(name, ()))


class FilePatterns:
    """Paths and patterns of the `files` parameter, in the syntax of `.gitignore`, relative to the project's root.

    Raises InvalidContextRequest for one that is absolute, leaves the root, names `.git` or is no pattern.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        if len(patterns) > _MAX_PATTERNS:
            raise _refused("files", f"{len(patterns)} patterns are too many", f"at most {_MAX_PATTERNS}")
        self.patterns = tuple(_checked(pattern) for pattern in patterns)
        self._paths = frozenset(self.patterns)
        self._spec = _spec(self.patterns)

    def matched(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of `paths` that are named or matched, in their order."""
        if not self.patterns:
            return ()
        return tuple(path for path in paths if path in self._paths or self._spec.match_file(path))

    def unmatched(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Patterns that no path answers to."""
        listed = tuple(paths)
        return tuple(pattern for pattern in self.patterns if not any(_spec([pattern]).match_files(listed)))


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # the routes import this module, and a start waits for that

    return GitIgnoreSpec.from_lines(patterns)


def _checked(pattern: str) -> str:
    expected = "a path or a pattern relative to the project's root, such as src/*.py"
    shown = repr(pattern[:100])
    cleaned = pattern.removeprefix("./")
    if not cleaned.strip() or len(cleaned) > _MAX_PATTERN_CHARS:
        raise _refused("files", f"{shown} is no path", expected)
    if "\0" in cleaned or "\\" in cleaned or any(ord(char) < 32 for char in cleaned):
        raise _refused("files", f"{shown} has a character that no path here has", expected)
    if cleaned.startswith(("/", "~", "!", "#")):
        raise _refused("files", f"{shown} is not relative to the project's root", expected)
    parts = cleaned.split("/")
    if ".." in parts or ".git" in parts:
        raise _refused("files", f"{shown} leads out of the project's files", expected)
    if cleaned.count("[") != cleaned.count("]"):
        raise _refused("files", f"{shown} has a bracket that is not closed", expected)
    try:
        _spec([cleaned])
    except ValueError as error:
        raise _refused("files", f"{shown} is no pattern", expected) from error
    return cleaned


def _refused(field: str, message: str, expected: str) -> InvalidContextRequest:
    return InvalidContextRequest(f"{field}: {message}", field=field, expected=expected)
