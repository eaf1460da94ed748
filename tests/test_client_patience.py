"""The client's patience begins with the first failure: a request that a server held for long is not given up at once.

Each test has the server hold a request for longer than the patience of the client, and break the connection then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.http.client.asynchronous import AsyncAgent
from sidecar.http.sdk import Agent, Client, NoServer, RetryPolicy
from tests.scripted_server import Scene, refusal, scripted

PATIENCE_S = 0.2
HELD_S = 0.5

EVENT = {
    "event_id": "evt-0000000000000001",
    "event_type": "late",
    "topic": "coordination",
    "publisher": "a",
    "publisher_type": "t",
    "data": {},
    "correlation_id": None,
    "priority": "normal",
    "ttl_seconds": 60,
    "project_id": "default",
    "timestamp": "2026-01-01T00:00:00Z",
    "replayed": False,
    "redelivered": False,
}
BATCH: Scene = (200, {}, {"events": [EVENT], "timeout": False, "next_cursor": EVENT["event_id"]})
SPAWNED: Scene = (201, {}, {"agent_id": "a", "state": "running", "spawned": True, "process_id": 1, "jwt_token": "t"})
FRESH: Scene = (200, {}, {"token": "new", "expires_at": "2026-01-01T00:00:00Z"})


def environment(url: str) -> dict[str, str]:
    who = {"AGENT_ID": "a", "AGENT_TYPE": "t", "ISSUE_ID": "i", "PROJECT_ID": "default"}
    return who | {"SIDECAR_URL": url, "JWT_TOKEN": "old"}


def impatient() -> RetryPolicy:
    return RetryPolicy(patience_s=PATIENCE_S, max_pause_s=0.05)


def wait(client: Client) -> Any:
    return client.wait("late", timeout_s=30).events[0].event_id


def read_mailbox(client: Client) -> Any:
    with Agent(environment(client.url), heartbeat_s=0, retries=impatient()) as agent:
        return next(agent.events("late")).event_id


def wait_in_asyncio(client: Client) -> Any:
    async def work() -> Any:
        async with AsyncAgent(environment(client.url), heartbeat_s=0, retries=impatient()) as agent:
            return (await agent.wait("late")).events[0].event_id

    return asyncio.run(work())


def read_mailbox_in_asyncio(client: Client) -> Any:
    async def work() -> Any:
        async with AsyncAgent(environment(client.url), heartbeat_s=0, retries=impatient()) as agent:
            return (await anext(agent.events("late"))).event_id

    return asyncio.run(work())


@pytest.mark.parametrize("ask", [wait, read_mailbox, wait_in_asyncio, read_mailbox_in_asyncio])
def test_a_wait_that_was_held_for_longer_than_the_patience_goes_on_when_the_sidecar_is_back(
    ask: Callable[[Client], Any],
) -> None:
    with scripted(HELD_S, None, BATCH, patience_s=PATIENCE_S) as (client, seen):
        assert ask(client) == EVENT["event_id"]
        assert len(seen) == 3


def test_a_spawn_that_was_held_for_longer_than_the_patience_is_asked_for_again_with_its_key() -> None:
    with scripted(HELD_S, SPAWNED, patience_s=PATIENCE_S) as (client, seen):
        assert client.spawn("t", "i").agent_id == "a"
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in seen}) == 1


def test_a_refresh_that_was_held_for_longer_than_the_patience_is_asked_for_again() -> None:
    with scripted(HELD_S, None, FRESH, patience_s=PATIENCE_S) as (client, _):
        client.refresh_token()
        assert client.token == "new"


def test_a_request_whose_token_expired_while_the_sidecar_was_away_is_asked_again_with_a_fresh_one() -> None:
    expired = refusal("token_expired", 401)
    with scripted(HELD_S, expired, None, FRESH, BATCH, patience_s=PATIENCE_S) as (client, seen):
        assert wait(client) == EVENT["event_id"]
        assert seen[-1][2]["Authorization"] == "Bearer new"


def test_a_second_restart_after_another_long_hold_does_not_end_the_patience() -> None:
    with scripted(None, HELD_S, HELD_S, BATCH, patience_s=PATIENCE_S) as (client, _):
        assert wait(client) == EVENT["event_id"]


def test_a_sidecar_that_does_not_come_back_is_given_up_when_the_patience_is_over() -> None:
    with scripted(HELD_S, *[None] * 1000, patience_s=PATIENCE_S) as (client, seen), pytest.raises(NoServer):
        wait(client)
    first_failure = seen[0][3] + HELD_S
    assert seen[-1][3] - first_failure <= PATIENCE_S + HELD_S
