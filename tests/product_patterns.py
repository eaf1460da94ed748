"""Every expression of the product: where it stands in its source, and how the product uses it.

A test that runs them all over hostile text must not miss one that is written tomorrow.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.state.linear import Linear

ROOT = Path(__file__).parents[1]
FOLDERS = ("state", "supervision", "actors", "http", "examples")
AT_ONCE = ("match", "fullmatch", "search", "split", "findall", "finditer", "sub", "subn")
OF_LINEAR = ("is_in", "first_in", "fits", "all_in", "without", "spans_in", "end_from")

# Where a pattern is not applied by its own name: how it is. By file and, of the source, what is compiled or its name.
USED_AS: dict[tuple[str, str], tuple[str, ...]] = {
    ("actors/context/roles.py", "*"): ("search",),  # in a loop over roles
    ("http/loop/quick_routes.py", "as_pattern(route.path)"): ("fullmatch",),
    ("http/loop/request_parser.py", "as_pattern(route.path)"): ("fullmatch",),
    ("actors/context/secrets/redaction.py", "hint_of_all().encode()"): (),  # by the scanner's test, through `redact`
    ("actors/context/secrets/redaction.py", "rule.expression.encode()"): (),  # by the rules' own test, through `redact`
    ("actors/context/globs.py", "expression"): (),  # only asked whether it is one; LinearSet matches it, see below
    ("actors/context/globs.py", "[found for _, found in expressions]"): (),  # by the patterns' own test
    ("actors/context/definitions.py", "*"): ("all_in",),  # by `_pattern_of`
    ("state/events/filter.py", "_NEEDS_QUOTES"): ("search",),
    ("state/journal/lines.py", repr(rb'\["([0-9a-f]{8})",(\d+),(\d+),(\d+),')): ("match",),
}
COMPILED_FROM: dict[str, tuple[str, ...]] = {"as_pattern(route.path)": (r"/api/(?P<one>[^/]+)/x/(?P<two>[^/]+)",)}


class Use(NamedTuple):
    """where: file and line. pattern: of `re`, or a Linear. method: the one that the product calls."""

    where: str
    pattern: re.Pattern[Any] | Linear[Any]
    method: str


class Unknown(Exception):
    """A pattern of which nobody has told how it is used."""


def uses() -> Iterator[Use]:
    """Each use of `re` and of state/linear.py. Raises Unknown."""
    trees = {path: ast.parse(path.read_text()) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
    called = _methods_by_name(trees.values())
    for path, tree in trees.items():
        where = path.relative_to(ROOT).as_posix()
        if where == "state/linear.py":
            continue
        names = {
            id(node.value): _name_of(node) for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                _refuse_other_doors(where, node)
            if isinstance(node, ast.Call) and (made := _what_is_made(node)) is not None:
                yield from _uses_of(where, node, made, names.get(id(node)), called)


def _refuse_other_doors(where: str, node: ast.Import | ast.ImportFrom) -> None:
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ",".join(alias.name for alias in node.names)
    others = {"re": isinstance(node, ast.ImportFrom), "regex": True, "glob": True, "re2": True}
    if others.get(module) or any(
        isinstance(node, ast.Import) and alias.asname and alias.name == "re" for alias in node.names
    ):
        raise Unknown(f"{where}:{node.lineno}: write `import re` and `re.compile(...)`, so that the pattern is found")


def _name_of(node: ast.Assign | ast.AnnAssign) -> str | None:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return target.id if isinstance(target, ast.Name) else None


def _what_is_made(node: ast.Call) -> str | None:
    """`compile`, or the method of `re` that is called with the pattern itself; `Linear` or `LinearSet`."""
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re":
        return function.attr if function.attr in ("compile", *AT_ONCE) else None
    if isinstance(function, ast.Name) and function.id in ("Linear", "LinearSet"):
        return function.id
    return None


def _methods_by_name(trees: Any) -> dict[str, set[str]]:
    """Name of a pattern -> the methods that are called, or handed on, of it anywhere."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):  # noqa: SIM102
                if node.attr in (*AT_ONCE, *OF_LINEAR):
                    found.setdefault(node.value.id, set()).add(node.attr)
    return found


def _uses_of(where: str, node: ast.Call, made: str, name: str | None, called: dict[str, set[str]]) -> Iterator[Use]:
    source = ast.unparse(node.args[0])
    told = next((USED_AS[key] for key in ((where, name or source), (where, "*")) if key in USED_AS), None)
    here = f"{where}:{node.lineno}"
    methods = (made,) if made in AT_ONCE else told if told is not None else tuple(sorted(called.get(name or "", ())))
    if not methods and told is None:
        raise Unknown(
            f"{here}: nothing is known of how {name or source} is used; add ({where!r}, {name or source!r}) "
            "and the methods that are called of it to USED_AS in tests/product_patterns.py"
        )
    for pattern in _patterns(where, node, name, source, made) if methods else ():
        for method in methods:
            yield Use(here, pattern, method)


def _patterns(where: str, node: ast.Call, name: str | None, source: str, made: str) -> list[Any]:
    if source in COMPILED_FROM:
        return [re.compile(text) for text in COMPILED_FROM[source]]
    if name is not None and made not in AT_ONCE:
        module = importlib.import_module("sidecar." + where.removesuffix(".py").replace("/", "."))
        return [getattr(module, name)]
    try:
        return [re.compile(ast.literal_eval(node.args[0]))]
    except ValueError:
        raise Unknown(
            f"{where}:{node.lineno}: {source} is made where it runs; add what it is made of to COMPILED_FROM in "
            "tests/product_patterns.py"
        ) from None


def call(use: Use) -> Callable[[Any], object]:
    """The use as the product has it, over a text: of what gives its matches one by one, all."""
    pattern, method = use.pattern, use.method
    if isinstance(pattern, Linear):
        if method == "end_from":
            return lambda text: pattern.end_from(text, 0)
        return lambda text: list(found) if hasattr(found := getattr(pattern, method)(text), "__next__") else found
    if method in ("sub", "subn"):
        return lambda text: getattr(pattern, method)(text[:0], text)
    if method == "finditer":
        return lambda text: sum(1 for _ in pattern.finditer(text))
    return getattr(pattern, method)  # type: ignore[no-any-return]
