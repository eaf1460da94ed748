"""What the demo came to: tables of agents, results and events, and what the restart cost."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from rich.text import Text

from sidecar.examples.demo.project import ISSUE_ID, PROJECT_ID
from sidecar.examples.demo.story import Story
from sidecar.http.cli.terminal import Column, number, on_terminal, plural, printable, show, state, table_of, text
from sidecar.http.client.client import Client

_AGENTS = (
    Column("AGENT", "agent_type"),
    Column("STATE", "state", state),
    Column("INCARNATIONS", "incarnation", number(0), right=True),
    Column("LAST RAN", "uptime_seconds", number(2, " s"), right=True),
    Column("ENDED WITH", "ended_with", may_shrink=True),
)
_RESULTS = (
    Column("RESULT OF", "agent_type"),
    Column("STATUS", "status", state),
    Column("DECISIONS", "decisions", may_shrink=True),
)
_EVENTS = (
    Column("AT", "at_s", number(2, " s"), right=True),
    Column("EVENT", "event_type"),
    Column("ABOUT", "who"),
    Column("WHAT", "what", may_shrink=True),
)


def show_report(story: Story, client: Client, project: Path) -> None:
    """Print it all: the present answers of the API next to the past events."""
    agents = client.call("GET", "/api/agents", query={"project_id": PROJECT_ID})["agents"]
    for row in agents:
        row["ended_with"] = _ended_with(row)
    results = client.results(issue_id=ISSUE_ID, project_id=PROJECT_ID)
    show()
    show(table_of(reversed(agents), _AGENTS, title="Agents"))
    show()
    handed_in = [
        {"agent_type": r.agent_type, "status": r.status, "decisions": "; ".join(map(str, r.result["decisions"]))}
        for r in reversed(results.results)
    ]
    show(table_of(handed_in, _RESULTS, title="Results"))
    show()
    if on_terminal():  # elsewhere each event has left its line already
        shown = [
            {"at_s": line.at_s, "event_type": line.event.event_type, "who": line.subject, "what": line.text}
            for line in story.lines
        ]
        show(table_of(shown, _EVENTS, title="Events"))
        show()
    for restart in story.restarts:
        show(
            f"The restart of {restart.agent_type} ({text(restart.why)}) cost "
            f"[bold]{round(restart.took_ms)} ms[/] from crash to running: {round(restart.back_off_ms)} ms of back-off "
            f"and {max(0, round(restart.took_ms) - round(restart.back_off_ms))} ms of work."
        )
    commit = _last_commit(project)
    verdict = "[bold green]completed[/]" if story.is_good else "[bold red]not completed[/]"
    done = sum(member.state == "completed" for member in story.members.values())
    show(
        f"{done} of {len(story.members)} agents completed in {story.took_s:.1f} s: the work is {verdict}. "
        f"{plural(len(story.lines), 'event')}, {plural(results.total, 'result')}."
    )
    if commit:
        show(Text(f"The project's last commit: {commit}"))
    if not story.is_good:
        _show_what_went_wrong(agents, client)
    show()


def _ended_with(row: dict[str, Any]) -> str:
    return " ".join(str(row[name]) for name in ("cause", "exit_code", "last_error") if row[name] is not None)


def _show_what_went_wrong(agents: list[dict[str, Any]], client: Client) -> None:
    for row in agents:
        if row["state"] == "completed":
            continue
        for stream in ("stdout", "stderr"):
            query = {"stream": stream, "tail": 15}
            said = client.call("GET", f"/api/agents/{row['agent_id']}/logs", query=query)["data"]
            if said:
                show(f"[bold]{row['agent_id']}[/], {row['state']}, {stream}:")
                show(Text("\n".join(printable(line) for line in said.splitlines())))


def _last_commit(project: Path) -> str:
    """One line: hash, author and subject."""
    shown = subprocess.run(
        ["git", "log", "-1", "--format=%h by %an: %s"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return shown.stdout.strip()
