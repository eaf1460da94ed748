"""Reads what an agent asks for by name: sections of the context, and files by path or pattern. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ...state.errors import InvalidContextRequest
from .globs import MAX_CHARS, MAX_STARS, PathSet, expression_of
from .kinds import Role

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
_MAX_STARS = 200  # of all patterns of a request


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
    """The known names, and a warning for each unknown one: a spawn request is not refused afterwards."""
    unknown = sorted(set(names) - set(REQUIREMENTS))
    warnings = tuple(f"context_requirements: {name[:100]!r} is not known" for name in unknown)
    return frozenset(names) & frozenset(REQUIREMENTS), warnings


def roles_of(requirements: Iterable[str]) -> frozenset[Role]:
    """Which roles of files the requirements ask for."""
    return frozenset(role for name in requirements for role in _ROLES.get(name, ()))


class FilePatterns:
    """Paths and patterns of the `files` parameter, in the syntax of `.gitignore`, relative to the project's root.

    A path that is a file's own name is that file, whatever `[`, `*`, `!` or `#` mean in a pattern.
    Raises InvalidContextRequest for one that is absolute, leaves the root, names `.git` or is no pattern.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        if len(patterns) > _MAX_PATTERNS:
            raise _refused(f"{len(patterns)} patterns are too many", f"at most {_MAX_PATTERNS}")
        self.patterns = tuple(_checked(pattern) for pattern in patterns)
        stars = sum(pattern.count("*") for pattern in self.patterns)
        if stars > _MAX_STARS:
            raise _refused(f"{stars} stars are too many", f"at most {_MAX_STARS} `*` in all patterns together")
        self._set = PathSet([_as_pattern(pattern) for pattern in self.patterns])

    def matched(self, paths: Iterable[str]) -> tuple[str, ...]:
        """The `paths` that are named or matched, in their order."""
        if not self.patterns:
            return ()
        named = frozenset(self.patterns)
        return tuple(path for path in paths if path in named or self._set.matching(path))

    def unmatched(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Patterns that no path answers to."""
        if not self.patterns:
            return ()
        left = dict(enumerate(self.patterns))
        named = frozenset(self.patterns)
        met: set[str] = set()
        for path in paths:
            if path in named:
                met.add(path)
            for place in self._set.matching(path):
                left.pop(place, None)
            if not left:
                return ()
        return tuple(pattern for pattern in left.values() if pattern not in met)


def _as_pattern(path: str) -> str:
    """A leading `!` or `#` belongs to the name: nothing is excepted here, and there are no comments."""
    return "\\" + path if path.startswith(("!", "#")) else path


def _checked(pattern: str) -> str:
    expected = "a path or a pattern relative to the project's root, such as src/*.py"
    shown = repr(pattern[:100])
    cleaned = pattern.removeprefix("./")
    if not cleaned.strip() or len(cleaned) > MAX_CHARS:
        raise _refused(f"{shown} is not a path", expected)
    if "\0" in cleaned or "\\" in cleaned or any(ord(char) < 32 for char in cleaned):
        raise _refused(f"{shown} has a character that no path of a project has", expected)
    if cleaned.startswith(("/", "~/")) or cleaned == "~":
        raise _refused(f"{shown} is not relative to the project's root", expected)
    parts = cleaned.split("/")
    if ".." in parts or ".git" in parts:
        raise _refused(f"{shown} leads out of the project's files", expected)
    if cleaned.count("*") > MAX_STARS:
        raise _refused(f"{shown} has too many stars", f"at most {MAX_STARS} `*` in a pattern")
    if cleaned.count("[") != cleaned.count("]"):
        raise _refused(f"{shown} has a bracket that is not closed", expected)
    if expression_of(_as_pattern(cleaned)) is None:
        raise _refused(f"{shown} is not a pattern", expected)
    return cleaned


def _refused(message: str, expected: str) -> InvalidContextRequest:
    return InvalidContextRequest(f"files: {message}", field="files", expected=expected)
