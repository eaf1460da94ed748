"""The dashboard in a real Chromium: every view, every action, nothing in the console, every number the API's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from sidecar.actors.agent_facts import AgentSubscribed
from sidecar.actors.messages import PublishEvent
from sidecar.actors.runtime.asking import ask
from sidecar.state.clock import utc_now
from sidecar.state.models import AgentId
from tests.browser import PACE, Dashboard, chromium, shown
from tests.conftest import LiveSidecar, StartSidecar

VIEWS = ("", "agents", "issues", "events", "results", "mailboxes", "dead-letters", "actors")
DATA = msgspec.Raw(b'{"issue_id":"issue-1","n":1}')
TASK = "<img src=x onerror=alert(1)> keep the lights on"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def expected_complaints() -> list[str]:
    """Texts of console messages that a test provokes; any other fails it."""
    return []


@pytest.fixture
def page(browser: webdriver.Chrome, sidecar: LiveSidecar, expected_complaints: list[str]) -> Iterator[Dashboard]:
    dashboard = Dashboard(browser, sidecar.url)
    yield dashboard
    complaints = [text for text in dashboard.complaints() if not any(known in text for known in expected_complaints)]
    dashboard.forget()
    assert complaints == []


@pytest.fixture
def inside(page: Dashboard, sidecar: LiveSidecar) -> Dashboard:
    """Logged in, in the overview."""
    page.log_in(sidecar.operator_token())
    return page


def publish(sidecar: LiveSidecar, event_type: str, data: dict[str, Any], **fields: Any) -> str:
    answer = sidecar.operator.post(f"/api/events/{event_type}", json={"data": data, **fields})
    assert answer.status_code == 202, answer.text
    event_id: str = answer.json()["event_id"]
    return event_id


def store(sidecar: LiveSidecar, issue_id: str, agent_id: str = "agent-1", **result: Any) -> None:
    body = {
        "agent_id": agent_id, "agent_type": "python-specialist", "issue_id": issue_id, "project_id": "default",
        "result": {"status": "success", **result},
    }  # fmt: skip
    answer = sidecar.agent(agent_id=agent_id).post("/api/results", json=body)
    assert answer.status_code == 201, answer.text


def make_dead_letter(sidecar: LiveSidecar) -> str:
    """An event that five incarnations of an agent died with."""
    bus = sidecar.sidecar.server.actors.bus
    agent = sidecar.agent("python-specialist", "doomed")
    event_id = publish(sidecar, "poison", {"issue_id": "issue-1"})
    for incarnation in range(1, 7):
        bus.tell(
            AgentSubscribed(
                agent_id=AgentId("doomed"),
                project_id="default",
                topics=frozenset(),
                since=utc_now(),
                incarnation=incarnation,
            )
        )
        agent.get("/api/events/wait/poison", params={"timeout": 0})
    return event_id


class TestLoggingIn:
    def test_a_pasted_token_opens_the_dashboard_and_is_kept_nowhere(
        self, page: Dashboard, sidecar: LiveSidecar
    ) -> None:
        token = sidecar.operator_token()
        page.log_in(token)
        page.reads("h1", "Overview")
        kept = page.script(
            "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert token not in kept
        assert "session" not in kept
        (cookie,) = page.browser.get_cookies()
        assert cookie["httpOnly"] is True
        assert cookie["sameSite"] == "Strict"
        assert token not in cookie["value"]

    def test_a_reload_stays_logged_in_and_logging_out_does_not(self, inside: Dashboard) -> None:
        inside.browser.refresh()
        inside.reads("h1", "Overview")
        inside.press("Log out")
        inside.reads(".login", "You are logged out.")
        inside.browser.refresh()
        inside.find("#token")

    def test_a_token_that_is_no_operators_is_refused_with_the_reason(
        self, page: Dashboard, sidecar: LiveSidecar, expected_complaints: list[str]
    ) -> None:
        expected_complaints.append("403 (Forbidden)")
        page.open()
        page.paste("#token", sidecar.token())
        page.press("Log in")
        page.reads(".problem", "lack the permission admin")

    def test_a_one_time_link_logs_in_once_and_leaves_the_address(
        self, page: Dashboard, sidecar: LiveSidecar, expected_complaints: list[str]
    ) -> None:
        expected_complaints.append("401 (Unauthorized)")
        path = sidecar.operator.post("/api/auth/login-codes").json()["path"]
        page.open(path)
        page.reads("h1", "Overview")
        assert page.browser.current_url == f"{sidecar.url}/"
        page.press("Log out")
        page.open(path)
        page.reads(".problem", "used already")

    def test_a_session_that_ends_on_the_server_asks_to_log_in_again(
        self, inside: Dashboard, sidecar: LiveSidecar, expected_complaints: list[str]
    ) -> None:
        expected_complaints.append("401 (Unauthorized)")
        (cookie,) = inside.browser.get_cookies()
        assert sidecar.sidecar.server.sessions.close(cookie["value"])
        inside.reads(".login", "The session is over")


class TestAgents:
    def test_are_listed_live_with_what_they_cost(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        inside.go("agents")
        inside.reads("main .empty", "No agents.")
        spawned = sidecar.spawn("go-specialist", "issue-7")
        row = inside.row(spawned["agent_id"])
        inside.until(lambda: "running" in row.text)
        assert "issue-7" in row.text
        assert str(spawned["process_id"]) in row.text

    def test_are_stopped_after_a_question(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        inside.go("agents")
        inside.row(agent_id)
        inside.press("Stop", "tbody")
        inside.press("Cancel", "dialog")
        inside.until(lambda: not inside.all("dialog"))
        assert sidecar.operator.get(f"/api/agents/{agent_id}").json()["state"] == "running"
        inside.press("Stop", "tbody")
        inside.press("Stop the agent", "dialog")
        inside.said(f"{agent_id} is stopped")
        inside.until(lambda: "stopped" in inside.row(agent_id).text)
        assert sidecar.operator.get(f"/api/agents/{agent_id}").json()["state"] == "stopped"

    def test_are_killed_at_once_where_that_is_asked_for(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        inside.go("agents")
        inside.row(agent_id)
        inside.press("Stop", "tbody")
        inside.click("dialog input[type=checkbox]")
        inside.press("Stop the agent", "dialog")
        inside.said(f"{agent_id} is stopped")
        exited = sidecar.wait_for("agent_exited", f"agent_id:{agent_id}")
        assert exited["data"]["signal"] == 9

    def test_are_restarted(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        inside.go("agents")
        inside.row(agent_id)
        inside.press("Restart", "tbody")
        inside.said(f"{agent_id} is running, incarnation 2")
        assert sidecar.operator.get(f"/api/agents/{agent_id}").json()["incarnation"] == 2

    def test_are_spawned_by_a_form_and_their_text_stays_text(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        inside.go("agents")
        inside.press("Spawn an agent")
        inside.type("#field-agent_type", "go-specialist")
        inside.type("#field-issue_id", "issue-3")
        inside.type("#field-task", TASK)
        inside.press("Spawn", "dialog")
        inside.reads("h1", "go-specialist-")
        (agent,) = sidecar.operator.get("/api/agents").json()["agents"]
        assert (agent["task"], agent["issue_id"], agent["requested_by"]) == (TASK, "issue-3", "operator")
        inside.reads(".facts", TASK)
        assert inside.all("main img") == []

    def test_that_cannot_be_spawned_leave_the_form_open_with_the_reason(
        self, inside: Dashboard, expected_complaints: list[str]
    ) -> None:
        expected_complaints.append("422 (Unprocessable")
        inside.go("agents")
        inside.press("Spawn an agent")
        inside.type("#field-agent_type", "java-specialist")
        inside.type("#field-issue_id", "issue-3")
        inside.press("Spawn", "dialog")
        inside.reads("dialog .problem", "java-specialist")

    def test_are_narrowed_by_text_and_state(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        kept = sidecar.spawn("go-specialist", "issue-7")["agent_id"]
        sidecar.spawn("go-specialist", "issue-8")
        inside.go("agents")
        inside.until(lambda: len(inside.all("tbody tr")) == 2)
        inside.type("main input[type=search]", "issue-7")
        inside.until(lambda: [row.get_attribute("data-key") for row in inside.all("tbody tr")] == [kept])
        inside.reads("main [role=status]", "1 of 2 agents")

    def test_are_sorted_by_a_column(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        for issue in ("issue-b", "issue-a", "issue-c"):
            sidecar.spawn("go-specialist", issue)
        inside.go("agents")
        inside.until(lambda: len(inside.all("tbody tr")) == 3)
        inside.press("Issue", "thead")
        inside.until(
            lambda: [cell.text for cell in inside.all("tbody td:nth-child(3)")] == ["issue-a", "issue-b", "issue-c"]
        )
        assert inside.find("th:nth-child(3)").get_attribute("aria-sort") == "ascending"
        inside.press("Issue", "thead")
        inside.until(
            lambda: [cell.text for cell in inside.all("tbody td:nth-child(3)")] == ["issue-c", "issue-b", "issue-a"]
        )


class TestOneAgent:
    def test_shows_its_incarnations_its_log_and_why_it_failed(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent_id = sidecar.spawn("rust-specialist")["agent_id"]
        sidecar.wait_for("agent_failed", f"agent_id:{agent_id}")
        inside.go(f"agents/{agent_id}")
        inside.until(lambda: len(inside.all(".drawing rect")) == 3)
        label = inside.find(".drawing svg").get_attribute("aria-label")
        assert label == "incarnation 1: exit 3; incarnation 2: exit 3; incarnation 3: exit 3"
        inside.reads(".heading .state", "failed")
        Select(inside.find("[aria-label=Stream]")).select_by_value("stderr")
        inside.reads(".log", "broken")
        inside.reads("main tbody", "agent_failed")

    def test_shows_what_is_written_while_it_is_written(
        self, browser: webdriver.Chrome, start_sidecar: StartSidecar, project: Path
    ) -> None:
        script = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second; exec sleep 60"
        sidecar = start_sidecar(f"[profiles.sql-specialist]\ncommand = ['sh', '-c', '{script}']\n")
        page = Dashboard(browser, sidecar.url)
        page.log_in(sidecar.operator_token())
        page.go(f"agents/{sidecar.spawn('sql-specialist')['agent_id']}")
        page.reads(".log", "first")
        assert "second" not in page.find(".log").text
        (project / "go").touch()
        page.reads(".log", "second")
        page.forget()

    def test_shows_its_results_and_events(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        spawned = sidecar.spawn("go-specialist", "issue-7")
        agent_id = spawned["agent_id"]
        own = sidecar.client(spawned["jwt_token"])
        inside.go(f"agents/{agent_id}")
        inside.reads("main tbody", "agent_started")
        own.post("/api/events/tests_written", json={"data": {"issue_id": "issue-7", "tests": 12}})
        inside.reads("main tbody", "tests=12")
        body = {
            "agent_id": agent_id, "agent_type": "go-specialist", "issue_id": "issue-7", "project_id": "default",
            "result": {"status": "success", "decisions": ["Use two phases"]},
        }  # fmt: skip
        assert own.post("/api/results", json=body).status_code == 201
        inside.click(lambda: inside.row("Use two phases"))
        inside.reads(".detail", '"Use two phases"')
        inside.press("Restart", ".heading")
        inside.said("incarnation 2")
        inside.until(lambda: len(inside.all(".drawing rect")) == 2)
        inside.press("Stop", ".heading")
        inside.press("Stop the agent", "dialog")
        inside.reads(".heading .state", "stopped")

    def test_shows_which_contexts_it_was_given(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        spawned = sidecar.spawn("go-specialist", "issue-7")
        own = sidecar.client(spawned["jwt_token"])
        inside.go(f"agents/{spawned['agent_id']}")
        inside.reads("main .empty", "It has asked for no context")
        answer = own.get("/api/context/issue-7/go-specialist", params={"q": TASK, "requirements": "git_history"})
        row = inside.row("git_history")
        assert TASK in row.text
        assert inside.all("main img") == []
        size = shown(row.find_element("css selector", "[data-source='contexts:size_bytes']"))
        assert size["value"] == len(answer.content)
        inside.click(lambda: inside.row("git_history"))
        inside.reads(".detail .facts", TASK)
        own.get("/api/context/issue-7/go-specialist", params={"q": TASK, "requirements": "git_history"})
        inside.until(lambda: [cell.text for cell in inside.all("main td:nth-child(6)")][:2] == ["yes", "no"])

    def test_is_linked_where_it_was_spawned_and_not_where_a_token_was_made_by_hand(
        self, inside: Dashboard, sidecar: LiveSidecar
    ) -> None:
        spawned = sidecar.spawn("go-specialist")
        clients = {
            spawned["agent_id"]: sidecar.client(spawned["jwt_token"]),
            "by-hand": sidecar.agent("go-specialist", "by-hand"),
        }
        for agent_id, client in clients.items():
            body = {
                "agent_id": agent_id, "agent_type": "go-specialist", "issue_id": "issue-1", "project_id": "default",
                "result": {"status": "success"},
            }  # fmt: skip
            assert client.post("/api/results", json=body).status_code == 201
            client.post("/api/events/looked_at", json={"data": {}})
            client.get("/api/events/wait/done", params={"timeout": 0})
        shown_as = {spawned["agent_id"]: f"#/agents/{spawned['agent_id']}", "by-hand": None}
        for view in ("results", "mailboxes"):
            inside.go(view)
            inside.until(lambda: links_in(inside, "tbody a", shown_as) == shown_as)
        inside.go("results")
        for agent_id, href in shown_as.items():
            inside.row(agent_id).send_keys(Keys.ENTER)
            inside.until(lambda a=agent_id, to=href: links_in(inside, ".detail a", shown_as) == {a: to})
        inside.go("events?filter=event_type:looked_at")
        for agent_id, href in reversed(shown_as.items()):
            inside.reads(".event-row", agent_id)
            inside.find(".virtual").send_keys(Keys.ARROW_DOWN)
            inside.until(
                lambda a=agent_id, to=href: links_in(inside, ".detail dt:nth-of-type(5) + dd a", shown_as) == {a: to}
            )

    def test_that_is_none_is_said_to_be_none(self, inside: Dashboard, expected_complaints: list[str]) -> None:
        expected_complaints.append("404 (Not Found)")
        inside.go("agents/operator")
        inside.reads("main .empty", "There is no agent of this name")
        assert [each.text for each in inside.all("main button")] == []
        inside.script("window.answers = {}")
        inside.answer("/status")  # a turn later it still says so, and the sidecar is as healthy as it was
        inside.reads("#health", "healthy")
        inside.reads("main .empty", "There is no agent of this name")


def links_in(page: Dashboard, css: str, names: Iterable[str]) -> dict[str, str | None]:
    """Where each of these names leads to, in the elements that it stands in alone."""
    return {each.text: each.get_dom_attribute("href") for each in page.all(css) if each.text in names}


TRIGGER = """
[[triggers]]
on = "architecture_defined"
spawn = "python-specialist"
"""


class TestIssues:
    def test_show_which_event_led_to_which_agent(self, browser: webdriver.Chrome, start_sidecar: StartSidecar) -> None:
        sidecar = start_sidecar(TRIGGER)
        cause = publish(sidecar, "architecture_defined", {"issue_id": "issue-5"})
        sidecar.wait_for("agent_exited", "issue_id:issue-5")
        (agent,) = sidecar.operator.get("/api/agents").json()["agents"]
        assert (agent["requested_by"], agent["triggered_by"]) == ("sidecar", cause)
        store(sidecar, "issue-5", agent["agent_id"], decisions=["Keep links in SQLite"])
        page = Dashboard(browser, sidecar.url)
        page.log_in(sidecar.operator_token(), "issues")
        page.click(lambda: page.row("issue-5").find_element("tag name", "a"))
        page.reads("h1", "issue-5")
        arrow = page.find(".graph path.arrow title")
        assert arrow.get_attribute("textContent") == f"architecture_defined of operator started {agent['agent_id']}"
        page.reads(".decisions", "Keep links in SQLite")
        page.click(".graph circle")
        page.reads(".detail h2", "architecture_defined")
        page.click(".graph path[role=button]")
        page.reads(".detail", "Keep links in SQLite")
        page.click(".graph .name")
        page.reads("h1", agent["agent_id"])
        page.reads(".facts", f"a trigger on {cause}")
        page.forget()

    def test_are_stopped_where_every_agent_was_and_completed_where_one_came_to_its_end(
        self, inside: Dashboard, sidecar: LiveSidecar
    ) -> None:
        for issue in ("issue-stopped", "issue-done"):
            agent_id = sidecar.spawn("go-specialist", issue)["agent_id"]
            assert sidecar.operator.delete(f"/api/agents/{agent_id}").json()["state"] == "stopped"
        done = sidecar.spawn("python-specialist", "issue-done")["agent_id"]
        sidecar.wait_for("agent_exited", f"agent_id:{done}")
        counts = "active 0 queued 0 completed 1 stopped 2 failed 0"
        inside.until(lambda: " ".join(inside.find(".legend").text.split()) == counts)
        inside.go("issues")
        for issue, state in (("issue-stopped", "stopped"), ("issue-done", "completed")):
            assert inside.row(issue).find_element("css selector", ".state").text == state


class TestEvents:
    def test_come_live_without_asking(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        sidecar.spawn("python-specialist")  # so that there is one project, and its stream is opened
        inside.browser.refresh()
        inside.go("events")
        inside.reads(".heading .state", "live")
        inside.press("Pause")
        inside.reads(".heading .state", "off")
        publish(sidecar, "while_paused", {"n": 1})
        inside.press("Resume")
        inside.reads(".event-row", "while_paused")
        publish(sidecar, "tests_written", {"issue_id": "issue-7", "html": TASK})
        inside.reads(".event-row", "tests_written")
        assert inside.all(".event-row img") == []
        assert "/api/events/stream" in inside.script(
            "return performance.getEntriesByType('resource').map(e => e.name).join()"
        )

    def test_of_every_project_are_asked_for_again_and_again(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        for project in ("one", "two"):
            sidecar.operator.post("/api/events/hello", params={"project_id": project}, json={"data": {}})
        inside.go("events")
        inside.until(lambda: len(inside.all(".event-row:not([hidden])")) == 2)
        sidecar.operator.post("/api/events/again", params={"project_id": "two"}, json={"data": {}})
        inside.reads(".event-row", "again")

    def test_pass_the_filter_of_the_sidecar_also_when_they_come_later(
        self, inside: Dashboard, sidecar: LiveSidecar
    ) -> None:
        publish(sidecar, "a", {"coverage": 95})
        publish(sidecar, "b", {"coverage": 50})
        inside.go("events")
        inside.reads("main .quiet", "2 events")
        inside.type("main input[type=search]", "coverage:>=90", enter=True)
        inside.reads("main .quiet", "1 event")
        publish(sidecar, "c", {"coverage": 10})
        publish(sidecar, "d", {"coverage": 99})
        inside.reads("main .quiet", "2 events")
        inside.until(lambda: [each.text for each in inside.all(".event-row:not([hidden]) .type")] == ["d", "a"])
        assert inside.browser.current_url.endswith("#/events?filter=coverage%3A%3E%3D90")

    def test_a_faulty_filter_is_shown_with_the_place_of_the_fault(
        self, inside: Dashboard, expected_complaints: list[str]
    ) -> None:
        expected_complaints.append("400 (Bad Request)")
        inside.go("events")
        inside.type("main input[type=search]", "coverage:>many", enter=True)
        inside.reads("#filter-problem", "coverage:>many\n          ^ expected a number")
        inside.click(".help summary")
        inside.reads(".help dl", "dots go deeper")

    def test_show_the_chain_they_belong_to(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        for step in ("asked", "answered", "accepted"):
            publish(sidecar, step, {"step": step}, correlation_id="review: 1")
        publish(sidecar, "unrelated", {})
        inside.go("events")
        inside.until(lambda: len(inside.all(".event-row:not([hidden])")) == 4)
        list_ = inside.find(".virtual")
        list_.send_keys(Keys.ARROW_DOWN)
        list_.send_keys(Keys.ARROW_DOWN)
        inside.reads(".detail h2", "accepted")
        inside.until(lambda: [b.text for b in inside.all(".chain button")] == ["asked", "answered", "accepted"])
        inside.press("asked", ".chain")
        inside.reads(".detail .json", '"step": "asked"')
        inside.click(".detail .facts a[href*=correlation]")
        inside.reads("main .quiet", "3 events")


class TestMailboxesAndDeadLetters:
    def test_show_place_lag_and_who_waits(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        first = publish(sidecar, "done", {})
        sidecar.agent().get("/api/events/wait/done", params={"timeout": 0, "filter": "!status:failed"})
        sidecar.agent().get("/api/events/wait/done", params={"timeout": 0, "filter": "!status:failed"})
        publish(sidecar, "other", {})  # not one that the mailbox is for
        publish(sidecar, "done", {})
        inside.go("mailboxes")
        row = inside.row("agent-1")
        inside.until(lambda: first in row.text)
        assert "!status:failed" in row.text
        (mailbox,) = sidecar.operator.get("/api/mailboxes").json()["mailboxes"]
        assert shown(inside.find("[data-source='mailboxes:lag']"))["value"] == mailbox["lag"] == 1

    def test_a_dead_letter_is_given_again(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        event_id = make_dead_letter(sidecar)
        inside.reads(".attention", "poison for doomed")
        inside.go("dead-letters")
        inside.row(event_id)
        inside.press("Replay", "tbody")
        inside.said(f"{event_id} is given again to 1 mailbox")
        inside.reads("main .empty", "No dead letters.")
        assert sidecar.operator.get("/api/events/dead-letters").json()["total"] == 0


# Answers to a page that asks for its newest results are held until they are let go, and the page has dealt with them.
HOLD_THE_NEWEST = """
const ask = window.fetch;
window.held = [];
window.fetch = (url, ...more) => {
  const isNewest = String(url).includes("/api/results") && !String(url).includes("cursor");
  return isNewest && held ? new Promise((answer) => held.push(() => answer(ask(url, ...more)))) : ask(url, ...more);
};
"""
LET_GO = """
const waiting = window.held;
window.held = null;
waiting.forEach((letGo) => letGo());
return fetch("/health").then((answer) => answer.json()).then(() => new Promise(requestAnimationFrame)).then(() => true);
"""


class TestResultsAndActors:
    def test_results_are_listed_narrowed_and_shown_in_full(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        store(sidecar, "issue-1", decisions=[TASK])
        store(sidecar, "issue-2", status="partial", next_steps=["more"])
        inside.go("results")
        inside.until(lambda: len(inside.all("tbody tr")) == 2)
        inside.row(TASK).send_keys(Keys.ENTER)
        inside.reads(".detail .json", TASK)
        assert inside.all("main img") == []
        inside.type("[aria-label=Issue]", "issue-2", enter=True)
        inside.until(lambda: len(inside.all("tbody tr")) == 1)
        inside.reads("tbody", "partial")

    def test_older_results_are_read_on(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent = "agent-1"
        operator = sidecar.agent("chief-architect", agent)
        for n in range(120):
            body = {
                "agent_id": agent, "agent_type": "chief-architect", "issue_id": f"issue-{n}", "project_id": "default",
                "result": {"status": "success"},
            }  # fmt: skip
            assert operator.post("/api/results", json=body).status_code == 201
        inside.go("results")
        inside.until(lambda: len(inside.all("tbody tr")) == 100)
        inside.script(HOLD_THE_NEWEST)
        inside.until(lambda: inside.script("return held.length > 0"))  # it has asked for the newest again
        inside.press("Older")
        inside.until(lambda: len(inside.all("tbody tr")) == 120)
        inside.script(LET_GO)
        assert len(inside.all("tbody tr")) == 120, "an answer that came late took the older ones away"

    def test_an_actor_is_restarted(self, inside: Dashboard) -> None:
        inside.go("actors")
        inside.row("context_builder")
        inside.press("Restart", "tr[data-key=context_builder]")
        inside.said("context_builder is restarting")
        inside.until(
            lambda: shown(inside.find("tr[data-key=context_builder] [data-source='actors:restarts']"))["value"] == 1
        )
        inside.reads("tr[data-key=context_builder]", "asked for by operator")


class TestNumbers:
    def test_every_number_is_the_apis(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        """The page is paused, so what it shows is what it was last answered; and that is compared whole."""
        spawned = sidecar.spawn("go-specialist")
        agent_id = spawned["agent_id"]
        assert sidecar.client(spawned["jwt_token"]).get("/api/context/issue-1/go-specialist").status_code == 200
        store(sidecar, "issue-1")
        make_dead_letter(sidecar)
        sidecar.agent().get("/api/events/wait/done", params={"timeout": 0})
        seen = set()
        for view in (*VIEWS, f"agents/{agent_id}"):
            inside.script("window.answers = {}")
            inside.go(view)
            inside.answer("/status")
            inside.answer("/health")  # the two come together, but one may have come before answers were forgotten
            inside.press("Pause")
            inside.reads("#health", "paused")
            with suppress(TimeoutException):  # what was still on its way has come
                inside.until(lambda: not differing(inside))
            assert differing(inside) == []
            seen |= {number["source"] for number in numbers_of(inside)}
            inside.press("Resume")
        assert {"status:events.total_published", "health:checks.memory_usage_mb", "agents:memory_mb"} <= seen
        assert {"actors:busy_ms", "mailboxes:lag", "results:total", "events:total"} <= seen
        assert {"agent:incarnation", "agent:restarts", "contexts:size_bytes", "contexts:took_ms"} <= seen
        assert len(seen) > 40

    def test_numbers_that_stand_still_are_those_of_anybody_elses_answer(
        self, inside: Dashboard, sidecar: LiveSidecar
    ) -> None:
        sidecar.spawn("rust-specialist")
        sidecar.wait_for("agent_failed")
        status = sidecar.operator.get("/status").json()
        for path in ("agents.failed", "agents.restarts_total", "agents.spawned_total", "events.total_published"):
            section, name = path.split(".")
            if name != "spawned_total":
                number = f"[data-source='status:{path}']"
                inside.until(lambda n=number, want=status[section][name]: shown(inside.find(n))["value"] == want)


# Every number of the view with its place in the API, and what that place last said.
_NUMBERS = """
const at = { agents: "/api/agents", actors: "/api/actors", mailboxes: "/api/mailboxes", results: "/api/results",
  events: "/api/events", status: "/status", health: "/health", agent: `/api/${location.hash.slice(2)}`,
  contexts: `/api/${location.hash.slice(2)}/contexts` };
const names = { agents: "agent_id", actors: "name", contexts: "at" };
const parts = ["project_id", "agent_id", "event_types", "topics", "filter", "consumer"];
return [...document.querySelectorAll("main [data-source], #health [data-source]")]
  .filter(element => element.dataset.source && element.dataset.value)
  .map(element => {
    const [answer, path] = element.dataset.source.split(":");
    const key = element.closest("tr")?.dataset.key;
    let found = window.answers[at[answer]];
    const keyOf = row => names[answer] ? row[names[answer]] : parts.map(part => row[part]).join("|");
    if (key) found = found?.[answer].find(row => keyOf(row) === key);
    for (const name of path.split(".")) found = found?.[name];
    return { source: element.dataset.source, shown: JSON.parse(element.dataset.value), answered: found ?? null };
  });
"""


def numbers_of(page: Dashboard) -> list[dict[str, Any]]:
    numbers: list[dict[str, Any]] = page.script(_NUMBERS)
    return numbers


def differing(page: Dashboard) -> list[dict[str, Any]]:
    return [number for number in numbers_of(page) if number["shown"] != number["answered"]]


def nameless_in(page: Dashboard) -> list[str | None]:
    """What can be used and has no name for a screen reader."""
    return [
        element.get_attribute("outerHTML")
        for element in page.all("main :is(button, input, select, textarea, [role=img], [role=listbox])")
        if element.is_displayed() and not element.accessible_name.strip()
    ]


class TestAnyone:
    def test_can_use_it_with_the_keyboard(self, inside: Dashboard) -> None:
        active = inside.browser.switch_to
        inside.script("document.activeElement.blur()")
        inside.find("body").send_keys(Keys.TAB)
        assert active.active_element.text == "Skip to the content"
        active.active_element.send_keys(Keys.ENTER)
        assert active.active_element.get_attribute("id") == "main"
        inside.find("#nav a[data-path=events]").send_keys(Keys.ENTER)
        inside.until(lambda: active.active_element.text == "Events")
        active.active_element.send_keys("/")
        assert active.active_element.get_attribute("type") == "search"

    def test_finds_a_name_on_everything_that_can_be_used(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        store(sidecar, "issue-1", agent_id)
        for view in (*VIEWS, f"agents/{agent_id}", "issues/issue-1"):
            inside.go(view)
            inside.until(lambda: inside.all("tbody tr, .event-row, .tiles, .empty:not([hidden])"))
            assert len(inside.all("h1")) == 1
            assert [len(inside.all(landmark)) for landmark in ("header", "nav", "main")] == [1, 1, 1]
            # A page that shows news meanwhile replaces elements: then they are looked at again.
            (nameless,) = inside.until(lambda: (nameless_in(inside),))
            assert nameless == []

    def test_chooses_light_or_dark_and_it_stays(self, inside: Dashboard) -> None:
        backgrounds = {}
        for theme in ("light", "dark"):
            inside.click("#theme")
            inside.reads("#theme", f"Theme: {theme}")
            backgrounds[theme] = inside.script("return getComputedStyle(document.body).backgroundColor")
        assert backgrounds["light"] != backgrounds["dark"]
        inside.browser.refresh()
        inside.reads("#theme", "Theme: dark")
        assert inside.script("return getComputedStyle(document.body).backgroundColor") == backgrounds["dark"]

    def test_heads_all_columns_in_one_font(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        sidecar.agent().get("/api/events/wait/done", params={"timeout": 0})
        inside.go("mailboxes")
        inside.row("agent-1")
        fonts = "return [...document.querySelectorAll('th')].map(each => getComputedStyle(each).fontFamily)"
        assert len(set(inside.script(fonts))) == 1


# What is cut off or beyond the edge of what it stands in, of the elements that a selector names.
CUT = """
return [...document.querySelectorAll(arguments[0])].filter(each => {
  const edge = (each.closest(".scroll") ?? document.documentElement).getBoundingClientRect();
  const { left, right } = each.getBoundingClientRect();
  return each.scrollWidth > each.clientWidth || left < edge.left || right > edge.right;
}).map(each => each.textContent);
"""


class TestANarrowWindow:
    def test_breaks_no_command_of_the_login(self, page: Dashboard) -> None:
        page.open()
        page.find(".login code")
        for width in (1280, 390):
            with page.in_a_window(width):
                assert page.script("return document.querySelector('.login code').getClientRects().length") == 1

    def test_keeps_the_names_of_the_views_in_one_line(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        make_dead_letter(sidecar)
        inside.until(lambda: inside.find("#nav [data-path=dead-letters] .badge").text == "1")
        wraps_and_gap = """
            const [name, badge] = document.querySelector("#nav [data-path=dead-letters]").children;
            const gap = badge.getBoundingClientRect().left - name.getBoundingClientRect().right;
            return [name.offsetHeight > parseFloat(getComputedStyle(name).lineHeight) * 1.5, gap];
        """
        with inside.in_a_window(390):
            wraps, gap = inside.script(wraps_and_gap)
        assert not wraps
        assert gap > 5  # px

    def test_has_the_buttons_of_an_agent_in_reach(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        sidecar.spawn("go-specialist", "an-issue-with-a-name-that-takes-much-room")
        inside.go("agents")
        inside.button("Restart", "tbody")
        for width in (1366, 1280, 860):
            with inside.in_a_window(width):
                assert inside.script(CUT, "tbody button") == []

    def test_shows_when_and_what_an_event_was(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        inside.go("events")
        inside.reads(".event-row", agent_id)
        for width in (860, 390):
            with inside.in_a_window(width):
                assert inside.script(CUT, ".event-row:not([hidden]) :is(.time, .type)") == []
        with inside.in_a_window(860):
            assert inside.script(CUT, ".event-row:not([hidden]) .who") == []


class TestALargeFleet:
    def test_ten_thousand_events_are_a_few_dozen_rows(self, inside: Dashboard, sidecar: LiveSidecar) -> None:
        bus = sidecar.sidecar.server.actors.bus
        message = PublishEvent(
            project_id="default", event_type="tick", publisher="operator", publisher_type="operator", data=DATA
        )
        for later in [bus.request(message) for _ in range(9_999)]:
            later.result(timeout=30)
        ask(bus, message, timeout_s=30)
        inside.go("events")
        inside.reads("main .quiet", "10,000 events")
        # As far down as there are events: what comes into sight at the end is read on.
        inside.script(
            "const list = document.querySelector('.virtual');"
            "window.down = setInterval(() => { list.scrollTop = list.scrollHeight }, 50)"
        )
        inside.until(
            lambda: inside.script("return document.querySelector('.virtual-space').offsetHeight") == 10_000 * 28
        )
        inside.script("clearInterval(window.down)")
        assert len(inside.all(".event-row")) < 80

    def test_two_hundred_agents_keep_their_rows_and_the_page_asks_little(
        self, browser: webdriver.Chrome, start_sidecar: StartSidecar
    ) -> None:
        sidecar = start_sidecar("[agents]\nmax_concurrent = 4\n")
        page = Dashboard(browser, sidecar.url)
        for n in range(200):
            sidecar.spawn("go-specialist", f"issue-{n % 20}")
        page.log_in(sidecar.operator_token(), "agents")
        page.until(lambda: len(page.all("tbody tr")) == 200)
        page.script(
            "window.first = document.querySelector('tbody tr'); window.changes = 0;"
            "new MutationObserver(list => { window.changes += list.filter(c => c.type === 'childList' && "
            "c.target.tagName === 'TBODY').length }).observe(document.querySelector('tbody'), {childList: true});"
            "performance.clearResourceTimings(); window.rested_ms = 0"
        )
        page.until(lambda: page.script("return window.rested_ms") >= 6_000)
        per_s = page.script("return performance.getEntriesByType('resource').length / window.rested_ms * 1000")
        assert 0 < per_s <= 2.5
        assert page.script("return window.changes === 0 && window.first === document.querySelector('tbody tr')")
        page.forget()

    def test_a_page_that_nobody_sees_asks_for_nothing(self, inside: Dashboard) -> None:
        inside.answer("/status")
        inside.script(
            "Object.defineProperty(document, 'visibilityState', {get: () => window.seen ?? 'hidden'});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        inside.until(lambda: inside.script("window.settled = (window.settled ?? 0) + 1; return window.settled > 20"))
        inside.script("window.answers = {}; window.at = performance.now()")
        inside.until(lambda: inside.script(f"return performance.now() - window.at > {5000 / PACE}"))
        assert inside.script("return Object.keys(window.answers)") == []
        inside.script("window.seen = 'visible'; document.dispatchEvent(new Event('visibilitychange'))")
        inside.answer("/status")
