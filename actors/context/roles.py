"""The role of a file in its project, told from its path alone."""

from __future__ import annotations

import re

from ...state.remembered import remembered
from .kinds import DATA, PROSE, Role, is_known_suffix, language_of

_LOCKS = re.compile(
    r"(?:^|/)(?:package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|poetry\.lock|uv\.lock|pdm\.lock|Pipfile\.lock"
    r"|Cargo\.lock|go\.sum|composer\.lock|Gemfile\.lock|mix\.lock|flake\.lock|bun\.lockb?|requirements\.lock)$"
)
_COVERAGE = re.compile(
    r"(?:^|/)(?:coverage\.xml|coverage(?:-final|-summary)?\.json|lcov\.info|cobertura\.xml|jacoco\.xml|cover(?:age)?\.out"
    r"|\.coveragerc|\.?codecov\.ya?ml)$"
)
_POLICY = re.compile(
    r"(?:^|/)(?:SECURITY(?:[-_.][^/]*)?|CODEOWNERS|THREAT[-_ ]?MODEL[^/]*|(?>[^/]*?security[-_ ]?polic)[^/]*)$"
    r"|(?:^|/)(?:policies|security)/[^/]*\.(?:md|rst|txt|ya?ml|json|rego)$|\.rego$|(?:^|/)\.(?:bandit|gitleaks\.toml|snyk|trivyignore|semgrep\.ya?ml)$",
    re.IGNORECASE,
)
_CI = re.compile(
    r"(?:^|/)(?:\.github/(?:workflows|actions)/|\.circleci/|\.gitlab/|\.buildkite/|\.azure-pipelines/|\.ci/)"
    r"|(?:^|/)(?:\.gitlab-ci\.ya?ml|\.travis\.ya?ml|azure-pipelines\.ya?ml|Jenkinsfile|\.drone\.ya?ml|appveyor\.ya?ml|bitbucket-pipelines\.ya?ml"
    r"|tox\.ini|noxfile\.py|\.pre-commit-config\.ya?ml|pytest\.ini|jest\.config\.[a-z]+|vitest\.config\.[a-z]+|dependabot\.ya?ml)$"
)
_API_SPEC = re.compile(
    r"(?:^|/)(?:openapi|swagger|asyncapi|api[-_]?spec)[^/]*\.(?:ya?ml|json)$|\.(?:proto|graphql|gql|raml|wsdl|thrift|avsc)$",
    re.IGNORECASE,
)
_MANIFEST = re.compile(
    r"(?:^|/)(?:pyproject\.toml|setup\.(?:py|cfg)|Pipfile|(?>[^/]*?requirements)[^/]*\.(?:txt|in)|requirements/[^/]*\.(?:txt|in)|environment\.ya?ml"
    r"|package\.json|pnpm-workspace\.yaml|deno\.jsonc?|Cargo\.toml|go\.mod|go\.work|pom\.xml|build\.gradle(?:\.kts)?|settings\.gradle(?:\.kts)?"
    r"|composer\.json|Gemfile|[^/]*\.gemspec|mix\.exs|Package\.swift|[^/]*\.(?:cs|fs|vb)proj|CMakeLists\.txt|meson\.build|conanfile\.[a-z]+"
    r"|Makefile|GNUmakefile|justfile|Dockerfile|Containerfile|docker-compose[^/]*\.ya?ml|compose\.ya?ml|tsconfig[^/]*\.json)$"
)
_TEST = re.compile(
    r"(?:^|/)(?:tests?|testing|__tests__|spec|specs|e2e|testdata|__snapshots__|fixtures)/|(?:^|/)(?:test_|tests?\.)[^/]*$|(?:^|/)conftest\.py$"
    r"|(?:_test|_tests|_spec|\.test|\.spec|-test|-spec)\.[A-Za-z0-9]+$|(?:^|/)[^/]*(?:Tests?|Spec|IT)\.(?:java|kt|scala|cs|swift|groovy)$"
)
_DESIGN = re.compile(
    r"(?:^|/)(?:adrs?|rfcs?|design|architecture|decisions)/|(?:^|/)(?:ARCHITECTURE|DESIGN|ROADMAP)[^/]*$", re.IGNORECASE
)
_DOC = re.compile(
    r"(?:^|/)(?:docs?|documentation|man|wiki)/|(?:^|/)(?:README|CHANGELOG|CHANGES|CONTRIBUTING|HISTORY|NEWS|UPGRADING"
    r"|INSTALL|USAGE|AUTHORS|LICEN[CS]E|COPYING|NOTICE)(?:[-._][^/]*)?$",
    re.IGNORECASE,
)

_ORDINARY = frozenset(("python", "go", "rust", "javascript", "typescript", "vue", "java", "c", "cpp", "terraform"))
_SPECIAL = re.compile(r"^\.|/\.|(?:^|/)(?:setup|noxfile|conanfile)\.|\.config\.|polic|security|coverage", re.IGNORECASE)


@remembered(8 << 20)
def role_of(path: str) -> Role:
    """The role of a file by its path."""
    if language_of(path) in _ORDINARY:  # most files, and none of most expressions below
        folder, _, name = path.rpartition("/")
        is_special, holds_tests = _signs_of(folder)
        if not is_special and not _SPECIAL.search(name):
            return Role.TEST if holds_tests or _TEST.search(name) else Role.SOURCE
    for role, pattern in (
        (Role.LOCK, _LOCKS),
        (Role.COVERAGE, _COVERAGE),
        (Role.POLICY, _POLICY),
        (Role.CI, _CI),
        (Role.API_SPEC, _API_SPEC),
        (Role.MANIFEST, _MANIFEST),
        (Role.TEST, _TEST),
    ):
        if pattern.search(path):
            return role
    language = language_of(path)
    if language in PROSE or path.endswith((".html", ".j2")):
        if _DESIGN.search(path):
            return Role.DESIGN
        return Role.DOC if language in PROSE and (is_known_suffix(path) or _DOC.search(path)) else _other(language)
    if _DOC.search(path) and language in ("html", "css", "yaml", "json"):
        return Role.DOC
    return _other(language)


@remembered(4 << 20)
def _signs_of(folder: str) -> tuple[bool, bool]:
    """Whether a folder makes its files special, and whether it makes them tests."""
    return _SPECIAL.search(folder + "/") is not None, _TEST.search(folder + "/") is not None


def _other(language: str) -> Role:
    if language in DATA:
        return Role.DATA
    return Role.OTHER if language in PROSE else Role.SOURCE
