"""The audience of a context: the files that belong to an agent type, and how much each kind of file matters to it.

A prior, not a filter: what the task points at comes in whatever its kind. Source: the guide, "Context by Agent Type".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...state.identity import AgentClass
from .kinds import Role, is_code, language_of, read_along_with
from .roles import role_of

_LANGUAGE_OF_WORD = {
    "python": "python", "django": "python", "flask": "python", "fastapi": "python",
    "go": "go", "golang": "go", "rust": "rust",
    "javascript": "javascript", "js": "javascript", "node": "javascript", "nodejs": "javascript", "react": "typescript",
    "typescript": "typescript", "ts": "typescript", "vue": "vue", "svelte": "svelte", "angular": "typescript",
    "frontend": "html", "ui": "html", "css": "html", "html": "html",
    "java": "java", "spring": "java", "kotlin": "kotlin", "android": "kotlin", "scala": "scala", "groovy": "groovy",
    "c": "c", "cpp": "cpp", "c++": "cpp", "csharp": "csharp", "dotnet": "csharp", "swift": "swift", "ios": "swift",
    "ruby": "ruby", "rails": "ruby", "php": "php", "laravel": "php", "perl": "perl", "lua": "lua", "r": "r",
    "julia": "julia", "elixir": "elixir", "erlang": "erlang", "haskell": "haskell", "ocaml": "ocaml",
    "clojure": "clojure", "dart": "dart", "flutter": "dart", "zig": "zig", "shell": "shell", "bash": "shell",
    "sql": "sql", "database": "sql", "terraform": "terraform", "graphql": "graphql", "solidity": "solidity",
}  # fmt: skip
_SECURITY_WORDS = re.compile(
    r"auth|token|crypt|secret|passw|permission|access|login|session|cert|tls|ssl|csrf|cors|sanitiz|valid|polic"
    r"|signature|jwt|acl|rbac",
    re.IGNORECASE,
)
_ALWAYS_USEFUL = re.compile(r"(?:^|/)README(?:\.[a-z]+)?$", re.IGNORECASE)

_BESIDE = 0.5  # files that are not the agent's own kind
_FAR = 0.15  # lock files, data, generated reports

# kind -> the prior of each role, and of every other role.
_PRIORS: dict[str, tuple[dict[Role, float], float]] = {
    "architect": (
        {Role.DESIGN: 1.6, Role.MANIFEST: 1.2, Role.TEST: 0.7, Role.LOCK: _FAR, Role.DATA: _BESIDE},
        1.0,
    ),
    "documentation": (
        {Role.DOC: 2.0, Role.DESIGN: 2.0, Role.API_SPEC: 1.8, Role.SOURCE: 0.7, Role.LOCK: _FAR},
        _BESIDE,
    ),
    "qa": (
        {Role.TEST: 2.0, Role.COVERAGE: 1.5, Role.CI: 1.2, Role.POLICY: 1.2, Role.SOURCE: 1.0, Role.LOCK: _FAR},
        _BESIDE,
    ),
    "security": (
        {Role.POLICY: 2.0, Role.MANIFEST: 1.5, Role.CI: 1.2, Role.SOURCE: 1.0, Role.TEST: 0.9, Role.LOCK: 0.3},
        _BESIDE,
    ),
    "devops": ({Role.CI: 2.0, Role.MANIFEST: 1.8, Role.SOURCE: 0.7, Role.LOCK: _FAR}, _BESIDE),
}
_OPERATED = frozenset(("docker", "make", "terraform", "shell", "yaml"))  # languages of those who deploy


class Audience(NamedTuple):
    """kind: architect, language, qa, security, devops or documentation. languages: of a language specialist."""

    kind: str
    languages: frozenset[str]
    wanted: frozenset[Role]  # roles that were asked for by name

    def belongs(self, path: str) -> bool:
        """Whether the file is this agent's even when no task says so."""
        role, language = role_of(path), language_of(path)
        if role in self.wanted or (role is Role.DOC and _ALWAYS_USEFUL.fullmatch(path)):
            return True
        match self.kind:
            case "architect":
                return role not in (Role.LOCK, Role.COVERAGE)
            case "documentation":
                return role in (Role.DOC, Role.DESIGN, Role.API_SPEC)
            case "qa":
                return role in (Role.TEST, Role.POLICY, Role.COVERAGE, Role.CI, Role.MANIFEST)
            case "security":
                if role in (Role.TEST, Role.POLICY, Role.COVERAGE, Role.CI, Role.MANIFEST):
                    return True
                return role in (Role.SOURCE, Role.DATA) and _SECURITY_WORDS.search(path) is not None
            case "devops":
                return role in (Role.CI, Role.MANIFEST, Role.API_SPEC) or language in _OPERATED
            case _:
                return role is Role.MANIFEST or language in self.languages

    def prior(self, path: str) -> float:
        """The factor of a file's score; above 0."""
        role, language = role_of(path), language_of(path)
        if role in self.wanted:
            return 2.0
        if self.kind == "language":
            return self._prior_of_language(role, language)
        priors, otherwise = _PRIORS[self.kind]
        named = self.kind == "security" and _SECURITY_WORDS.search(path) is not None
        return priors.get(role, otherwise) * (2.0 if named else 1.0)

    def _prior_of_language(self, role: Role, language: str) -> float:
        if role in (Role.LOCK, Role.COVERAGE):
            return _FAR
        if language in self.languages:
            return 1.0
        if role in (Role.MANIFEST, Role.API_SPEC):
            return 0.7
        return _BESIDE if is_code(language) or role in (Role.DOC, Role.DESIGN) else 0.3


def audience_of(
    agent_type: str, agent_class: AgentClass, project_languages: tuple[str, ...], wanted: frozenset[Role] = frozenset()
) -> Audience:
    """The audience that an agent type is, in a project of these languages (main one first).

    Types of no known language count as specialists of the project's main language.
    """
    words = re.split(r"[-_.:@]", agent_type.lower())
    if agent_class in (AgentClass.ARCHITECT, AgentClass.OPERATOR):
        return Audience("architect", frozenset(), wanted)
    if agent_class is AgentClass.DOCUMENTATION:
        return Audience("documentation", frozenset(), wanted)
    if agent_class is AgentClass.DEVOPS:
        return Audience("devops", frozenset(), wanted)
    if agent_class is AgentClass.QA:
        kind = "security" if any(word in ("security", "auditor", "pentester") for word in words) else "qa"
        return Audience(kind, frozenset(), wanted)
    named = next((_LANGUAGE_OF_WORD[word] for word in words if word in _LANGUAGE_OF_WORD), None)
    language = named or (project_languages[0] if project_languages else "text")
    return Audience("language", read_along_with(language), wanted)
