"""Cuts the results of earlier agents of the issue to what the next one needs, with secrets taken out. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from ...state.models import Event, StoredResult
from .secrets.redaction import JsonRedaction

_PATHS = ("files_created", "files_modified", "files_deleted")
_LISTS = ("decisions", "next_steps", "errors", "warnings")
_MAX_CHARS = 4 << 20  # of all results of an issue; at most 1 MiB of them is sent
_FAILED = ("fail", "error", "broken", "red")
_PASSED = ("success", "succeed", "pass", "green", "complete", "ok")


class Earlier(NamedTuple):
    """outputs: newest first, as the wire has them. seeds: paths they touched. words: what they were about."""

    outputs: tuple[dict[str, Any], ...]
    seeds: tuple[str, ...]
    words: str
    redacted: int


def earlier_outputs(results: Iterable[StoredResult]) -> Earlier:
    """Earlier results of an issue, newest first."""
    outputs = []
    seeds: dict[str, None] = {}
    words: list[str] = []
    redaction = JsonRedaction(_MAX_CHARS)
    for stored in results:
        body = redaction.clean(_told_of(_decoded(stored.result)))
        files = _files_affected(body)
        seeds.update(dict.fromkeys(files))
        decisions = _listed(body.get("decisions"))
        steps = _listed(body.get("next_steps"))
        words += [text for item in (*decisions, *steps) if (text := _said(item))]
        outputs.append(
            {
                "agent": stored.agent_id,
                "agent_type": stored.agent_type,
                "timestamp": stored.timestamp,
                "status": stored.status,
                "decision": _said(decisions[0]) if decisions else None,
                "decisions": decisions,
                "files_affected": list(files),
                "next_steps": steps,
                "errors": _listed(body.get("errors")),
                "warnings": _listed(body.get("warnings")),
                "result_id": stored.id,
            }
        )
    return Earlier(tuple(outputs), tuple(seeds), "\n".join(words), redaction.count)


def _decoded(raw: msgspec.Raw) -> dict[str, Any]:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, dict) else {}


def _told_of(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a result that the next agent is given; the rest may be megabytes."""
    return {key: body[key] for key in (*_PATHS, *_LISTS) if key in body}


def _listed(value: Any) -> list[Any]:
    """Agents write lists, and now and then a single thing."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _said(item: Any) -> str:
    """The sentence in a decision or step, which is a string or an object that holds one."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        for key in ("decision", "title", "summary", "description", "text", "message", "name"):
            if isinstance(item.get(key), str):
                return str(item[key])
    return ""


def _files_affected(body: dict[str, Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for key in _PATHS:
        for item in _listed(body.get(key)):
            path = item.get("path") if isinstance(item, dict) else item
            if isinstance(path, str) and path:
                found[path.removeprefix("./")] = None
    return tuple(found)


def last_build_status(events: Iterable[Event], outputs: Iterable[dict[str, Any]]) -> str | None:
    """`success` or `failed` of the newest build or test that was reported, else None: there is no other source.

    events: newest first. outputs: as in `Earlier`.
    """
    for event in events:
        name = event.event_type.lower()
        if not name.startswith(("build", "test", "ci_", "deploy")):
            continue
        said = _decoded(event.data).get("status")
        for text in (said.lower() if isinstance(said, str) else "", name):
            if any(word in text for word in _FAILED):
                return "failed"
            if any(word in text for word in _PASSED):
                return "success"
    for output in outputs:
        if "test" in output["agent_type"] or "qa" in output["agent_type"]:
            return "success" if output["status"] == "success" else "failed"
    return None


_NOT_SAID = ("id", "type", "status", "phase", "severity", "timestamp")


def said_of_issue(events: Iterable[Event], issue_id: str) -> str:
    """The sentences in the data of an issue's events, newest first; names and states are none."""
    sentences: dict[str, None] = {}
    for event in events:
        data = _decoded(event.data)
        if data.get("issue_id") == issue_id or event.correlation_id == issue_id:
            for key, value in data.items():
                if isinstance(value, str) and " " in value and not key.endswith(_NOT_SAID):
                    sentences[value] = None
    return "\n".join(sentences)
