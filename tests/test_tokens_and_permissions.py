"""Who may do what: every row of the protocol's table of classes, identities, projects, expiry, refresh, revocation."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from freezegun import freeze_time

from sidecar.actors.agents.tokens import AgentTokens
from sidecar.http.access.auth import Authenticator
from sidecar.http.storage import SECRET_FILE
from sidecar.state.agent_entries import AgentRecord, TokenRef
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.clock import utc_now
from sidecar.state.errors import TokenExpired, Unauthorized
from sidecar.state.identity import PERMISSIONS, AgentClass, Revocations, TokenKey
from sidecar.state.models import AgentId, AgentSpec, AgentState
from sidecar.supervision.profile import built_in
from tests.fleet import SLEEPS, DoomedSidecar, Fleet, does

NARROW = {"coordination", "error", "system"}

# class, an agent type of it, write_results, topics (None: every one), spawn_agents
ROWS = [
    ("architect", "chief-architect", True, None, True),
    ("architect", "data-architect", True, None, True),
    ("coding", "python-specialist", True, None, False),
    ("coding", "web-developer", True, None, False),
    ("qa", "test-engineer", True, None, False),
    ("qa", "security-auditor", True, None, False),
    ("devops", "devops-engineer", True, None, False),
    ("documentation", "documentation-expert", True, NARROW | {"documentation"}, False),
    ("documentation", "tech-writer", True, NARROW | {"documentation"}, False),
    ("support", "poet", False, NARROW, False),
    ("support", "operator", False, NARROW, False),
]
TOPICS = ("architecture", "implementation", "documentation", "coordination", "error", "system", "of-our-own")


def outcome(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize(("_class", "agent_type", "writes", "topics", "spawns"), ROWS)
def test_each_class_may_what_the_table_says(
    sidecar: Any, _class: str, agent_type: str, writes: bool, topics: set[str] | None, spawns: bool
) -> None:
    agent = sidecar.agent(agent_type, "ada")
    assert agent.get(f"/api/context/issue-1/{agent_type}").status_code == 200
    assert agent.get("/api/results").status_code == 200
    assert agent.get("/api/events/wait/anything", params={"timeout": 0}).status_code == 200
    result = {"agent_id": "ada", "agent_type": agent_type, "issue_id": "issue-1", "project_id": "default"}
    stored = agent.post("/api/results", json={**result, "result": {"status": "success"}})
    assert outcome(stored) == ((201, "") if writes else (403, "AUTH_003"))
    for topic in TOPICS:
        published = agent.post("/api/events/thought", json={"topic": topic, "data": {}})
        may = topics is None or topic in topics
        assert outcome(published) == ((202, "") if may else (403, "AUTH_003")), topic
    spawned = agent.post("/api/agents/spawn", json={"agent_type": "python-specialist", "issue_id": "issue-1"})
    assert outcome(spawned) == ((201, "") if spawns else (403, "AUTH_003"))


def test_the_topic_that_a_type_implies_counts_as_named(sidecar: Any) -> None:
    agent = sidecar.agent("poet", "ada")
    assert outcome(agent.post("/api/events/implementation_complete", json={"data": {}})) == (403, "AUTH_003")
    assert outcome(agent.post("/api/events/error_encountered", json={"data": {}})) == (202, "")


def test_a_profile_can_put_a_type_into_another_class(start_sidecar: Any) -> None:
    sidecar = start_sidecar('[profiles.poet]\nclass = "coding"\n')
    poet = sidecar.agent("poet", "ada", agent_class=AgentClass.CODING)
    assert outcome(poet.post("/api/events/implementation_complete", json={"data": {}})) == (202, "")


OPERATORS_ONLY = [
    ("GET", "/api/mailboxes"),
    ("GET", "/api/events/dead-letters"),
    ("DELETE", "/api/agents/agent-1"),
    ("POST", "/api/agents/agent-1/restart"),
    ("POST", "/api/actors/event_bus/restart"),
    ("DELETE", "/api/cache/all"),
]


@pytest.mark.parametrize(("method", "path"), OPERATORS_ONLY)
def test_what_is_for_operators_is_refused_to_an_architect(sidecar: Any, method: str, path: str) -> None:
    answer = sidecar.agent("chief-architect").request(method, path)
    assert outcome(answer) == (403, "AUTH_003")
    assert answer.json()["details"] == {"permission": "admin"}
    assert sidecar.operator.request(method, path).status_code in (200, 202, 404)


@pytest.mark.parametrize("publisher", ["ada", "python-specialist", None])
def test_a_publisher_may_go_by_id_or_type(sidecar: Any, publisher: str | None) -> None:
    agent = sidecar.agent("python-specialist", "ada")
    assert outcome(agent.post("/api/events/done", json={"publisher": publisher, "data": {}})) == (202, "")
    event = sidecar.wait_for("done")
    assert (event["publisher"], event["publisher_type"]) == (publisher or "ada", "python-specialist")


def test_nobody_publishes_or_stores_under_another_name(sidecar: Any) -> None:
    for client in (sidecar.agent("python-specialist", "ada"), sidecar.operator):
        forged = client.post("/api/events/done", json={"publisher": "bob", "data": {}})
        assert outcome(forged) == (403, "AUTH_005")
    agent = sidecar.agent("python-specialist", "ada")
    own = {"agent_id": "ada", "agent_type": "python-specialist", "issue_id": "i", "project_id": "default"}
    for field in ("agent_id", "agent_type"):
        answer = agent.post("/api/results", json={**own, field: "somebody", "result": {"status": "success"}})
        assert outcome(answer) == (403, "AUTH_005")
        assert answer.json()["details"]["field"] == field


def test_a_context_is_for_ones_own_type_unless_one_may_spawn(sidecar: Any) -> None:
    answer = sidecar.agent("python-specialist").get("/api/context/issue-1/test-engineer")
    assert outcome(answer) == (403, "AUTH_005")
    for client in (sidecar.agent("chief-architect"), sidecar.operator):
        assert client.get("/api/context/issue-1/test-engineer").status_code == 200


def test_a_token_acts_in_its_project_only(sidecar: Any) -> None:
    ada = sidecar.agent("chief-architect", "ada", project_id="one")
    bob = sidecar.agent("chief-architect", "bob", project_id="two")
    body = {"agent_id": "ada", "agent_type": "chief-architect", "issue_id": "i", "result": {"status": "success"}}
    stored = ada.post("/api/results", json={**body, "project_id": "one"})
    assert stored.status_code == 201
    assert outcome(ada.post("/api/results", json={**body, "project_id": "two"})) == (403, "AUTH_004")
    assert outcome(bob.get(f"/api/results/{stored.json()['id']}")) == (404, "REQ_404")
    assert bob.get("/api/results").json()["total"] == 0
    assert bob.get("/api/events").json()["total"] == 0
    assert bob.get("/api/events/wait/result_stored", params={"timeout": 0}).json()["events"] == []
    for path in ("/api/results", "/api/events", "/status", "/api/events/wait", "/api/agents"):
        assert outcome(bob.get(path, params={"project_id": "one"})) == (403, "AUTH_004")
    spawn = {"agent_type": "python-specialist", "issue_id": "i", "project_id": "one"}
    assert outcome(bob.post("/api/agents/spawn", json=spawn)) == (403, "AUTH_004")
    agent_id = ada.post("/api/agents/spawn", json=spawn).json()["agent_id"]
    assert outcome(bob.get(f"/api/agents/{agent_id}")) == (404, "REQ_404")
    assert ada.get(f"/api/agents/{agent_id}").status_code == 200
    assert bob.get("/api/agents").json()["agents"] == []
    assert bob.get("/status").json()["storage"]["results_stored"] == 0


def test_an_operator_sees_every_project_or_the_one_named(sidecar: Any) -> None:
    for project_id in ("one", "two"):
        published = sidecar.operator.post("/api/events/done", params={"project_id": project_id}, json={"data": {}})
        assert published.status_code == 202
    assert sidecar.operator.get("/api/events").json()["total"] == 2
    listed = sidecar.operator.get("/api/events", params={"project_id": "two"}).json()
    assert [event["project_id"] for event in listed["events"]] == ["two"]


def forged(token: str, **claims: Any) -> str:
    """The token's claims, changed, under its own signature."""
    head, body, signature = token.split(".")
    known = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**known, **claims}).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


def test_only_whole_tokens_of_ours_are_taken(sidecar: Any) -> None:
    good = sidecar.token()
    secret = bytes.fromhex((sidecar.storage / SECRET_FILE).read_text())
    claims = jwt.decode(good, options={"verify_signature": False})
    bad = {
        "nothing": "",
        "no bearer": good,
        "basic": f"Basic {good}",
        "empty": "Bearer",
        "garbage": "Bearer garbage",
        "too long": f"Bearer {'x' * 20_000}",
        "not ascii": "Bearer \xe9".encode("latin-1"),
        "changed": f"Bearer {forged(good, permissions=['admin'])}",
        "unsigned": f"Bearer {jwt.encode(claims, '', algorithm='none')}",
        "another secret": f"Bearer {jwt.encode(claims, b'x' * 32, algorithm='HS256')}",
        "another algorithm": f"Bearer {jwt.encode(claims, secret * 2, algorithm='HS512')}",
        "another audience": f"Bearer {jwt.encode({**claims, 'aud': 'others'}, secret, algorithm='HS256')}",
        "another issuer": f"Bearer {jwt.encode({**claims, 'iss': 'others'}, secret, algorithm='HS256')}",
        "from the future": f"Bearer {jwt.encode({**claims, 'nbf': claims['nbf'] + 600}, secret, algorithm='HS256')}",
        "an unknown permission": f"Bearer {jwt.encode({**claims, 'permissions': ['all']}, secret, algorithm='HS256')}",
        "for ever": f"Bearer {jwt.encode({**claims, 'exp': 10**30}, secret, algorithm='HS256')}",
        "from before time": f"Bearer {jwt.encode({**claims, 'iat': -(10**15)}, secret, algorithm='HS256')}",
        **{
            f"id {token_id!r}": f"Bearer {jwt.encode({**claims, 'jti': token_id}, secret, algorithm='HS256')}"
            for token_id in ("", " ", "../x", "x" * 200)
        },
        "a bad name": f"Bearer {jwt.encode({**claims, 'sub': '../x'}, secret, algorithm='HS256')}",
        **{
            f"no {name}": "Bearer "
            + jwt.encode({key: value for key, value in claims.items() if key != name}, secret, algorithm="HS256")
            for name in claims
            if name != "issue_id"
        },
    }
    for what, header in bad.items():
        answer = sidecar.client().get("/status", headers={"Authorization": header} if header else {})
        assert outcome(answer) == (401, "AUTH_001"), what
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert good not in answer.text
        assert secret.hex() not in answer.text
    assert sidecar.client(good).get("/status").status_code == 200


def test_an_expired_token_is_told_from_a_wrong_one(sidecar: Any) -> None:
    with freeze_time(datetime.now(UTC) - timedelta(hours=2), tick=True):
        old = sidecar.token()
    answer = sidecar.client(old).get("/status")
    assert outcome(answer) == (401, "AUTH_002")


def test_a_refreshed_token_works_and_the_old_one_for_a_minute_more(sidecar: Any) -> None:
    with freeze_time(tick=True) as clock:
        old = sidecar.client(sidecar.token())
        answer = old.post("/api/auth/refresh")
        assert answer.status_code == 200
        assert set(answer.json()) == {"token", "expires_at", "timestamp"}
        new = sidecar.client(answer.json()["token"])
        assert new.get("/status").status_code == 200
        assert old.get("/status").status_code == 200
        clock.tick(61)
        assert outcome(old.get("/status")) == (401, "AUTH_001")
        assert new.get("/status").status_code == 200


def test_a_chain_of_refreshes_does_not_fill_the_agent_s_record(tmp_path: Path) -> None:
    key, now = TokenKey(b"k" * 32), datetime.now(UTC)
    spec = AgentSpec(agent_id=AgentId("a-1"), agent_type="go-specialist", issue_id="i", project_id="p")
    record = AgentRecord(spec=spec, serial=1, requested_by=AgentId("b"), created_at=now, state=AgentState.RUNNING)
    with closing(AgentRegistry(tmp_path)) as registry:
        tokens = AgentTokens(key, Revocations(), registry)
        token = tokens.mint(spec, built_in("go-specialist"), now=now)
        record = msgspec.structs.replace(record, tokens=(TokenRef(token.token_id, token.expires_at),))
        for minutes in range(2, 40, 2):
            then = now + timedelta(minutes=minutes)
            token, changed = tokens.refresh(key.verify(token.text, now=then), record, now=then)
            assert changed is not None
            record = changed
            assert token.token_id in {ref.token_id for ref in record.tokens}
            assert len(record.tokens) <= 2


def test_only_an_agent_that_is_supervised_refreshes_an_expired_token(sidecar: Any) -> None:
    spawned = sidecar.client(sidecar.spawn("go-specialist")["jwt_token"])
    by_hand = sidecar.agent("go-specialist", "by-hand")
    with freeze_time(datetime.now(UTC) + timedelta(hours=1, minutes=4), tick=True):
        assert outcome(by_hand.post("/api/auth/refresh")) == (401, "AUTH_002")
        assert spawned.post("/api/auth/refresh").status_code == 200


class TestTheTokenOfAnIncarnation:
    """It is good as long as the incarnation lives, and not a moment longer, however long ago it expired."""

    def test_is_good_after_its_time_until_the_process_ends(self, sidecar: Any) -> None:
        spawned = sidecar.spawn("go-specialist")
        agent = sidecar.client(spawned["jwt_token"])
        with freeze_time(datetime.now(UTC) + timedelta(days=3), tick=True):
            assert agent.get("/status").status_code == 200
            assert sidecar.client(spawned["jwt_token"]).get("/status").status_code == 200  # not seen before
            operator = sidecar.client(sidecar.operator_token())
            assert operator.post(f"/api/agents/{spawned['agent_id']}/restart").status_code == 200
            assert outcome(agent.get("/status"))[0] == 401
            assert outcome(agent.post("/api/auth/refresh"))[0] == 401

    def test_is_good_after_its_time_with_the_next_sidecar_too(self, tmp_path: Path) -> None:
        first = DoomedSidecar(tmp_path, ("sleeps",), sleeps=does(*SLEEPS))
        first.kill()
        with Fleet(tmp_path, sleeps=does(*SLEEPS)) as fleet:
            agent_id = first.agents[0]
            fleet.wait_for_event(agent_id, "agent_adopted")
            caller = fleet.token_of(agent_id)
            assert caller.token_id in fleet.revocations.kept
            fleet.stop(agent_id)
            assert fleet.revocations.is_revoked(caller.token_id, now=utc_now())

    def test_stays_refused_when_its_revocation_is_forgotten(self) -> None:
        revocations, now = Revocations(), utc_now()
        revocations.keep("a")
        revocations.revoke("a", from_=now, expires_at=now - timedelta(hours=5))
        revocations.forget_expired(now=now)
        assert "a" not in revocations.kept

    def test_leaves_the_refreshed_one_a_minute_and_ends_with_the_agent(self, sidecar: Any) -> None:
        spawned = sidecar.spawn("go-specialist")
        old = sidecar.client(spawned["jwt_token"])
        with freeze_time(datetime.now(UTC) + timedelta(hours=2), tick=True) as clock:
            new = sidecar.client(old.post("/api/auth/refresh").json()["token"])
            clock.tick(7200)
            assert outcome(old.get("/status"))[0] == 401
            assert new.get("/status").status_code == 200
            sidecar.client(sidecar.operator_token()).delete(f"/api/agents/{spawned['agent_id']}")
            assert outcome(new.get("/status"))[0] == 401


class TestAHeadThatComesAgain:
    """Publishes and waits whose head came before are not parsed again; who may still ask is looked at each time."""

    def published(self, client: Any, **more: Any) -> list[tuple[int, str]]:
        body = {"data": {}}
        return [outcome(client.post("/api/events/news", json=body, **more)) for _ in range(3)]

    def test_its_token_still_expires(self, sidecar: Any) -> None:
        with freeze_time(tick=True) as clock:
            agent = sidecar.agent()
            assert self.published(agent) == [(202, "")] * 3
            clock.tick(3601)
            assert self.published(agent) == [(401, "AUTH_002")] * 3

    def test_its_token_may_be_revoked(self, sidecar: Any) -> None:
        with freeze_time(tick=True) as clock:
            old = sidecar.client(sidecar.token())
            assert self.published(old) == [(202, "")] * 3
            assert old.post("/api/auth/refresh").status_code == 200
            clock.tick(61)
            assert self.published(old) == [(401, "AUTH_001")] * 3

    def test_the_host_it_is_for_is_still_ours_alone(self, sidecar: Any) -> None:
        assert self.published(sidecar.agent(), headers={"Host": "elsewhere"}) == [(403, "AUTH_003")] * 3

    def test_what_is_open_to_everyone_stays_so_with_any_token(self, sidecar: Any) -> None:
        stranger = sidecar.client("no token of ours")
        assert [stranger.get("/health").status_code for _ in range(3)] == [200] * 3

    def test_a_refused_one_is_refused_again(self, sidecar: Any) -> None:
        agent = sidecar.agent("poet")
        answers = [agent.post("/api/events/news", json={"topic": "architecture", "data": {}}) for _ in range(3)]
        assert [outcome(answer) for answer in answers] == [(403, "AUTH_003")] * 3


class TestTheTokenCache:
    key = TokenKey(b"k" * 32)

    def header(self, now: datetime, **claims: Any) -> str:
        known: dict[str, Any] = {"agent_id": "ada", "agent_type": "t", "project_id": "p", "issue_id": None}
        permissions = PERMISSIONS[AgentClass.CODING]
        return f"Bearer {self.key.mint(**known, permissions=permissions, now=now, **claims).text}"

    def test_a_remembered_token_still_expires(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        clock = [now]
        authenticator = Authenticator(self.key, Revocations(), now=lambda: clock[0])
        header = self.header(now, ttl_s=10)
        assert authenticator.caller(header).agent_id == "ada"
        clock[0] = now + timedelta(seconds=9.9)
        assert authenticator.caller(header).agent_id == "ada"
        clock[0] = now + timedelta(seconds=10)
        with pytest.raises(TokenExpired):
            authenticator.caller(header)

    def test_a_remembered_token_is_still_revoked(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        revocations = Revocations()
        authenticator = Authenticator(self.key, revocations, now=lambda: now)
        header = self.header(now)
        caller = authenticator.caller(header)
        revocations.revoke(caller.token_id, from_=now, expires_at=caller.expires_at)
        with pytest.raises(Unauthorized):
            authenticator.caller(header)

    def test_one_remembered_within_the_refresh_grace_is_no_more_than_that(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        late = now + timedelta(seconds=3700)
        authenticator = Authenticator(self.key, Revocations(), now=lambda: late)
        header = self.header(now)
        assert authenticator.refresher(header).agent_id == "ada"
        with pytest.raises(TokenExpired):
            authenticator.caller(header)

    def test_one_that_is_good_until_the_last_second_there_is_can_be_refreshed(self) -> None:
        now = datetime(9999, 12, 31, 23, tzinfo=UTC)
        authenticator = Authenticator(self.key, Revocations(), now=lambda: now)
        header = self.header(datetime(9999, 12, 31, 22, 59, 59, tzinfo=UTC))
        assert authenticator.refresher(header).expires_at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    def test_it_is_bounded(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        authenticator = Authenticator(self.key, Revocations(), remembered=5, now=lambda: now)
        for _ in range(20):
            authenticator.caller(self.header(now))
        assert len(authenticator._callers) == 5
