"""Writes an event as a sentence, for lists, followers, `top` and the demo. Pure.

`http/dashboard/sentences.js` says the same; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

# Fields of an event's data that stand in other columns, or mean nothing to people.
_SHOWN_ELSEWHERE = ("agent_id", "agent_type", "project_id")

_CAUSES = {
    "oom": "killed by the kernel, which ran out of memory",
    "memory": "it went over its memory limit",
    "timeout": "it ran for longer than it may",
    "heartbeat": "no heartbeat came in time",
    "start_failed": "it could not be started",
}


class Sentence(msgspec.Struct, frozen=True):
    """An event in words. subject: the agent that it is about, else the publisher. is_bad: something went wrong."""

    subject: str
    text: str
    is_bad: bool = False


def sentence_of(event: Mapping[str, Any]) -> Sentence:
    """event: as on the wire. Texts of agents in it are as they were written: make them visible before showing them."""
    data = event["data"] if isinstance(event["data"], Mapping) else {}
    publisher = str(event["publisher"])
    if publisher == "sidecar" and "incarnation" in data:
        subject = str(data.get("agent_id", publisher))
        return Sentence(subject, _lifecycle_text(event["event_type"], data), went_wrong(event["event_type"], data))
    template = _TEMPLATES.get(event["event_type"])
    text = template(data) if template is not None else None
    return Sentence(publisher, text or brief(data), event.get("topic") == "error")


def went_wrong(event_type: str, data: Mapping[str, Any]) -> bool:
    """Whether a lifecycle event tells of a crash, or that an agent was given up or lost."""
    if event_type in ("agent_failed", "agent_lost", "agent_blocked"):
        return True
    return event_type == "agent_exited" and is_crash(data)


def is_crash(data: Mapping[str, Any]) -> bool:
    """Whether an incarnation ended neither well nor on request."""
    return data.get("cause") not in (None, "killed", "exit") or bool(data.get("exit_code"))


def how(data: Mapping[str, Any]) -> str:
    """How an incarnation ended, such as `killed by signal 9`."""
    cause = data.get("cause")
    if isinstance(cause, str) and cause in _CAUSES:
        return _CAUSES[cause]
    if data.get("signal") is not None:
        return f"killed by signal {data['signal']}"
    if data.get("exit_code") is not None:
        return f"exit code {data['exit_code']}"
    return str(cause or "nobody saw how")


def brief(data: Mapping[str, Any]) -> str:
    """The data in one line, without the fields that stand in other columns."""
    pairs = [(key, value) for key, value in data.items() if key not in _SHOWN_ELSEWHERE]
    return "  ".join(f"{key}={value if isinstance(value, str) else _json(value)}" for key, value in pairs)


def _lifecycle_text(event_type: str, data: Mapping[str, Any]) -> str:
    pid, seconds = data.get("process_id"), data.get("uptime_seconds")
    after = f" after {seconds:.2f} s" if isinstance(seconds, int | float) else ""
    match event_type:
        case "agent_spawned":
            return "is spawned"
        case "agent_started" if isinstance(data["incarnation"], int) and data["incarnation"] > 1:
            return f"runs again as process {pid}, incarnation {data['incarnation']}"
        case "agent_started":
            return f"runs as process {pid}"
        case "agent_exited" if is_crash(data):
            return f"crashed: {how(data)}"
        case "agent_exited" if data.get("cause") == "killed":
            return f"was ended{after}"
        case "agent_exited":
            return f"completed{after}"
        case "agent_restarting":
            return f"is restarted in {_rounded(data.get('delay_ms'))} ms"
        case "agent_stopped":
            return "is stopped"
        case "agent_failed":
            return f"gave up: {data.get('reason') or how(data)}"
        case "agent_adopted":
            return f"goes on as process {pid}, taken over"
        case "agent_lost":
            return "ended while no sidecar ran"
        case "agent_queued":
            return f"waits for {_waits_for(data.get('waiting_for'))}"
        case "agent_blocked":
            return f"is blocked: {data.get('why') or 'what it depends on has failed'}"
        case _:
            return event_type.removeprefix("agent_").replace("_", " ")


def _rounded(value: Any) -> int:
    return round(value) if isinstance(value, int | float) else 0


def _cut(data: Mapping[str, Any]) -> str | None:
    path = data.get("path")
    if not isinstance(path, list | tuple) or data.get("agent_type") is None:
        return None
    return f"{data['agent_type']} is not spawned: {' → '.join(map(str, path))} caused one another"


def _waits_for(value: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        value = value["text"]
    return value if isinstance(value, str) else "its turn" if value is None else _json(value)


def _wrote(data: Mapping[str, Any]) -> str | None:
    files = data.get("files")
    return f"wrote {', '.join(map(str, files))}" if isinstance(files, list) and files else None


def _filled(template: str, *fields: str) -> Callable[[Mapping[str, Any]], str | None]:
    """The template with these fields; None where one is missing, so that the data itself is shown."""

    def say(data: Mapping[str, Any]) -> str | None:
        values = [data.get(field) for field in fields]
        return None if None in values else template.format(*map(_shown, values))

    return say


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_TEMPLATES: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "chain_cut": _cut,
    "architecture_defined": _filled("{}", "decision"),
    "implementation_complete": _wrote,
    "testing_complete": _filled("{} tests: {}, {} % of the lines executed", "tests", "status", "coverage"),
    "security_audit_complete": _filled("{} files scanned, {} findings", "files_scanned", "findings"),
    "documentation_complete": _filled("documented and committed as {}", "commit"),
    "result_stored": _filled("result {}, {}", "result_id", "status"),
    "error_encountered": _filled("{}", "error"),
}
