"""Browser sessions: what a cookie may do, what it may not, and that bearer tokens work as before."""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.http.access.sessions import CODE_S, IDLE_S, MAX_SESSIONS, SESSION_S, Sessions
from sidecar.http.routes import dashboard as dashboard_page
from sidecar.state.clock import utc_now
from sidecar.state.errors import Unauthorized
from sidecar.state.identity import PERMISSIONS, AgentClass, Caller
from sidecar.state.models import AgentId
from tests.conftest import LiveSidecar

NOW = utc_now()
OPERATOR = Caller(
    agent_id=AgentId("operator"),
    agent_type="operator",
    project_id="default",
    issue_id=None,
    permissions=PERMISSIONS[AgentClass.OPERATOR],
    token_id="t",
    issued_at=NOW,
    expires_at=NOW + timedelta(days=2),
)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.fixture
def browser(sidecar: LiveSidecar) -> httpx.Client:
    """Logged in; sends what a browser would."""
    client = sidecar.client(Origin=sidecar.url, **{"Sec-Fetch-Site": "same-origin"})
    answer = client.post("/api/auth/login", json={"token": sidecar.operator_token()})
    assert answer.status_code == 201, answer.text
    client.headers["X-CSRF-Token"] = answer.json()["session"]["csrf_token"]
    return client


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


class TestASession:
    def test_may_do_what_its_operator_may(self, browser: httpx.Client) -> None:
        assert browser.get("/api/mailboxes").status_code == 200
        body = {"agent_type": "python-specialist", "issue_id": "issue-1"}
        assert browser.post("/api/agents/spawn", json=body).status_code == 201

    def test_writes_only_with_its_own_csrf_token(self, browser: httpx.Client) -> None:
        for wrong in ("", "guessed", browser.headers["X-CSRF-Token"] + "x"):
            answer = browser.post("/api/events/hello", json={"data": {}}, headers={"X-CSRF-Token": wrong})
            assert refusal(answer) == (403, "AUTH_003")
        assert browser.post("/api/events/hello", json={"data": {}}).status_code == 202

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_does_nothing_for_another_site_or_port(self, browser: httpx.Client, headers: dict[str, str]) -> None:
        assert refusal(browser.get("/api/agents", headers=headers)) == (403, "AUTH_003")
        assert refusal(browser.post("/api/events/hello", json={"data": {}}, headers=headers)) == (403, "AUTH_003")

    def test_ends_when_it_is_ended(self, browser: httpx.Client, sidecar: LiveSidecar) -> None:
        (cookie,) = browser.cookies.jar
        assert browser.delete("/api/auth/session").json()["ended"] is True
        assert not list(browser.cookies.jar)
        kept = sidecar.client(Cookie=f"{cookie.name}={cookie.value}")
        assert refusal(kept.get("/api/agents")) == (401, "AUTH_001")
        assert kept.get("/api/auth/session").json()["session"] is None

    def test_has_a_cookie_of_its_port_that_scripts_and_other_sites_do_not_get(self, sidecar: LiveSidecar) -> None:
        answer = sidecar.client().post("/api/auth/login", json={"token": sidecar.operator_token()})
        set_cookie = answer.headers["Set-Cookie"]
        port = sidecar.url.rpartition(":")[2]
        assert re.fullmatch(rf"sidecar_session_{port}=[\w-]{{43}}; Path=/; HttpOnly; SameSite=Strict", set_cookie)

    def test_is_not_opened_for_anybody_but_operators(self, sidecar: LiveSidecar) -> None:
        answer = sidecar.client().post("/api/auth/login", json={"token": sidecar.token()})
        assert refusal(answer) == (403, "AUTH_003")
        assert "Set-Cookie" not in answer.headers

    @pytest.mark.parametrize("body", [{}, {"token": "x", "code": "y"}])
    def test_is_opened_with_one_of_token_and_code(self, sidecar: LiveSidecar, body: dict[str, str]) -> None:
        assert refusal(sidecar.client().post("/api/auth/login", json=body)) == (400, "REQ_001")

    def test_is_not_opened_from_another_site(self, sidecar: LiveSidecar) -> None:
        answer = sidecar.client(Origin="http://evil.example").post(
            "/api/auth/login", json={"token": sidecar.operator_token()}
        )
        assert refusal(answer) == (403, "AUTH_003")

    def test_does_not_get_in_the_way_of_a_bearer_token(self, browser: httpx.Client, sidecar: LiveSidecar) -> None:
        own = {"Authorization": f"Bearer {sidecar.token()}", "X-CSRF-Token": "", "Origin": "http://elsewhere.example"}
        assert browser.post("/api/events/hello", json={"data": {}}, headers=own).status_code == 202
        assert refusal(browser.get("/api/mailboxes", headers=own)) == (403, "AUTH_003")


class TestAOneTimeCode:
    def test_is_for_operators_and_good_once(self, sidecar: LiveSidecar) -> None:
        assert refusal(sidecar.agent().post("/api/auth/login-codes")) == (403, "AUTH_003")
        issued = sidecar.operator.post("/api/auth/login-codes").json()
        assert issued["path"] == f"/login?code={issued['code']}"
        anyone = sidecar.client()
        for _ in range(2):  # a preview of the link uses nothing up
            assert anyone.get(issued["path"]).status_code == 200
        assert anyone.post("/api/auth/login", json={"code": issued["code"]}).status_code == 201
        assert refusal(sidecar.client().post("/api/auth/login", json={"code": issued["code"]})) == (401, "AUTH_001")

    def test_is_good_for_a_minute(self) -> None:
        sessions = Sessions()
        code, until = sessions.issue_code(OPERATOR, now=NOW)
        assert until == NOW + seconds(CODE_S)
        with pytest.raises(Unauthorized):
            sessions.redeem(code, now=until)
        code, until = sessions.issue_code(OPERATOR, now=NOW)
        assert sessions.redeem(code, now=until - seconds(1)) == OPERATOR


class TestTimeAndRoom:
    def test_a_session_ends_after_a_day_of_work_or_with_its_token(self) -> None:
        sessions = Sessions()
        _, long = sessions.open(OPERATOR, now=NOW)
        assert long.expires_at == NOW + seconds(SESSION_S)
        soon = NOW + seconds(60)
        cookie, short = sessions.open(Caller(**{**fields(OPERATOR), "expires_at": soon}), now=NOW)
        assert short.expires_at == soon
        assert sessions.find(cookie, now=soon - seconds(1)) is not None
        assert sessions.find(cookie, now=soon) is None

    def test_a_session_that_nobody_uses_ends_sooner(self) -> None:
        sessions = Sessions()
        cookie, _ = sessions.open(OPERATOR, now=NOW)
        at = NOW + seconds(IDLE_S)
        assert sessions.find(cookie, now=at) is not None
        assert sessions.find(cookie, now=at + seconds(IDLE_S)) is not None
        assert sessions.find(cookie, now=at + seconds(2 * IDLE_S + 1)) is None

    def test_there_are_only_so_many_and_the_oldest_goes_first(self) -> None:
        sessions = Sessions()
        cookies = [sessions.open(OPERATOR, now=NOW)[0] for _ in range(MAX_SESSIONS + 1)]
        assert sessions.find(cookies[0], now=NOW) is None
        assert all(sessions.find(cookie, now=NOW) is not None for cookie in cookies[1:])

    def test_neither_cookies_nor_codes_are_kept(self) -> None:
        sessions = Sessions()
        cookie, _ = sessions.open(OPERATOR, now=NOW)
        code, _ = sessions.issue_code(OPERATOR, now=NOW)
        assert cookie not in repr(vars(sessions))
        assert code not in repr(vars(sessions))


def fields(caller: Caller) -> dict[str, Any]:
    return {name: getattr(caller, name) for name in caller.__struct_fields__}


class TestThePage:
    def test_may_load_only_its_own_parts_and_be_framed_by_nobody(self, sidecar: LiveSidecar) -> None:
        for path in ("/", "/login", "/dashboard/app.js", "/dashboard/style.css"):
            answer = sidecar.client().get(path)
            assert answer.status_code == 200
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"

    def test_asks_nothing_of_any_other_place(self) -> None:
        own = re.compile(r"https?://(?!www\.w3\.org/)")
        for path in Path(dashboard_page.__file__).parent.with_name("dashboard").iterdir():
            assert own.search(path.read_text()) is None, path.name

    def test_sets_text_from_agents_as_text_only(self) -> None:
        for path in Path(dashboard_page.__file__).parent.with_name("dashboard").glob("*.js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text())

    def test_is_sent_again_only_when_it_has_changed(self, sidecar: LiveSidecar) -> None:
        first = sidecar.client().get("/dashboard/app.js")
        again = sidecar.client().get("/dashboard/app.js", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")

    def test_has_no_parts_but_its_own(self, sidecar: LiveSidecar) -> None:
        assert refusal(sidecar.client().get("/dashboard/secret")) == (404, "REQ_404")
        assert refusal(sidecar.client().get("/dashboard/..%2fserve.py")) == (400, "REQ_001")

    def test_is_in_the_wheel(self) -> None:
        root = Path(__file__).parent.parent
        tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
        assert tools["package-data"]["sidecar.http"] == ["dashboard/*"]
