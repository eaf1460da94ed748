"""docs/reference/events.md says what the code publishes, and what the events of a running sidecar look like."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.http.wire.events import EventOut
from sidecar.state.events import topics
from sidecar.state.models import ExitCause
from tests.fleet import SLEEPS, DoomedSidecar, Fleet, does

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
HOW_IT_ENDED = {"cause", "exit_code", "signal"}  # what `**how_it_ended(…)` adds; `last_lines` where there are any


class Published(NamedTuple):
    topic: str
    data: frozenset[str]


def ticked(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", text))


def documented() -> dict[str, Published]:
    """By event type; of lifecycle events what they have beside the fields of all."""
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| [^|]+ \| ([^|]*)\|$", PAGE, re.MULTILINE)
    return {name: Published(topic, ticked(data)) for name, topic, data in rows}


def common() -> frozenset[str]:
    found = re.search(r"Each has in its `data`: (.*?), and in addition", PAGE, re.DOTALL)
    assert found is not None
    return ticked(found[1].replace("(null\nwhen there is no process)", ""))


def published_by_the_code() -> Iterator[tuple[str, Published]]:
    """Every `announce("type", …)` and `PublishEvent(event_type="type", …)` that names its type."""
    for path in sorted((ROOT / "actors").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            named = {word.arg: word.value for word in call.keywords if word.arg is not None}
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if called == "announce" and call.args and isinstance(call.args[0], ast.Constant):
                topic = ast.literal_eval(named.pop("topic", ast.Constant("system")))
                is_told_how = any(word.arg is None for word in call.keywords)
                yield call.args[0].value, Published(topic, frozenset(named) | (HOW_IT_ENDED if is_told_how else set()))
            elif called == "announce_about" and isinstance(call.args[1], ast.Constant):
                topic = ast.literal_eval(named.pop("topic"))
                yield call.args[1].value, Published(topic, frozenset(named))
            elif called == "PublishEvent" and isinstance(named.get("event_type"), ast.Constant):
                name = ast.literal_eval(named["event_type"])
                assert "topic" not in named
                yield name, Published(topics.standard_topic(name), frozenset())


def test_it_names_every_event_of_the_code_with_its_topic_and_no_other() -> None:
    of_code = dict(published_by_the_code())
    assert {name: each.topic for name, each in of_code.items()} == {n: each.topic for n, each in documented().items()}
    for name, each in of_code.items():
        assert each.data <= documented()[name].data, name


def test_a_running_sidecars_events_have_the_data_it_tells(start_sidecar: Any) -> None:
    sidecar = start_sidecar()
    spawned = {kind: sidecar.spawn(f"{kind}-specialist") for kind in ("python", "rust", "go")}
    sidecar.operator.delete(f"/api/agents/{spawned['go']['agent_id']}")
    body = {
        "agent_id": "agent-1", "agent_type": "python-specialist", "issue_id": "issue-1", "project_id": "default",
        "result": {"status": "success"},
    }  # fmt: skip
    assert sidecar.agent().post("/api/results", json=body).status_code == 201
    for ended in ("agent_failed", "agent_stopped", "result_stored"):
        sidecar.wait_for(ended)
    sidecar.wait_for("agent_exited", "agent_type:python-specialist")
    seen: dict[str, set[str]] = {}
    for event in sidecar.operator.get("/api/events", params={"limit": 1000}).json()["events"]:
        name, told = event["event_type"], set(event["data"])
        assert event["topic"] == documented()[name].topic
        if event["publisher"] == "sidecar":
            assert common() <= told, name
            told -= common()
        assert told <= documented()[name].data, name
        seen.setdefault(name, set()).update(told)
    assert set(seen) == set(documented()) - {
        "agent_adopted",
        "agent_lost",
        "chain_cut",
        "agent_queued",
        "agent_blocked",
    }
    assert {name: frozenset(told) for name, told in seen.items()} == {n: documented()[n].data for n in seen}


def test_an_adopted_agents_event_has_the_data_it_tells(tmp_path: Path) -> None:
    profiles = {"sleeps": does(*SLEEPS)}
    first = DoomedSidecar(tmp_path, ("sleeps",), **profiles)
    first.kill()
    with Fleet(tmp_path, **profiles) as fleet:
        event = fleet.wait_for_event(first.agents[0], "agent_adopted")
        assert set(event) == common()


def test_it_names_every_field_cause_and_topic() -> None:
    found = re.search(r"^Each event has (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert ticked(found[1]) == set(EventOut.__struct_fields__)
    (causes,) = re.findall(r"^\| `cause` \| (.*?); null", PAGE, re.MULTILINE)
    assert ticked(causes) == {str(cause) for cause in ExitCause}
    explained = set(re.findall(r"^\| `(\w+)` \| [^`|][^|]* \|$", PAGE, re.MULTILINE)) | {"cause"}
    assert {field for each in documented().values() for field in each.data} - {"status"} - common() - {
        "result_id"
    } <= explained


def test_its_topics_of_types_are_those_of_the_code() -> None:
    table = PAGE.partition("## Topics of well-known types")[2]
    shown = {
        kind: topic
        for topic, kinds in re.findall(r"^\| `(\w+)` \| (`.*`) \|$", table, re.MULTILINE)
        for kind in ticked(kinds)
    }
    assert shown == topics._TOPIC_OF_TYPE
    assert set(shown.values()) <= set(topics.STANDARD)
