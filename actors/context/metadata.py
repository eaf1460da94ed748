"""Reads a project's types and dependencies from its manifests; nothing of the project is run. Pure."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from ...state.linear import Linear
from .kinds import Role, is_code, language_of
from .roles import role_of

_MAX_DEPENDENCIES = 500
_MAX_LINE = 1000  # characters of a manifest's line; and lines of a manifest that is read line by line
_MAX_LINES = 20_000
_MAX_CHARS = 1 << 20  # of all manifests together: tomllib reads two of these a second
_MAX_TOML_CHARS = 256 << 10
_KEY_PART = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')"
_LONG_KEY = Linear(rf"{_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART}){{10}}")
_TYPE_OF_MANIFEST = {
    "pyproject.toml": "python",
    "setup.py": "python",
    "setup.cfg": "python",
    "requirements.txt": "python",
    "Pipfile": "python",
    "package.json": "javascript",
    "Cargo.toml": "rust",
    "go.mod": "go",
    "pom.xml": "java",
    "build.gradle": "java",
    "build.gradle.kts": "kotlin",
    "composer.json": "php",
    "Gemfile": "ruby",
    "mix.exs": "elixir",
    "Package.swift": "swift",
    "CMakeLists.txt": "cpp",
}


def main_languages(paths: Iterable[str]) -> tuple[str, ...]:
    """The programming languages of a project by number of source files, most first; page and style files last."""
    counts: Counter[str] = Counter()
    for (language, role), times in Counter((language_of(path), role_of(path)) for path in paths).items():
        if is_code(language) and role in (Role.SOURCE, Role.TEST):
            # Fixtures outnumber the sources of many a project.
            counts[language] += 10 * times if role is Role.SOURCE else times
    secondary = {"html", "css", "make", "docker", "cmake", "jinja", "shell"}
    return tuple(sorted(counts, key=lambda language: (language in secondary, -counts[language], language)))


def project_types(paths: tuple[str, ...], languages: tuple[str, ...]) -> tuple[str, ...]:
    """The project's types, the largest part first: a Rust crate that has a package.json is rust, then javascript.

    languages: see `main_languages`.
    """
    named = {_TYPE_OF_MANIFEST[path] for path in paths if path in _TYPE_OF_MANIFEST}
    if "typescript" in languages and "javascript" in named:
        named = named - {"javascript"} | {"typescript"}
    ordered = [language for language in languages if language in named]
    ordered += sorted(named - set(ordered))
    return tuple(ordered) or languages[:1]


def manifests(paths: Iterable[str]) -> tuple[str, ...]:
    """The manifests that `dependencies` can read, those nearest the root first."""
    wanted = [path for path in paths if _reader_of(path) is not None]
    return tuple(sorted(wanted, key=lambda path: (path.count("/"), path))[:50])


def dependencies(texts: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Dependencies as their manifests write them (`flask>=3`, `react@^18.2`, `serde@1.0`), and warnings.

    texts: manifest path -> its text. Each dependency once, in the order of the manifests.
    """
    found: dict[str, None] = {}
    warnings = []
    room = _MAX_CHARS
    for path, text in texts.items():
        reader = _reader_of(path)
        room -= len(text)
        if reader is None:
            continue
        if room < 0:
            warnings.append(f"{path} is not read: the manifests are too large together")
            continue
        try:
            found.update(dict.fromkeys(reader(text)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            warnings.append(f"{path} cannot be read as a manifest: {type(error).__name__}")
    return tuple(found)[:_MAX_DEPENDENCIES], tuple(warnings)


def _reader_of(path: str) -> Callable[[str], Iterable[str]] | None:
    reader = _READERS.get(path.rpartition("/")[2])
    if reader is None and "requirements" in path and path.endswith((".txt", ".in")):
        reader = _requirements
    return reader if reader is not None and role_of(path) is Role.MANIFEST else None


def _requirement(line: str) -> str | None:
    if len(line) > _MAX_LINE:  # packaging reads with expressions, and markers with recursion
        return None
    try:
        return str(Requirement(line))
    except (InvalidRequirement, RecursionError):
        return None


def _requirements(text: str) -> list[str]:
    lines = map(_without_comment_and_hashes, text.split("\n")[:_MAX_LINES])
    return [found for line in lines if line and not line.startswith("-") and (found := _requirement(line))]


def _without_comment_and_hashes(line: str) -> str:
    line = line[: _MAX_LINE + 1].strip().removesuffix("\\")
    kept = []
    for word in line.split():
        if word.startswith("#"):
            break
        if not word.startswith("--hash="):
            kept.append(word)
    return " ".join(kept)


def _toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises ValueError, also where tomllib would take minutes: it takes the square of a key's parts."""
    if len(text) > _MAX_TOML_CHARS:
        raise ValueError("it is too large")
    if _LONG_KEY.is_in(text):
        raise ValueError("a key has too many parts")
    return tomllib.loads(text)


def _pyproject(text: str) -> list[str]:
    data = _toml(text)
    project = data.get("project", {})
    lines: list[str] = list(project.get("dependencies", ()))
    for group in project.get("optional-dependencies", {}).values():
        lines += group
    for group in data.get("dependency-groups", {}).values():
        lines += [line for line in group if isinstance(line, str)]
    found = [read for line in lines if (read := _requirement(line))]
    poetry = data.get("tool", {}).get("poetry", {})
    tables = [poetry.get("dependencies", {}), poetry.get("dev-dependencies", {})]
    tables += [group.get("dependencies", {}) for group in poetry.get("group", {}).values()]
    for table in tables:
        found += _versions({name: version for name, version in table.items() if name != "python"})
    return found


def _versions(table: Mapping[str, Any]) -> list[str]:
    """`name@version` of a table of versions, where a version may be a table itself."""
    lines = []
    for name, version in table.items():
        if isinstance(version, dict):
            name = str(version.get("package", name))
            version = version.get("version", "")
        lines.append(f"{name}@{version}" if isinstance(version, str) and version else str(name))
    return lines


def _cargo(text: str) -> list[str]:
    data = _toml(text)
    places = [data, data.get("workspace", {}), *data.get("target", {}).values()]
    found: list[str] = []
    for place in places:
        for table in ("dependencies", "dev-dependencies", "build-dependencies"):
            found += _versions(place.get(table, {}))
    return found


def _package_json(text: str) -> list[str]:
    data = json.loads(text)
    found: list[str] = []
    for table in ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies"):
        found += _versions(data.get(table) or {})
    return found


def _go_mod(text: str) -> list[str]:
    """Lines `require PATH VERSION` and those in `require ( … )`, without what is there for others (`// indirect`)."""
    found = []
    block = ""
    for line in text.split("\n")[:_MAX_LINES]:
        statement, _, comment = line[:_MAX_LINE].partition("//")
        words = statement.split()
        if block and words[:1] == [")"]:
            block = ""
        elif len(words) == 2 and words[1] == "(":
            block = words[0]
        elif words:
            verb, *said = [block, *words] if block else words
            if verb == "require" and len(said) == 2 and "." in said[0] and not comment.strip().startswith("indirect"):
                found.append(f"{said[0]}@{said[1]}")
    return found


def _composer(text: str) -> list[str]:
    data = json.loads(text)
    return _versions(data.get("require", {})) + _versions(data.get("require-dev", {}))


def _gemfile(text: str) -> list[str]:
    """Lines `gem "NAME"` and `gem "NAME", "VERSION"`."""
    found = []
    for line in text.split("\n")[:_MAX_LINES]:
        words = line[:_MAX_LINE].strip().replace("'", '"').split('"')
        if len(words) < 3 or words[0].rstrip(" \t(") != "gem":
            continue
        is_version = len(words) > 4 and words[2].strip() == ","
        found.append(f"{words[1]}@{words[3]}" if is_version else words[1])
    return found


_READERS: dict[str, Callable[[str], Iterable[str]]] = {
    "pyproject.toml": _pyproject,
    "package.json": _package_json,
    "Cargo.toml": _cargo,
    "go.mod": _go_mod,
    "composer.json": _composer,
    "Gemfile": _gemfile,
}
