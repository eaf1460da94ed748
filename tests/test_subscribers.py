"""Whom a publish is said to reach: who waits for it, and agents that run and whose profile subscribes to its topic."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.state.events.log import EventLog, Retention
from sidecar.state.events.mailboxes import Mailboxes
from sidecar.state.events.subscribed_agents import SubscribedAgent
from sidecar.state.models import AgentId, Event, event_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROJECTS = ("p", "q")
TOPICS = ("testing", "error")
AGENTS = ("a", "b", "c")


def event(project_id: str, topic: str) -> Event:
    return Event(
        event_id=event_id(1),
        project_id=project_id,
        event_type="any",
        publisher="x",
        publisher_type="x",
        topic=topic,
        data=msgspec.Raw(b"{}"),
        correlation_id=None,
        priority="normal",
        ttl_s=60,
        published_at=NOW,
    )


def runs(mailboxes: Mailboxes, agent_id: str, project_id: str, topics: frozenset[str]) -> None:
    log = EventLog(Retention(max_events=8, max_age_s=1e6))
    agent = SubscribedAgent(agent_id=AgentId(agent_id), project_id=project_id, topics=topics, since=NOW, incarnation=1)
    mailboxes.agent_runs(agent, lambda _: log, now=NOW)


a_step = st.one_of(
    st.tuples(
        st.just("runs"), st.sampled_from(AGENTS), st.sampled_from(PROJECTS), st.frozensets(st.sampled_from(TOPICS))
    ),
    st.tuples(st.just("ends"), st.sampled_from(AGENTS)),
    st.tuples(st.just("is forgotten")),
)


@settings(max_examples=100, deadline=None)
@given(lives=st.lists(st.lists(a_step, max_size=12), min_size=1, max_size=3))
def test_who_runs_and_subscribes_is_told_and_nobody_else(lives: list[list[tuple[object, ...]]]) -> None:
    """Each life is followed by another opening of the same directory."""
    running: dict[str, tuple[str, frozenset[str]]] = {}
    with TemporaryDirectory() as directory:
        for life in lives:
            with closing(Mailboxes(Path(directory))) as mailboxes:
                for step in life:
                    match step:
                        case ("runs", str(agent_id), str(project_id), frozenset() as topics):
                            runs(mailboxes, agent_id, project_id, topics)
                            running[agent_id] = (project_id, topics)
                        case ("ends", str(agent_id)):
                            mailboxes.agent_ended(AgentId(agent_id), now=NOW)
                            running.pop(agent_id, None)
                        case _:
                            mailboxes.forget_unused(since=NOW.replace(year=2027))
                for project_id in PROJECTS:
                    for topic in TOPICS:
                        told = mailboxes.agents.subscribers(event(project_id, topic), [AgentId("who waits")])
                        reached = {
                            i for i, (where, topics) in running.items() if where == project_id and topic in topics
                        }
                        assert told == tuple(sorted({*reached, "who waits"}))


def test_an_agent_that_ended_before_a_snapshot_is_told_when_it_runs_again(tmp_path: Path) -> None:
    with closing(Mailboxes(tmp_path / "mailboxes")) as mailboxes:
        for _ in range(2100):  # enough for the journal to be rewritten
            runs(mailboxes, "a", "p", frozenset({"testing"}))
            mailboxes.agent_ended(AgentId("a"), now=NOW)
            mailboxes.commit()
    assert list((tmp_path / "mailboxes").glob("snap-*")), "no snapshot was written"
    with closing(Mailboxes(tmp_path / "mailboxes")) as mailboxes:
        assert mailboxes.agents.subscribers(event("p", "testing"), ()) == ()
        runs(mailboxes, "a", "p", frozenset({"testing"}))
        assert mailboxes.agents.subscribers(event("p", "testing"), ()) == ("a",)
