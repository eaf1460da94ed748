"""Pages of docs/reference that are written from the code. `python -m tests.reference_pages` writes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from sidecar.http import sdk
from sidecar.http.cli.main import main
from sidecar.http.client.asynchronous import AsyncAgent

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
_WRITTEN = "<!-- written by `python -m tests.reference_pages`; a test compares it with the code -->\n"


_OF_ALL_COMMANDS = """\
Exit codes: 0 success; 1 the server refused the request, with its message on standard error; 2 wrong usage; 3 no server.

Every command that talks to the server takes `--url` (`SIDECAR_URL`), `--token` (`JWT_TOKEN`) and `--storage`
(`SIDECAR_STORAGE`). Without them, it uses the server of the project in this directory, with an operator's token.
`stop`, `token`, `audit verify`, `doctor`, `backup` and `restore` use the storage, not a URL.
Commands that list or show something take `--format`: `table`, `json` (the server's whole answer) or `csv` (exact
values). It is listed below only if it differs.
"""

_OF_THE_CLIENT = """\
```python
from sidecar.http.sdk import Agent, Client
```

`Agent` is the current process as an agent. `Client` is for operators and tools. `AsyncAgent` and `AsyncClient`
(`sidecar.http.client.asynchronous`) have the same methods as coroutines.
"""


def commands_page() -> str:
    """Every command of `sidecar`, in the order of its help."""
    parts = [
        "# Commands\n",
        _WRITTEN,
        _OF_ALL_COMMANDS,
    ]
    for path, command in _commands(main, ()):
        parts += _command(path, command)
    return "\n".join(parts)


_OF_CLIENTS = {"url", "token", "storage"}


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(("sidecar", *path)))
    yield f"{'##' if len(path) == 1 else '###'} sidecar {' '.join(path)}\n"
    if isinstance(command, click.Group):
        yield from _prose(command.help or "")
        return
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"```text\nsidecar {' '.join(path)} {pieces}\n```\n"
    yield from _prose(command.help or "")
    known = _OF_CLIENTS if any(each.name == "url" for each in command.params) else set()
    options = [
        each
        for each in command.params
        if isinstance(each, click.Option) and each.name not in known and not _is_usual_format(each)
    ]
    if options:
        yield "\n".join(["| option | meaning |", "|---|---|", *(_option(each, context) for each in options), ""])


def _is_usual_format(option: click.Option) -> bool:
    return option.name == "format_" and "whole answer" in (option.help or "")


def _option(option: click.Option, context: click.Context) -> str:
    names, meaning = option.get_help_record(context) or ("", "")
    return f"| `{names.replace('|', '·')}` | {meaning.replace('|', '·')} |"


def _prose(text: str) -> Iterator[str]:
    """Help for a terminal as Markdown: what stands as it is (\\b) becomes a block, examples become commands."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.strip().splitlines()
        if lines[0] != "\b":
            yield paragraph.strip() + "\n"
        elif lines[1].startswith("Example:"):
            yield "\n".join(["```sh", *(line.removeprefix("Example: ") for line in lines[1:]), "```\n"])
        else:
            yield "\n".join(["```text", *(line.strip() for line in lines[1:]), "```\n"])


def client_page() -> str:
    """The Python client: what agents and operators call, and the records that come back."""
    parts = [
        "# The Python client\n",
        _WRITTEN,
        _OF_THE_CLIENT,
    ]
    for kind in (sdk.Agent, AsyncAgent, sdk.Client, sdk.Subscription):
        parts += _class(kind)
    parts.append("## Records\n")
    for name in ("Batch", "Context", "Event", "File", "Gap", "Published", "Result", "ResultPage", "Spawned", "Stored"):
        parts += _record(name, getattr(sdk, name))
    parts.append("## Errors and retries\n")
    for kind in (sdk.NoServer, sdk.Superseded, sdk.UnexpectedAnswer, sdk.RetryPolicy):
        parts += (f"### {kind.__name__}\n", _documented(kind))
    return "\n".join(parts)


def _class(kind: type) -> Iterator[str]:
    yield f"## {kind.__name__}\n"
    yield f"```python\n{kind.__name__}{_signature(kind.__init__)}\n```\n"
    yield _documented(kind)
    bases = [base for base in kind.__mro__ if base.__module__.startswith("sidecar.")]
    methods: Mapping[str, Any] = {name: each for base in reversed(bases) for name, each in vars(base).items()}
    for name, method in methods.items():
        if callable(method) and not name.startswith("_") and inspect.getdoc(method):
            yield f"### {kind.__name__}.{name}\n"
            if kind is not AsyncAgent:
                yield f"```python\n{name}{_signature(method)}\n```\n"
            yield _documented(method)


def _record(name: str, kind: Any) -> Iterator[str]:
    yield f"### {name}\n"
    if kind.__doc__:
        yield _documented(kind)
    properties = [name for name, each in vars(kind).items() if isinstance(each, property)]
    yield "Fields: " + ", ".join(f"`{name}`" for name in (*kind.__struct_fields__, *properties)) + ".\n"


def _documented(thing: Any) -> str:
    """Its docstring, in which arguments and fields are marked as code."""
    fields = getattr(thing, "__struct_fields__", None)
    begun = thing.__init__ if inspect.isclass(thing) else thing
    code = getattr(inspect.unwrap(begun), "__code__", None)
    names = fields or (() if code is None else (*code.co_varnames, *code.co_names))
    text = inspect.getdoc(thing) or ""
    for name in sorted(set(names) - {"self"}):
        text = re.sub(rf"(?<![`\w]){name}(?=: | None: )", f"`{name}`", text)
    return text + "\n"


class _Bare(str):
    """An annotation as it is written, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _signature(function: Callable[..., Any]) -> str:
    """As it is written: one argument a line where there are many."""
    shown = inspect.signature(function)
    arguments = [
        each.replace(annotation=_Bare(each.annotation)) for name, each in shown.parameters.items() if name != "self"
    ]
    bare = str(shown.replace(parameters=arguments, return_annotation=_Bare(shown.return_annotation))).replace("'", '"')
    return bare if len(bare) <= 90 else _wrapped(bare)


def _wrapped(signature: str) -> str:
    inside, arrow, answer = signature.rpartition(") -> ")
    if not arrow:
        inside, answer = signature[:-1], ""
    depth, parts, start = 0, [], 1
    for at, char in enumerate(inside):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 1:
            parts.append(inside[start:at].strip())
            start = at + 1
    parts.append(inside[start:].strip())
    end = f") -> {answer}" if arrow else ")"
    return "(\n" + "".join(f"    {part},\n" for part in parts) + end


PAGES: Mapping[str, Callable[[], str]] = {"commands.md": commands_page, "python-client.md": client_page}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
