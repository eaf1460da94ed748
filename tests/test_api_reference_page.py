"""`/docs` in a real Chromium: the whole description, from this server alone, with nothing in the console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.browser import Dashboard, chromium
from tests.conftest import LiveSidecar
from tests.documented import document, operations

FILES = Path(__file__).parents[1] / "http" / "dashboard"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: webdriver.Chrome, sidecar: LiveSidecar) -> Iterator[Dashboard]:
    """At `/docs`, without logging in."""
    docs = Dashboard(browser, sidecar.url)
    docs.open("/docs")
    docs.find(".operation")
    yield docs
    assert docs.complaints() == []
    docs.forget()


def visible(page: Dashboard) -> list[str]:
    return [each.get_attribute("id") or "" for each in page.all(".operation") if each.is_displayed()]


def test_every_operation_is_there_in_its_resource(page: Dashboard) -> None:
    shown = {tuple(each.text.split()[:2]) for each in page.all(".operation > summary")}
    assert shown == {(each.method, each.path) for each in operations()}
    assert [each.text for each in page.all("nav a")] == [tag["name"] for tag in document()["tags"]]
    assert [each.text for each in page.all("section h2")] == [tag["name"] for tag in document()["tags"]]


def test_an_opened_operation_tells_what_it_reads_and_answers(page: Dashboard) -> None:
    page.click("#publish_event > summary")
    page.reads("#publish_event .about", "Needs the permission publish_events.")
    text = page.find("#publish_event .about").text
    for expected in ("event_type", "correlation_id", "Idempotency-Key", "202", "REQ_413", "AUTH_005", "at most 86400"):
        assert expected in text
    assert """-d '{"data":{}}'""" in text
    assert f"curl -X POST '{page.url}/api/events/{{event_type}}'" in text


def test_every_operation_can_be_opened_and_lists_its_statuses(page: Dashboard) -> None:
    page.press("Open all")
    page.until(lambda: len(page.all(".about")) == len(operations()))
    for each in operations():
        statuses = page.script(
            "return [...document.querySelectorAll(`#${arguments[0]} .status`)].map((each) => Number(each.textContent))",
            each.about["operationId"],
        )
        assert set(statuses) == each.statuses
    assert not re.search(r"undefined|\[object", page.find("main").text)
    page.press("Close all")
    page.until(lambda: page.all(".operation[open]") == [])


def test_search_narrows_it_down_and_says_when_there_is_nothing(page: Dashboard) -> None:
    page.script("document.activeElement.blur()")
    page.find("body").send_keys("/")
    page.browser.switch_to.active_element.send_keys("dead letters")
    assert set(visible(page)) == {"list_dead_letters", "replay_dead_letter"}
    page.type("#search", "AGT_002")
    assert visible(page) == ["spawn_agent"]
    page.type("#search", "zzz")
    page.reads("#none", "Nothing matches.")


def test_an_address_leads_to_its_operation_and_the_keyboard_does_the_rest(page: Dashboard) -> None:
    page.open("/docs#spawn_agent")
    page.browser.refresh()
    page.reads("#spawn_agent .about", "NewAgent")
    focused = page.browser.switch_to.active_element
    assert "/api/agents/spawn" in focused.text
    focused.send_keys(Keys.ENTER)
    page.until(lambda: page.all("#spawn_agent[open]") == [])
    assert page.script("return document.querySelector('.skip').matches(':any-link')")


def test_it_follows_the_system_into_the_dark(page: Dashboard) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        colours.add(page.script("return getComputedStyle(document.body).backgroundColor"))
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(colours) == 2


def test_nothing_comes_from_elsewhere(page: Dashboard, sidecar: LiveSidecar) -> None:
    loaded = page.script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded
    assert all(name.startswith(page.url + "/") for name in loaded)
    headers = sidecar.client().get("/docs").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    for file in FILES.glob("reference.*"):
        assert not re.search(r"https?://", file.read_text()), file


def test_the_dashboard_leads_there(sidecar: LiveSidecar) -> None:
    assert 'href="/docs"' in sidecar.client().get("/").text
