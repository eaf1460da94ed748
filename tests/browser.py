"""A real headless Chromium on the dashboard, and how tests look at it: by what a person or a screen reader finds."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

WITHIN_S = 20.0  # two cores, shared with the rest of the suite

# A page asks for what is new every two seconds; here it does so five times as often.
PACE = 5

# The last JSON answer of each path, as the page got it; not those that only add to an earlier one.
# `rested_ms`: how long the page has asked to rest, by its own clock, which runs PACE times as fast.
_RECORD_ANSWERS = """
window.rested_ms = 0;
const later = window.setTimeout;
window.setTimeout = (run, ms = 0, ...given) => {
  const isRest = ms >= 1000 && ms <= 2000;
  if (isRest) window.rested_ms += ms;
  return later(run, isRest ? ms / PACE : ms, ...given);
};
window.answers = {};
const ask = window.fetch;
window.fetch = async (...of) => {
  const answer = await ask(...of);
  const { pathname: path, searchParams } = new URL(of[0], location.href);
  const isJson = (answer.headers.get("Content-Type") ?? "").includes("json");
  if (isJson && !searchParams.has("since")) window.answers[path] = await answer.clone().json();
  return answer;
};
""".replace("PACE", str(PACE))

# What a person sees of an element; nothing of one that is hidden.
_SEEN = """
const isShown = element => element.checkVisibility({ visibilityProperty: true });
const seen = element => isShown(element) ? element.innerText ?? element.textContent : "";
const all = css => [...document.querySelectorAll(css)];
"""


@contextmanager
def chromium(width: int = 1400, height: int = 900) -> Iterator[webdriver.Chrome]:
    """Skips the test where there is no browser."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver here: `make browser` says how to get them")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={profile}", f"--window-size={width},{height}",
        ):  # fmt: skip
            options.add_argument(argument)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _RECORD_ANSWERS})
            yield browser
        finally:
            browser.quit()


class Dashboard:
    """What an operator sees of one sidecar, and does there."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self.url = url

    def open(self, path: str = "/") -> None:
        self.browser.get(self.url + path)

    def log_in(self, token: str, view: str = "") -> None:
        """By pasting a token, then go to a view, such as `agents`."""
        self.open(f"/#/{view}")
        self.paste("#token", token)
        self.press("Log in")
        self.until(lambda: self.script("return document.querySelector('#nav').checkVisibility()"))

    def go(self, view: str) -> None:
        self.browser.execute_script("location.hash = arguments[0]", f"#/{view}")

    @contextmanager
    def in_a_window(self, width: int) -> Iterator[None]:
        """That many CSS pixels wide, for as long as it is looked at."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def until(self, holds: Callable[[], T]) -> T:
        """What `holds` returns once it is true; elements that are replaced meanwhile are looked up again."""

        def tried(_: Any) -> T | None:
            try:
                return holds()
            except StaleElementReferenceException:
                return None

        result = WebDriverWait(self.browser, WITHIN_S, poll_frequency=0.02).until(tried)
        assert result is not None
        return result

    def all(self, css: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def find(self, css: str) -> WebElement:
        return self.until(lambda: next(iter(self.all(css)), None))

    def button(self, name: str, within: str = "body") -> WebElement:
        """The visible button with that name."""
        code = f"{_SEEN} return all(arguments[0]).find(each => seen(each).trim() === arguments[1]) ?? null"
        button: WebElement = self.until(lambda: self.script(code, f"{within} button", name))
        return button

    def click(self, what: str | Callable[[], WebElement]) -> None:
        """What a selector finds, or a function: found again where it was drawn anew before the click came."""

        def clicked() -> bool:
            (self.find(what) if isinstance(what, str) else what()).click()
            return True

        self.until(clicked)

    def press(self, name: str, within: str = "body") -> None:
        self.click(lambda: self.button(name, within))

    def row(self, text: str) -> WebElement:
        """The table row in which `text` stands."""
        code = f"{_SEEN} return all('main tbody tr').find(each => seen(each).includes(arguments[0])) ?? null"
        row: WebElement = self.until(lambda: self.script(code, text))
        return row

    def reads(self, css: str, text: str) -> None:
        """Wait until `text` stands in an element."""
        code = f"{_SEEN} return all(arguments[0]).some(each => seen(each).includes(arguments[1]))"
        self.until(lambda: self.script(code, css, text))

    def said(self, text: str) -> None:
        """Wait until the page has announced something."""
        self.reads("#said", text)

    def paste(self, css: str, text: str) -> None:
        """All at once: a token that is typed takes half a second."""
        self.find(css).click()
        self.browser.execute_cdp_cmd("Input.insertText", {"text": text})

    def type(self, css: str, text: str, *, enter: bool = False) -> None:
        box = self.find(css)
        box.clear()
        box.send_keys(text + (Keys.ENTER if enter else ""))

    def script(self, code: str, *given: Any) -> Any:
        return self.browser.execute_script(code, *given)

    def answer(self, path: str) -> Any:
        """The newest answer that the page has got from a path of the API."""
        return self.until(lambda: self.script("return window.answers[arguments[0]] ?? null", path))

    def complaints(self) -> list[str]:
        """Errors and warnings in the browser's console since the last look."""
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def forget(self) -> None:
        """Be as a new browser to the next test."""
        self.browser.delete_all_cookies()
        self.script("localStorage.clear(); sessionStorage.clear()")
        self.browser.get("about:blank")
        self.browser.get_log("browser")


def shown(element: WebElement) -> dict[str, Any]:
    """A number on the page: where it is from, its exact value, and what people read."""
    value = element.get_attribute("data-value")
    return {
        "source": element.get_attribute("data-source"),
        "value": json.loads(value) if value else None,
        "text": element.get_attribute("textContent"),
    }
