"""`sidecar events …`: publish, follow and list events."""

from __future__ import annotations

import sys
from codecs import BOM_UTF8
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec

from ...state.typed import convert, decode
from ..client.calls import segment
from ..client.client import Client
from ..client.errors import Superseded
from ..client.records import Batch, Gap, Published, ReceivedEvent
from .commands import REFUSED, Commands
from .connection import require_project, with_client
from .following import EventFollower
from .moment import place
from .options import format_option, format_option_for, project_option
from .readers import mailboxes as mailboxes_of
from .readers import readers_of
from .sentences import sentence_of
from .shapes import DeadLettersAnswer, EventsAnswer, MailboxesAnswer, ReplayAnswer
from .stderr import tell
from .terminal import (
    Column,
    Format,
    clock,
    csv_line,
    event_row,
    local,
    number,
    plural,
    printable,
    safe_json,
    say_there_is_more,
    sentence_markup,
    show_fields,
    show_rows,
    text,
)


def _listed(value: Any) -> str:
    return text(", ".join(value or ()))


EVENT_COLUMNS = (
    Column("EVENT", "event_id"),
    Column("TIME", "timestamp", clock),
    Column("TYPE", "event_type"),
    Column("TOPIC", "topic"),
    Column("WHO", "publisher"),
    Column("WHAT", "data", sentence_markup, may_shrink=True),
)

MAILBOX_COLUMNS = (
    Column("AGENT", "agent_id"),
    Column("TYPES", "event_types", _listed, may_shrink=True),
    Column("TOPICS", "topics", _listed, may_shrink=True),
    Column("FILTER", "filter", may_shrink=True),
    Column("CONSUMER", "consumer", may_shrink=True),
    Column("PLACE", "position"),
    Column("LAG", "lag", number(0), right=True),
    Column("DELIVERIES", "deliveries", number(0), right=True),
    Column("WAITED ON", "waited_on", lambda value: "yes" if value else ""),
    Column("GAP", "gap", may_shrink=True),
    Column("LAST USED", "last_used_at", clock),
)

DEAD_LETTER_COLUMNS = (
    Column("EVENT", "event.event_id"),
    Column("TYPE", "event.event_type"),
    Column("WHO", "event.publisher"),
    Column("GIVEN UP BY", "agent_id"),
    Column("AT", "given_up_at", clock),
    Column("REPLAYED", "replayed_at", clock, may_shrink=True),
    Column("WHAT", "event.data", sentence_markup, may_shrink=True),
)


@click.group(cls=Commands)
def events() -> None:
    """Publish, follow and list events.

    \b
    Filters are FIELD:VALUE terms joined by commas, all of which hold. A field is one of the
    event's data (a.b goes deeper) or of the event itself. Also a:1|2 (either), !a:1 (not),
    a:issue-* (glob), a:>90 and a:<=1 (numbers).

    \b
    Example: sidecar events subscribe implementation_complete --filter "issue_id:issue-7,status:success"
    """


@events.command()
@click.argument("event_type")
@click.option("--data", default="{}", show_default=True, help="A JSON object, @FILE to read one, or - for stdin.")
@click.option("--topic", help="[default: the standard topic of the type]")
@click.option("--correlation-id", help="Connects the events of one conversation.")
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), default="normal", show_default=True)
@click.option("--ttl", type=click.IntRange(1, 86400), metavar="SECONDS", help="Maximum time to keep the event.")
@project_option
@format_option
@with_client
def publish(
    client: Client,
    event_type: str,
    data: str,
    topic: str | None,
    correlation_id: str | None,
    priority: Any,
    ttl: int | None,
    project: str | None,
    format_: Format,
) -> None:
    """Publish an event.

    When the command returns, the event survives the death of the sidecar. For operators, it shows which agents were
    waiting for the event, which will read it at their next wait, and which it spawned.

    \b
    Example: sidecar events publish release_approved --data '{"issue_id": "issue-7", "by": "ada"}'
    """
    body = {
        "event_type": event_type,
        "data": read_object(data, "--data"),
        "topic": topic,
        "correlation_id": correlation_id,
        "priority": priority,
        "ttl_seconds": ttl,
    }
    require_project(client, project)
    before = mailboxes_of(client, project) if format_ == "table" else None
    answer = client.call(
        "POST",
        f"/api/events/{segment(event_type)}",
        query={"project_id": project},
        body={name: value for name, value in body.items() if value is not None},
        shape=Published,
    )
    fields = [("event", answer["event_id"]), ("topic", text(answer["topic"]))]
    if before is None:
        concerned = ", ".join(answer.get("subscribers_notified", ())) or "nobody yet"
        fields.append(("waiting or subscribed", text(concerned)))
    else:
        waited, reads, spawned = readers_of(client, answer, event_type, before, project)
        fields += [("was waiting", text(waited or "nobody")), ("will read it", text(reads or "nobody yet"))]
        fields.append(("spawned", text(spawned or "nothing")))
    show_fields(answer, fields, format_)


@events.command()
@click.argument("event_types", nargs=-1)
@click.option("--topic", "topics", multiple=True, help="Only of this topic; may be repeated.")
@click.option("--filter", default="", help='Such as "issue_id:issue-7,status:success".')
@click.option("--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS")
@click.option("--continuous", is_flag=True, help="Continue until interrupted.")
@click.option(
    "--since",
    metavar="PLACE",
    callback=place,
    help="earliest, latest, an event id or a time.  [default: your last position]",
)
@click.option("--consumer", default="", help="A name for this position, if you follow the log twice.")
@click.option("--project", "project_id", metavar="ID", help="Of this project.  [default: the token's]")
@format_option_for("one event per line")
@with_client
def subscribe(
    client: Client,
    event_types: tuple[str, ...],
    timeout: float,
    continuous: bool,
    since: str | None,
    format_: Format,
    **question: Any,
) -> None:
    """Wait for events and print one line for each.

    Waits for EVENT_TYPES, or for every type. The sidecar remembers your position: the next run continues from there.
    With --continuous, it also continues after a restart of the sidecar. Exit code 1 if no event came in time.

    \b
    Example: sidecar events subscribe --continuous --since latest --format json | jq .data
    """
    require_project(client, question["project_id"])
    with suppress(KeyboardInterrupt):
        if not continuous:
            batch = client.wait(*event_types, since=since, timeout_s=timeout, **question)
            _print(batch, format_)
            raise SystemExit(0 if batch.events else REFUSED)
        follower = EventFollower(client, event_types, since, question)
        while True:
            _print(follower.next(), format_)


def _print(batch: Batch, format_: Format) -> None:
    if batch.gap is not None:
        tell(_gap_text(batch.gap))
    for event in batch.events:
        click.echo(_line(event, format_))
    if batch.superseded:
        raise Superseded("another subscriber took this place in the log over; name yours with --consumer")


def _gap_text(gap: Gap) -> str:
    if gap.reason == "restart":
        return (
            f"the event log has lost events after {gap.from_}, up to {gap.to} at most: a power loss, an older backup, "
            "or a place in another log"
        )
    dropped = plural(gap.dropped_at_most, "event was", "events were")
    return f"at most {dropped} dropped before you read them ({gap.reason})"


@events.command("list")
@click.option("--topic", help="Only of this topic.")
@click.option("--type", "event_type", help="Only of this type.")
@click.option("--filter", "filter_", default="", help='Such as "issue_id:issue-7".')
@click.option(
    "--since",
    metavar="PLACE",
    callback=place,
    help="Only after this event id, or from this date or time on, local or RFC 3339.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--cursor", help="next_cursor of the previous page.")
@project_option
@format_option
@with_client
def list_(
    client: Client,
    topic: str | None,
    event_type: str | None,
    filter_: str,
    since: str | None,
    limit: int,
    cursor: str | None,
    project: str | None,
    format_: Format,
) -> None:
    """List events, newest first, without moving any mailbox.

    \b
    Example: sidecar events list --type agent_failed --format json
    """
    query = {
        "topic": topic,
        "type": event_type,
        "filter": filter_ or None,
        "since": since,
        "limit": limit,
        "cursor": cursor,
        "project_id": project,
    }
    answer = client.call("GET", "/api/events", query=query, shape=EventsAnswer)
    if not answer["events"]:
        require_project(client, project)
    listed = answer["events"]
    rows = [event_row(event) for event in listed] if format_ == "table" else listed
    show_rows(answer, rows, EVENT_COLUMNS, format_, nothing="no events")
    if answer.get("gap") is not None:
        tell(_gap_text(convert(answer["gap"], Gap)))
    say_there_is_more(answer, answer["events"], format_)


@events.command()
@project_option
@format_option
@with_client
def mailboxes(client: Client, project: str | None, format_: Format) -> None:
    """List the mailboxes and their lag.

    Shows each mailbox's position in the log, and the number of its events after that position.

    \b
    Example: sidecar events mailboxes --format json | jq '.mailboxes[] | select(.lag > 100)'
    """
    answer = client.call("GET", "/api/mailboxes", query={"project_id": project}, shape=MailboxesAnswer)
    if not answer["mailboxes"]:
        require_project(client, project)
    show_rows(answer, answer["mailboxes"], MAILBOX_COLUMNS, format_, nothing="no mailboxes")


@events.command("dead-letters")
@click.option("--replay", metavar="EVENT_ID", help="Deliver this event again to every mailbox that gave up on it.")
@project_option
@format_option
@with_client
def dead_letters(client: Client, replay: str | None, project: str | None, format_: Format) -> None:
    """List the dead letters: events whose readers all died.

    \b
    Example: sidecar events dead-letters --replay evt-0000000000000042
    """
    if replay is not None:
        path = f"/api/events/dead-letters/{segment(replay)}/replay"
        answer = client.call("POST", path, query={"project_id": project}, body={}, shape=ReplayAnswer)
        show_fields(
            answer,
            [("event", replay), ("given again to", plural(answer["mailboxes"], "mailbox", "mailboxes"))],
            format_,
        )
        return
    answer = client.call("GET", "/api/events/dead-letters", query={"project_id": project}, shape=DeadLettersAnswer)
    if not answer["dead_letters"]:
        require_project(client, project)
    rows = answer["dead_letters"]
    if format_ == "table":
        rows = [{**row, "event": event_row(row["event"])} for row in rows]
    show_rows(answer, rows, DEAD_LETTER_COLUMNS, format_, nothing="no dead letters")


def read_object(source: str, option: str) -> dict[str, Any]:
    """A JSON object given as itself, as @FILE, or as - for standard input."""
    if source == "-" and sys.stdin is None:
        raise click.BadParameter("standard input is closed", param_hint=option)
    try:
        raw = sys.stdin.buffer.read() if source == "-" else source.encode()
        if source.startswith("@"):
            raw = Path(source[1:]).read_bytes()
        return decode(raw.removeprefix(BOM_UTF8), dict[str, Any])
    except OSError as error:
        raise click.BadParameter(f"{error.filename} cannot be read: {error.strerror}", param_hint=option) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.BadParameter(f"is no JSON object: {error}", param_hint=option) from error


def _line(event: ReceivedEvent, format_: Format) -> str:
    match format_:
        case "json":  # one a line, so that other programs can read them as they come
            return safe_json(msgspec.json.encode(event))
        case "csv":
            at = event.timestamp.isoformat()
            return csv_line((event.event_id, at, event.event_type, event.topic, event.publisher, event.data))
        case "table":
            at = f"{local(event.timestamp):%H:%M:%S}"
            sentence = sentence_of(msgspec.structs.asdict(event))
            words = printable(sentence.text)
            # The colour is left out where standard output is no terminal.
            shown = click.style(words, fg="red") if sentence.is_bad else words
            return f"{at}  {printable(event.event_type):<26} {printable(sentence.subject):<28} {shown}"
