"""What happens in the demo, told from the events: who is in which state, and one line for each event."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from sidecar.http.cli.sentences import how, is_crash, sentence_of
from sidecar.http.client.records import ReceivedEvent

# What a lifecycle event says of its agent's state.
_STATES = {
    "agent_spawned": "starting",
    "agent_started": "running",
    "agent_restarting": "restarting",
    "agent_stopped": "stopped",
    "agent_failed": "failed",
}


class Member(msgspec.Struct, kw_only=True):
    """One agent of the team. did: the last thing that it said, or that happened to it."""

    agent_type: str
    state: str = "awaited"
    agent_id: str = ""
    process_id: int | None = None
    incarnation: int = 0
    did: str = ""


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """From the death of one incarnation to the start of the next, in ms; back_off_ms of it was waited on purpose."""

    agent_type: str
    why: str
    took_ms: float
    back_off_ms: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event for people. at_s: seconds since the first one."""

    event: ReceivedEvent
    at_s: float
    subject: str
    text: str
    is_bad: bool = False


class Story:
    """Fed with events in their order; pure, so that it can be told on a screen, line by line, or afterwards."""

    def __init__(self, team: tuple[str, ...]) -> None:
        self.members = {name: Member(agent_type=name) for name in team}
        self.lines: list[Line] = []
        self.restarts: list[Restart] = []
        self._started_at: dict[str, datetime] = {}
        self._died: dict[str, tuple[datetime, str]] = {}
        self._back_off_ms: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        """Every member has ended, or one has ended so that the others wait for nothing."""
        states = [member.state for member in self.members.values()]
        return "failed" in states or "stopped" in states or all(state == "completed" for state in states)

    @property
    def is_good(self) -> bool:
        return all(member.state == "completed" for member in self.members.values())

    @property
    def took_s(self) -> float:
        return self.lines[-1].at_s if self.lines else 0.0

    def see(self, event: ReceivedEvent) -> Line:
        """Take in the next event; returns its line."""
        is_lifecycle = event.topic in ("system", "error") and "incarnation" in event.data
        agent_type = str(event.data.get("agent_type") or event.publisher_type)
        sentence = sentence_of(msgspec.structs.asdict(event))
        text = self._lifecycle(event, agent_type, sentence.text) if is_lifecycle else sentence.text
        member = self.members.get(agent_type)
        if member is not None and not is_lifecycle and event.event_type != "result_stored":
            member.did = text
        first = self.lines[0].event.timestamp if self.lines else event.timestamp
        line = Line(
            event=event,
            at_s=(event.timestamp - first).total_seconds(),
            subject=agent_type,
            text=text,
            is_bad=sentence.is_bad,
        )
        self.lines.append(line)
        return line

    def _lifecycle(self, event: ReceivedEvent, agent_type: str, text: str) -> str:
        """Take in a lifecycle event; returns its text, which differs from `text` for a start after a crash."""
        data, kind = event.data, event.event_type
        member = self.members.setdefault(agent_type, Member(agent_type=agent_type))
        member.agent_id = str(data.get("agent_id", ""))
        member.incarnation = data["incarnation"]
        member.process_id = data.get("process_id") if kind == "agent_started" else None
        member.state = _STATES.get(kind, member.state)
        if kind == "agent_started":
            return self._started(event, agent_type, text)
        if kind == "agent_exited" and not is_crash(data):
            member.state = "completed"
        elif kind == "agent_exited":
            member.state, member.did = "crashed", text
            self._died[agent_type] = (self._died_at(event, agent_type), how(data))
        elif kind == "agent_restarting":
            self._back_off_ms[agent_type] = float(data.get("delay_ms") or 0)
        return text

    def _died_at(self, event: ReceivedEvent, agent_type: str) -> datetime:
        """When the agent died: its running time is measured, while the event may come late on a busy machine."""
        began, ran_for_s = self._started_at.get(agent_type), event.data.get("uptime_seconds")
        if began is None or ran_for_s is None:
            return event.timestamp
        return min(event.timestamp, began + timedelta(seconds=ran_for_s))

    def _started(self, event: ReceivedEvent, agent_type: str, text: str) -> str:
        self._started_at[agent_type] = event.timestamp
        died = self._died.pop(agent_type, None)
        if died is None:
            return text
        at, why = died
        took_ms = (event.timestamp - at).total_seconds() * 1000
        back_off_ms = self._back_off_ms.pop(agent_type, 0.0)
        self.restarts.append(Restart(agent_type=agent_type, why=why, took_ms=took_ms, back_off_ms=back_off_ms))
        self.members[agent_type].did = f"was restarted {took_ms:.0f} ms after its crash"
        return f"runs again as process {event.data.get('process_id')}, {took_ms:.0f} ms after its crash"
