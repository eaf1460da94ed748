"""No expression and no scanner of the product takes more than linear time over text that others write.

Every one of them is found in the source, and run as the product runs it over texts of its own alphabet.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sidecar.actors.context import coverage, metadata, ranking, words
from sidecar.actors.context.definitions import definitions_of, names_defined
from sidecar.actors.context.file_text import read_text
from sidecar.actors.context.globs import IgnoreRules, PathSet
from sidecar.actors.context.notebooks import cells_of
from sidecar.actors.context.roles import role_of
from sidecar.actors.context.secrets.names import is_secret_path
from sidecar.actors.context.secrets.redaction import redact, without_credentials
from sidecar.actors.context.secrets.rules import RULES, Rule
from sidecar.state.errors import InvalidFilter
from sidecar.state.events.filter import compile_filter
from sidecar.state.linear import Linear
from sidecar.state.nesting import is_deeper
from tests import product_patterns
from tests.hostile_texts import STEEPEST, TAILS, is_quick, made, steepness, words_of
from tests.product_patterns import Use

USES: Mapping[str, list[Use]] = defaultdict(list)
for found in product_patterns.uses():
    USES[found.where.partition(":")[0]].append(found)  # type: ignore[index]


def steep_words(act: Callable[[Any], object], alphabet: tuple[str, ...], *, as_bytes: bool = False) -> list[str]:
    """Those of the texts over which the time grows too steeply, and how."""
    for word in alphabet:
        for tail in TAILS:

            def over(size: int, word: str = word, tail: str = tail) -> Callable[[], object]:
                text = made(word, tail, size)
                text_or_bytes = text.encode() if as_bytes else text
                return lambda: act(text_or_bytes)

            if not is_quick(over) and (exponent := steepness(over)) > STEEPEST:
                return [f"{word!r}… {tail!r}: n^{exponent:.2f}"]
    return []


@pytest.mark.parametrize("where", USES)
def test_every_expression_takes_linear_time(where: str) -> None:
    for use in USES[where]:
        expression = use.pattern.expression if isinstance(use.pattern, Linear) else use.pattern.pattern
        as_bytes = isinstance(expression, bytes)
        text = expression.decode("latin-1") if as_bytes else expression
        flags = 0 if isinstance(use.pattern, Linear) else use.pattern.flags & ~32
        assert steep_words(product_patterns.call(use), words_of(text, flags), as_bytes=as_bytes) == [], use


def test_an_expression_of_which_nobody_tells_how_it_is_used_is_refused() -> None:
    tree = ast.parse("A = re.compile('(a*)*b')\nB = Linear('a')\nre.compile(made_up)")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in calls:
        made_by = product_patterns._what_is_made(node)
        assert made_by is not None
        with pytest.raises(product_patterns.Unknown, match="USED_AS"):
            list(product_patterns._uses_of("state/new.py", node, made_by, "NEW", {}))
    with pytest.raises(product_patterns.Unknown, match="COMPILED_FROM"):
        list(product_patterns._uses_of("state/new.py", calls[-1], "compile", None, {"": {"match"}}))


@pytest.mark.parametrize("expression", [r"\s+$"])
def test_an_expression_that_backtracks_is_found(expression: str) -> None:
    assert steep_words(re.compile(expression).search, words_of(expression))


@pytest.mark.soak
@pytest.mark.parametrize("kind", sorted({rule.kind for rule in RULES}))
def test_every_form_of_a_secret_is_looked_for_in_linear_time(kind: str) -> None:
    for rule in RULES:
        if rule.kind == kind:
            assert steep_words(redact, _around_marks(rule)) == [], rule


def _around_marks(rule: Rule) -> tuple[str, ...]:
    of_rule = words_of(rule.expression)
    example = max(of_rule, key=len)
    return tuple(dict.fromkeys([rule.marks[0], rule.marks[-1] + " ", example, example[:-1], *of_rule[:2]]))


def _filtered(text: str) -> object:
    try:
        return compile_filter(text)
    except InvalidFilter:
        return None


TEXT = (
    *(
        "a",
        "aB",
        "a ",
        "A",
        "_",
        "1",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\\",
        "\\\n",
        "/",
        ".",
        ":",
        "'",
        '"',
        "#",
        "[",
        "{",
        "(",
    ),
    *("a.", "a(", "a: ", "`a", "\u3042", "\U0001f600", "def a(", "\ndef a", "\nimpl ", "\nstatic a ", "\n    a", "<a>"),
)
SECRETS = (
    *("sk-", "-eyJ", "eyJ.", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "://", "://a:", "://a:b@"),
    *("password=", "password = 'a", "token: ", "host=a;", "login a password ", "a@", "A" * 64 + "\n", "MTAw", "SK00"),
    *("ghp_" + "a" * 30 + " ", "s." + "a" * 12, "password:\n", "secret" * 3 + "="),
)
MANIFESTS: Mapping[str, tuple[str, ...]] = {
    "go.mod": ("require (\n", "replace (\n", "require a.b v1\n", "// ", "(", ")"),
    "Gemfile": ("gem '", "gem 'a', 'b'\n", "gem (", "'"),
    "requirements.txt": ("a>=1,", "a;(", "a[", "a[b,", "-r ", "--hash=", "a @ ", "a;os_name=='a' and ", "\\\n"),
    "package.json": ('{"dependencies":{', '{"a":"b",', '"a",', "[", "1"),
    "pyproject.toml": ("[a.", "[a]\n", "a.", "a.a = 1\n", "a = [", "'''", '"""', "a = {", "[[a]]\n", "\\u0041"),
    "Cargo.toml": ("[a.b]\n", "[dependencies]\n", "a = '1'\n", "a.b.c = 1\n"),
    "composer.json": ('{"require":{', '"a/b":"1",'),
}
COVERAGE: Mapping[str, tuple[str, ...]] = {
    "coverage.xml": ("<a>", "<!--", "<a b='c'", "&lt;", "<!DOCTYPE ", "<![CDATA["),
    "lcov.info": ("LF:1\n", "LH:", "SF:"),
    "coverage.json": ('{"totals":', "[", '{"a":'),
    "cover.out": ("mode: set\n", "a.go:1.1,2.2 1 1\n", ":"),
}
SCANNERS: Mapping[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "redaction": (redact, (*SECRETS, *TEXT)),
    "remotes": (without_credentials, ("://", "@", "https://a:b@", "a@b:", "?")),
    "words": (words.count_terms, TEXT),
    "runs": (words.count_runs, TEXT),
    "names in a text": (words.names_in, TEXT),
    "paths": (words.path_terms, ("a/", "aB", ".", "a.b-", "/")),
    "roles": (role_of, ("a/", "requirements", "securitypolic", "test_", "_test.a", "security", "spec/", "README", ".")),
    "names of secrets": (is_secret_path, ("a/", ".env", ".bak", "#", "~", "id_rsa", ".tfvars.", "secret-", ".", "_")),
    "tasks": (ranking.task_of, (*TEXT, "`a", "a/b.py ", "A.b")),
    "notebooks": (cells_of, ('{"cells":[', '{"cells":[{"source":["a",', "[")),
    "texts": (lambda text: read_text(text.encode(), path="a.ipynb"), TEXT),
    "texts of eight bits": (lambda text: read_text(text.encode("utf-16-le") + b"\x81", path="a"), TEXT),
    "filters": (_filtered, ("a:b,", "a:b|", '"', "\\", "*", "a:*", "!", ">", "a.b.", "a:>1|")),
    "nesting": (lambda text: is_deeper(b"[" * 200 + text.encode()), ('"', '\\"', '"\\', "[", "{", "[]", "{}", '"a",')),
    "lines of .gitignore": (lambda text: IgnoreRules([text]).verdict("a"), ("*", "a/**/", "[a-z]", "!", "\\", "?", "#")),  # noqa: E501
    "a path for .gitignore": (IgnoreRules(["*a*b*c", "a/**/b/**/c", "*.py"]).verdict, ("a", "a/", "ab", "abc", "a/b/")),
    "a path for patterns": (PathSet(["*a" * 8, "a/**/" * 5 + "b", "*"]).matching, ("a", "a/", "b", "ab/")),
    **{f"definitions of {name}": (lambda text, name=name: (definitions_of(text, name), names_defined(text, name)), TEXT)
       for name in ("python", "c", "markdown", "yaml", "rust")},
    **{name: (lambda text, name=name: metadata.dependencies({name: text}), (*own, *TEXT[:24]))
       for name, own in MANIFESTS.items()},
    **{name: (lambda text, name=name: coverage.percent(name, text), (*own, "\n", " ", "a", "1"))
       for name, own in COVERAGE.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", SCANNERS)
def test_every_scanner_takes_linear_time(name: str) -> None:
    act, alphabet = SCANNERS[name]
    act("a")  # its tables are made
    assert steep_words(act, alphabet) == []
