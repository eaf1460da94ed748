"""How answers are shown: a table that fits the terminal, JSON as the server sent it, or CSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import click
import msgspec
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..visible import cell, json_text, one_line
from .sentences import Sentence, sentence_of
from .stderr import tell

MAX_DURATION_S = timedelta.max.total_seconds() / 2

Format = Literal["table", "json", "csv"]
Row = Mapping[str, Any]

STATE_STYLES = {
    "running": "green",
    "completed": "bold green",
    "healthy": "green",
    "starting": "cyan",
    "queued": "cyan",
    "blocked": "yellow",
    "stopping": "yellow",
    "backing_off": "yellow",
    "restarting": "yellow",
    "partial": "yellow",
    "stopped": "dim",
    "failed": "bold red",
    "unhealthy": "bold red",
    "success": "green",
}


def as_it_is(value: Any) -> str:
    return "" if value is None else text(str(value))


def state(value: Any) -> str:
    style = STATE_STYLES.get(str(value))
    return f"[{style}]{value}[/]" if style else as_it_is(value)


def local(at: datetime) -> datetime:
    """The time in the reader's own zone; as it is where that lies beyond the first or last year."""
    try:
        return at.astimezone()
    except (OverflowError, ValueError):
        return at


def clock(value: Any) -> str:
    """A time of the wire in the reader's own zone; with the date when it is not today's. Other values as they are."""
    try:
        at = local(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return as_it_is(value)
    today = datetime.now(UTC).astimezone().date()
    return f"{at:%H:%M:%S}" if at.date() == today else f"{at:%Y-%m-%d %H:%M}"


def seconds(value: Any) -> str:
    """A duration: 4.2 s below a minute, then 03:07, then 5:03:07. Other values as they are."""
    if not _is_number(value):
        return as_it_is(value)
    return (
        f"{value:.1f} s" if value < 60 else str(timedelta(seconds=round(min(value, MAX_DURATION_S)))).removeprefix("0:")
    )


def number(digits: int, unit: str = "") -> Callable[[Any], str]:
    """Shows numbers with so many digits behind the point, and other values as they are."""
    return lambda value: f"{value:,.{digits}f}{unit}" if _is_number(value) else as_it_is(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def plural(count: int, one: str, many: str = "") -> str:
    """`1 mailbox`, `2 mailboxes`; without `many` an s is put to `one`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def printable(value: Any) -> str:
    """A value as one line: text with control characters escaped, anything else as JSON."""
    return one_line(value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode())


def text(value: Any) -> str:
    """As `printable`, with nothing in it taken for markup."""
    return escape(printable(value))


def event_row(event: Row) -> Row:
    """An event as a table shows it: the agent that it is about as publisher, and a sentence as data."""
    sentence = sentence_of(event)
    return {**event, "publisher": sentence.subject, "data": sentence}


def sentence_markup(value: Any) -> str:
    """The sentence of an event, red where something went wrong."""
    if not isinstance(value, Sentence):
        return text(value)
    return f"[red]{text(value.text)}[/]" if value.is_bad else text(value.text)


class Column(NamedTuple):
    """One column. field: dotted path into the row. show: for people, in tables alone; JSON and CSV stay exact.

    may_shrink: cut with … where the terminal is narrow, and left out where it says nothing. wraps: rather than cut.
    """

    title: str
    field: str
    show: Callable[[Any], str] = text
    right: bool = False
    may_shrink: bool = False
    wraps: bool = False


def value_of(row: Row, field: str) -> Any:
    value: Any = row
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error, as a terminal."""
    return Console(highlight=False, stderr=stderr)


def on_terminal() -> bool:
    """Whether standard output is one; it may also be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def show(renderable: RenderableType = "") -> None:
    """Print. Into a pipe or a file nothing is cut, or padded, to a width that nobody sees."""
    if on_terminal():
        terminal = console()
        # Where not even that is room enough, the terminal wraps lines; an id that is cut is of no use.
        terminal.width = max(terminal.width, terminal.measure(renderable).minimum)
        terminal.print(renderable)
        return
    unbounded = Console(file=io.StringIO(), width=10_000, highlight=False, color_system=None)
    with unbounded.capture() as captured:
        unbounded.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def table_of(rows: Iterable[Row], columns: Sequence[Column], *, title: str | None = None) -> Table:
    """Only columns that may shrink give way when the terminal is narrow."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    shown = [[one_line(column.show(value_of(row, column.field))) for column in columns] for row in rows]
    # A column of remarks in which nothing is remarked only takes space from the others.
    kept = [at for at, column in enumerate(columns) if not column.may_shrink or any(row[at] for row in shown)]
    for at in kept:
        column = columns[at]
        widest = max((Text.from_markup(row[at]).cell_len for row in shown), default=0)
        table.add_column(
            column.title,
            header_style="dim",
            justify="right" if column.right else "left",
            no_wrap=not column.may_shrink,
            min_width=None if column.may_shrink else max(widest, len(column.title)),
        )
    for row in shown:
        cells = [Text.from_markup(row[at], overflow="fold" if columns[at].wraps else "ellipsis") for at in kept]
        for written, at in zip(cells, kept, strict=True):
            written.no_wrap = not columns[at].wraps
        table.add_row(*cells)
    return table


def show_rows(answer: Any, rows: Sequence[Row], columns: Sequence[Column], format: Format, *, nothing: str) -> None:
    """A list. answer: the whole answer, for JSON. nothing: what a table says when there are no rows."""
    match format:
        case "json":
            show_json(answer)
        case "csv":
            click.echo(csv_line(column.field for column in columns))
            for row in rows:
                click.echo(csv_line(value_of(row, column.field) for column in columns))
        case "table" if not rows:
            tell(nothing)
        case "table":
            show(table_of(rows, columns))


def say_there_is_more(answer: Row, shown: Sequence[Row], format: Format) -> None:
    """Below a table, how to get the next page; the other formats hold `next_cursor` or are for programs anyhow."""
    if format == "table" and answer["next_cursor"]:
        tell(f"{len(shown)} of {answer['total']}; older ones: --cursor {answer['next_cursor']}")


def show_fields(answer: Any, fields: Sequence[tuple[str, str]], format: Format) -> None:
    """One thing. fields: names and texts, with markup, for the table; CSV has one line for each field of the answer."""
    match format:
        case "json":
            show_json(answer)
        case "csv":
            click.echo(csv_line(("field", "value")))
            for item in answer.items():
                click.echo(csv_line(item))
        case "table":
            grid = Table.grid(padding=(0, 2))
            for name, shown in fields:
                grid.add_row(f"[dim]{name}[/]", one_line(shown))
            show(grid)


def show_json(answer: Any) -> None:
    click.echo(safe_json(msgspec.json.format(msgspec.json.encode(answer), indent=2)))


def safe_json(encoded: bytes) -> str:
    """The same JSON, with escapes for characters that steer the terminal or cannot be written there."""
    takes_everything = sys.stdout is None or (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json_text(encoded.decode(), only_ascii=not takes_everything)


def csv_line(values: Iterable[Any]) -> str:
    """One line of CSV (RFC 4180) without formulas for spreadsheets; objects and lists as JSON."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(_cell, values))  # it quotes what holds the end of a line
    return line.getvalue().removesuffix("\n")


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple | bool):
        return json_text(msgspec.json.encode(value).decode())
    return cell(value) if isinstance(value, str) else value
