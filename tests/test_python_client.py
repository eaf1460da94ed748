"""The Python client: what agents and operators get from it, and what it repeats, waits out and refuses."""

from __future__ import annotations

import asyncio
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http import sdk
from sidecar.http.access.minting import mint_agent_token
from sidecar.http.client.asynchronous import AsyncAgent, AsyncClient
from sidecar.http.client.retry import AttemptFailure
from sidecar.http.config import Flags, load
from sidecar.http.sdk import ONE_ATTEMPT, Agent, Client, NoServer, RetryPolicy, UnexpectedAnswer
from sidecar.http.serve import running
from sidecar.state.errors import (
    ConfigError,
    InvalidFilter,
    NotFound,
    PermissionDenied,
    RateLimited,
    SpawnFailed,
    Unauthorized,
    Unavailable,
)
from sidecar.state.models import AgentState
from tests.fleet import wait_until
from tests.scripted_server import Scene, refusal, scripted


@pytest.fixture
def as_agent(sidecar: Any) -> Iterator[Callable[..., Agent]]:
    """Agents in this process, each with a token of its own."""
    made: list[Agent] = []

    def make(agent_type: str = "python-specialist", agent_id: str = "agent-1", *, ttl_s: int = 3600) -> Agent:
        token = sidecar.token(agent_type, agent_id, issue_id="issue-1", ttl_s=ttl_s)
        made.append(Agent(environment_of(sidecar.url, token, agent_type, agent_id)))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


def environment_of(url: str, token: str, agent_type: str = "python-specialist", agent_id: str = "a") -> dict[str, str]:
    return {
        "AGENT_ID": agent_id,
        "AGENT_TYPE": agent_type,
        "ISSUE_ID": "issue-1",
        "PROJECT_ID": "default",
        "SIDECAR_URL": f"{url}/api",
        "JWT_TOKEN": token,
    }


class TestAnAgent:
    def test_is_who_its_environment_says(self, as_agent: Callable[..., Agent]) -> None:
        agent = as_agent("python-specialist", "agent-7")
        assert (agent.id, agent.type, agent.issue_id, agent.project_id) == (
            "agent-7",
            "python-specialist",
            "issue-1",
            "default",
        )

    @pytest.mark.parametrize("name", ["AGENT_ID", "AGENT_TYPE", "ISSUE_ID", "PROJECT_ID", "SIDECAR_URL", "JWT_TOKEN"])
    def test_names_the_variable_that_is_missing(self, name: str) -> None:
        environment = environment_of("http://127.0.0.1:1", "t") | {name: ""}
        with pytest.raises(ConfigError, match=name):
            Agent(environment)

    def test_gets_its_context_typed(self, as_agent: Callable[..., Agent]) -> None:
        context = as_agent().context()
        assert "src/app.py" in {file.path for file in context.files}
        assert context.git["branch"] == "main"
        assert context.structure.total_files == 2

    def test_gets_back_the_result_that_it_stored_and_who_follows(self, as_agent: Callable[..., Agent]) -> None:
        agent = as_agent()
        stored = agent.store({"status": "partial", "odd": {"key": [1, None]}}, decisions=["half"])
        (result,) = agent.results()
        assert (result.id, result.status) == (stored.id, "partial")
        assert result.result == {"status": "partial", "odd": {"key": [1, None]}, "decisions": ["half"]}
        followers = {follower.agent_type for follower in agent.store(status="success").next_agents}
        assert "test-engineer" in followers

    def test_stores_once_however_often_it_says_so_with_one_key(self, as_agent: Callable[..., Agent]) -> None:
        agent = as_agent()
        assert agent.store(status="success", key="k").id == agent.store(status="success", key="k").id
        assert len(agent.results()) == 1

    def test_publishes_with_its_issue_filled_in(self, as_agent: Callable[..., Agent]) -> None:
        as_agent().publish("implementation_complete", {"status": "success"})
        (event,) = as_agent("test-engineer", "agent-2").wait("implementation_complete").events
        assert event.data == {"issue_id": "issue-1", "status": "success"}
        assert (event.publisher, event.topic) == ("agent-1", "implementation")

    def test_waits_until_something_comes(self, as_agent: Callable[..., Agent]) -> None:
        listener, speaker = as_agent("test-engineer", "agent-2"), as_agent()
        got: list[str] = []
        thread = threading.Thread(target=lambda: got.extend(e.data["n"] for e in listener.wait("late").events))
        thread.start()
        speaker.publish("late", {"n": "one"})
        thread.join(timeout=10)
        assert got == ["one"]

    def test_waits_no_longer_than_it_said(self, as_agent: Callable[..., Agent]) -> None:
        started = time.monotonic()
        batch = as_agent().wait("never", timeout_s=0.2)
        assert batch.timeout
        assert not batch.events
        assert 0.2 <= time.monotonic() - started < 5

    def test_may_spawn_if_it_is_an_architect(self, as_agent: Callable[..., Agent]) -> None:
        spawned = as_agent("chief-architect", "boss").spawn("python-specialist", task="do it")
        assert as_agent("chief-architect", "boss").client.agent(spawned.agent_id).issue_id == "issue-1"

    def test_gets_the_errors_of_the_sidecar_as_what_they_are(self, as_agent: Callable[..., Agent]) -> None:
        agent = as_agent()
        with pytest.raises(PermissionDenied) as denied:
            agent.spawn("go-specialist")
        assert (denied.value.details["status"], denied.value.details["wire_code"]) == (403, "AUTH_003")
        assert denied.value.details["request_id"]
        with pytest.raises(NotFound, match="nobody"):
            agent.client.agent("nobody")
        with pytest.raises(InvalidFilter) as faulty:
            agent.wait("x", filter="no colon")
        assert "position" in faulty.value.details

    def test_keeps_its_token_fresh(self, as_agent: Callable[..., Agent]) -> None:
        agent = as_agent(ttl_s=2)
        first = agent.client.token
        wait_until(lambda: agent.client.token != first)
        assert agent.client.refresh_token().timestamp() > time.time() + 3000
        assert agent.results() == ()

    def test_stays_alive_by_heartbeats_while_it_only_waits(self, start_sidecar: Any, tmp_path: Path) -> None:
        script = tmp_path / "patient.py"
        script.write_text(
            "from sidecar.http.sdk import Agent\n"
            "with Agent(heartbeat_s=0.1) as agent:\n"
            "    agent.wait('never', timeout_s=7.5)\n"
        )
        profile = f'[profiles.patient-specialist]\ncommand = ["{sys.executable}", "{script}"]\n'
        limit = 'heartbeat_timeout_seconds = 6.0\nrestart = "never"\n'
        sidecar = start_sidecar(profiles=profile + limit)
        agent_id = sidecar.spawn("patient-specialist")["agent_id"]
        ended = sidecar.wait_for("agent_exited", f"agent_id:{agent_id}")
        assert (ended["data"]["cause"], ended["data"]["exit_code"]) == ("exit", 0), ended


class TestReadingAMailbox:
    def test_gives_every_event_once_and_in_order(self, as_agent: Callable[..., Agent]) -> None:
        speaker = as_agent()
        for n in range(7):
            speaker.publish("step", {"n": n})
        events = as_agent("test-engineer", "agent-2").events("step", limit=3)
        assert [next(events).data["n"] for _ in range(7)] == list(range(7))

    def test_leaves_an_event_undone_until_the_next_is_asked_for(self, as_agent: Callable[..., Agent]) -> None:
        as_agent().publish("step", {"n": 1})
        reader = as_agent("test-engineer", "agent-2")
        reader.publish("other", {})
        first = next(reader.events("step"))
        again = next(reader.events("step"))
        assert again.event_id == first.event_id
        assert again.redelivered

    def test_does_not_give_again_what_was_acknowledged(self, as_agent: Callable[..., Agent]) -> None:
        speaker = as_agent()
        for n in range(3):
            speaker.publish("step", {"n": n})
        events = as_agent("test-engineer", "agent-2").events("step", limit=2)
        next(events)
        events.ack()
        later = as_agent("test-engineer", "agent-2").events("step")
        assert [next(later).data["n"] for _ in range(2)] == [1, 2]
        assert [next(events).data["n"] for _ in range(2)] == [1, 2]

    def test_goes_on_when_the_sidecar_was_away(self, tmp_path: Path, project: Path) -> None:
        def start(port: int) -> Any:
            asked = Flags(port=port, storage=tmp_path / "s", project_root=project)
            return running(load(asked, {}, working_dir=tmp_path))

        token = mint_agent_token(tmp_path / "s", {}, agent_id="a", agent_type="test-engineer").text
        got: list[Any] = []
        with start(0) as first:
            agent = Agent(environment_of(first.url, token, "test-engineer"), heartbeat_s=0)
            thread = threading.Thread(target=lambda: got.append(next(agent.events("resumed"))))
            thread.start()
            status = Client(first.url, token).status
            wait_until(lambda: status()["events"]["active_subscriptions"] == 1)
            port = int(first.url.rpartition(":")[2])
        with start(port):
            agent.publish("resumed", {"n": 1})
            thread.join(timeout=15)
            agent.close()
        assert [event.data["n"] for event in got] == [1]


class TestAnAgentForAsyncio:
    @pytest.fixture
    def environments(self, sidecar: Any) -> Callable[..., dict[str, str]]:
        def of(agent_type: str, agent_id: str) -> dict[str, str]:
            token = sidecar.token(agent_type, agent_id, issue_id="issue-1")
            return environment_of(sidecar.url, token, agent_type, agent_id)

        return of

    def test_does_what_the_other_one_does(self, environments: Callable[..., dict[str, str]]) -> None:
        async def work() -> None:
            async with AsyncAgent(environments("chief-architect", "boss")) as agent:
                context = await agent.context()
                assert context.git["branch"] == "main"
                stored = await agent.store({"status": "success"})
                assert [result.id for result in await agent.results()] == [stored.id]
                spawned = await agent.spawn("go-specialist")
                assert spawned.spawned
                with pytest.raises(InvalidFilter):
                    await agent.wait("x", filter="no colon")

        asyncio.run(work())

    def test_waits_for_many_things_at_once(self, environments: Callable[..., dict[str, str]]) -> None:
        async def work() -> None:
            async with AsyncAgent(environments("chief-architect", "boss")) as agent:
                waits = [asyncio.create_task(agent.wait(f"type-{n}")) for n in range(20)]
                for n in range(20):
                    await agent.publish(f"type-{n}", {"n": n})
                batches = await asyncio.gather(*waits)
                assert [batch.events[0].data["n"] for batch in batches] == list(range(20))

        asyncio.run(work())

    def test_loses_nothing_when_a_wait_is_cancelled(
        self, environments: Callable[..., dict[str, str]], sidecar: Any
    ) -> None:
        def waiting() -> int:
            parked: int = sidecar.operator.get("/status").json()["events"]["active_subscriptions"]
            return parked

        async def work() -> None:
            async with AsyncAgent(environments("test-engineer", "agent-2")) as agent:
                wait = asyncio.create_task(agent.wait("late"))
                await asyncio.to_thread(wait_until, lambda: waiting() == 1)
                wait.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await wait
                await asyncio.to_thread(wait_until, lambda: waiting() == 0)
                await agent.publish("late", {"n": 1})
                batch = await agent.wait("late", timeout_s=5)
                assert [event.data["n"] for event in batch.events] == [1]

        asyncio.run(work())

    @pytest.mark.parametrize("turns", range(14))
    def test_resets_the_connection_of_a_call_that_is_cancelled_when_its_answer_has_come(self, turns: int) -> None:
        """A connection that is closed in good order tells a server that its answer, and the events in it, were read."""
        with answering_once(b'{"agents": []}') as (url, answered, ended):

            async def work() -> bool:
                async with AsyncClient(url, "t", retries=ONE_ATTEMPT) as client:
                    call = asyncio.create_task(client.agents())
                    while not answered.is_set():
                        await asyncio.sleep(0.001)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    call.cancel()
                    with suppress(asyncio.CancelledError):
                        return await call == ()
                    return False

            was_read = asyncio.run(work())
            assert ended.get(timeout=5) == ("closed" if was_read else "reset")

    def test_makes_no_thread_for_a_call(self, environments: Callable[..., dict[str, str]]) -> None:
        async def work() -> None:
            async with AsyncAgent(environments("test-engineer", "agent-2")) as agent:
                await agent.results()
                before = threading.active_count()
                waits = [asyncio.create_task(agent.wait(f"type-{n}")) for n in range(20)]
                await agent.results()
                assert threading.active_count() == before
                for wait in waits:
                    wait.cancel()

        asyncio.run(work())

    def test_goes_on_in_another_event_loop(self, environments: Callable[..., dict[str, str]]) -> None:
        agent = AsyncAgent(environments("test-engineer", "agent-2"))
        assert asyncio.run(agent.results()) == ()
        assert asyncio.run(agent.results()) == ()
        asyncio.run(agent.close())

    def test_reads_a_mailbox_without_end(self, environments: Callable[..., dict[str, str]]) -> None:
        async def work() -> None:
            async with AsyncAgent(environments("test-engineer", "agent-2")) as agent:
                for n in range(3):
                    await agent.publish("step", {"n": n})
                seen = []
                async for event in agent.events("step"):
                    seen.append(event.data["n"])
                    if len(seen) == 3:
                        break
                assert seen == [0, 1, 2]

        asyncio.run(work())


@contextmanager
def answering_once(body: bytes) -> Iterator[tuple[str, threading.Event, queue.Queue[str]]]:
    """A server of one request: its URL, when the answer is in the client's hands, and how the connection ended."""
    answered, ended = threading.Event(), queue.Queue[str]()

    def serve() -> None:
        connected, _ = listener.accept()
        with connected:
            connected.settimeout(10)
            connected.recv(65536)
            connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            answered.set()
            try:
                ended.put("closed" if connected.recv(1) == b"" else "went on")
            except ConnectionResetError:
                ended.put("reset")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", answered, ended
        thread.join(timeout=10)


class TestAClient:
    def test_takes_the_url_with_and_without_api(self, sidecar: Any) -> None:
        for url in (sidecar.url, f"{sidecar.url}/", f"{sidecar.url}/api", f"{sidecar.url}/api/"):
            with Client(url, sidecar.operator_token()) as client:
                assert client.agents() == ()

    def test_follows_an_agent_from_spawn_to_end(self, sidecar: Any) -> None:
        with Client(sidecar.url, sidecar.operator_token()) as client:
            spawned = client.spawn("go-specialist", "issue-1")
            sidecar.wait_for("agent_started", f"agent_id:{spawned.agent_id}")
            wait_until(lambda: "ready" in client.logs(spawned.agent_id).data)
            assert client.restart(spawned.agent_id).incarnation == 2
            assert client.stop(spawned.agent_id, timeout_s=5).state is AgentState.STOPPED
            assert [agent.agent_id for agent in client.agents()] == [spawned.agent_id]

    def test_sees_health_without_a_token(self, sidecar: Any) -> None:
        with Client(sidecar.url) as client:
            assert client.health()["status"] == "healthy"
            with pytest.raises(Unauthorized):
                client.status()

    def test_says_at_once_that_no_server_is_there(self) -> None:
        with pytest.raises(NoServer, match=r"no sidecar answers at http://127\.0\.0\.1:9"):
            Client("http://127.0.0.1:9", "t", retries=ONE_ATTEMPT).agents()

    def test_refuses_what_is_no_url(self) -> None:
        with pytest.raises(ValueError, match="expected http://"):
            Client("localhost:3001")

    def test_is_light_to_import(self) -> None:
        heavy = "httpx, click, rich, pykka, bottle, waitress, git, tinydb, jwt, psutil"
        code = f"import sys, sidecar.http.sdk; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert shown.stdout.strip() == "[]"


PUBLISHED: Scene = (202, {}, {"event_id": "evt-1", "topic": "t"})
NO_AGENTS: Scene = (200, {}, {"agents": []})


class TestWhatIsRepeated:
    def test_a_publish_whose_answer_was_lost_with_the_same_key(self) -> None:
        with scripted(None, PUBLISHED) as (client, seen):
            assert client.publish("x").event_id == "evt-1"
        keys = [headers["Idempotency-Key"] for _, _, headers, _ in seen]
        assert len(keys) == 2
        assert len(set(keys)) == 1

    def test_no_request_that_may_have_been_done_and_has_no_key(self) -> None:
        with scripted(None, NO_AGENTS) as (client, seen):
            with pytest.raises(NoServer):
                client.stop("a")
            assert len(seen) == 1

    def test_a_read_while_the_sidecar_is_not_ready(self) -> None:
        with scripted(refusal("unavailable", 503), None, NO_AGENTS) as (client, seen):
            assert client.agents() == ()
            assert len(seen) == 3

    def test_anything_that_was_refused_for_its_rate_after_the_time_asked_for(self) -> None:
        limited = refusal("rate_limited", 429, **{"Retry-After": "1"})
        with scripted(limited, (200, {}, {})) as (client, seen):
            client.heartbeat("a")
            assert seen[1][3] - seen[0][3] >= 1.0

    def test_nothing_for_longer_than_its_patience(self) -> None:
        limited = refusal("rate_limited", 429, **{"Retry-After": "60"})
        with scripted(limited) as (client, _), pytest.raises(RateLimited):
            client.heartbeat("a")

    def test_no_spawn_that_failed_and_would_fail_again(self) -> None:
        with scripted(refusal("spawn_failed", 503)) as (client, _), pytest.raises(SpawnFailed):
            client.spawn("t", "i")

    def test_no_request_that_was_wrong(self) -> None:
        with scripted(refusal("not_found", 404)) as (client, _), pytest.raises(NotFound):
            client.agent("a")

    def test_a_request_whose_token_expired_with_a_fresh_one(self) -> None:
        fresh: Scene = (200, {}, {"token": "new", "expires_at": "2026-01-01T00:00:00Z"})
        with scripted(refusal("token_expired", 401), fresh, NO_AGENTS) as (client, seen):
            client.agents()
        asked = [(path, headers["Authorization"]) for _, path, headers, _ in seen]
        assert asked == [
            ("/api/agents", "Bearer old"),
            ("/api/auth/refresh", "Bearer old"),
            ("/api/agents", "Bearer new"),
        ]

    def test_a_request_on_a_connection_that_the_server_has_closed_in_between(self) -> None:
        closing: Scene = (200, {"Connection": "close"}, {"agents": []})
        with scripted(closing, NO_AGENTS) as (client, seen):
            client.agents()
            client.agents()
            assert len(seen) == 2

    def test_an_unavailable_sidecar_is_reported_as_that_in_the_end(self) -> None:
        with scripted(refusal("unavailable", 503, **{"Retry-After": "9"})) as (client, _), pytest.raises(Unavailable):
            client.agents()

    def test_an_answer_that_is_no_sidecars_is_named_as_such(self) -> None:
        with scripted((404, {}, b"<html>"), (200, {}, b"hello")) as (client, _):
            for _ in range(2):
                with pytest.raises(UnexpectedAnswer):
                    client.agents()


class TestTheRetryPolicy:
    outcomes = st.fixed_dictionaries(
        {
            "failure": st.sampled_from(AttemptFailure),
            "attempt": st.integers(1, 10_000),
            "failing_s": st.floats(0, 100),
            "repeatable": st.booleans(),
            "retry_after_s": st.none() | st.integers(0, 100).map(float),
        }
    )

    @given(outcomes, st.randoms(use_true_random=False))
    def test_never_goes_on_beyond_its_patience_nor_before_it_was_asked_to(
        self, outcome: dict[str, Any], rng: random.Random
    ) -> None:
        policy = RetryPolicy(patience_s=30)
        pause_s = policy.pause_s(**outcome, rng=rng)
        if pause_s is None:
            return
        assert outcome["failing_s"] + pause_s <= 30
        assert (outcome["retry_after_s"] or 0) <= pause_s <= (outcome["retry_after_s"] or 0) + policy.max_pause_s

    @given(outcomes, st.randoms(use_true_random=False))
    def test_never_repeats_what_may_have_been_done_unless_that_is_safe(
        self, outcome: dict[str, Any], rng: random.Random
    ) -> None:
        may_have_acted = outcome["failure"] in (AttemptFailure.ANSWER_LOST, AttemptFailure.UNAVAILABLE)
        pause_s = RetryPolicy(patience_s=1e9).pause_s(**outcome, rng=rng)
        assert (pause_s is None) == (may_have_acted and not outcome["repeatable"])

    def test_gives_up_at_once_when_it_is_told_to(self) -> None:
        for failure in AttemptFailure:
            pause_s = ONE_ATTEMPT.pause_s(
                failure, attempt=1, failing_s=0.0, repeatable=True, retry_after_s=None, rng=random.Random(1)
            )
            assert pause_s is None


def test_example_of_the_module_runs_as_it_stands(sidecar: Any) -> None:
    example = "\n".join(line[4:] for line in (sdk.__doc__ or "").splitlines() if line.startswith("    "))
    token = sidecar.token("python-specialist", "agent-1", issue_id="issue-1")
    environment = environment_of(sidecar.url, token, "python-specialist", "agent-1")
    subprocess.run([sys.executable, "-c", example], env={**os.environ, **environment}, check=True, timeout=30)
    assert sidecar.wait_for("implementation_complete")["publisher"] == "agent-1"
