"""`sidecar events publish` says what becomes of the event: who was waiting, who will read it, what it spawned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from click.testing import CliRunner

from sidecar.http.cli.main import main
from tests.test_events_over_http import until_waiting, wait

TRIGGER = """
[[triggers]]
on = "ready"
spawn = "go-specialist"
filter = "n:1"
"""


def said(sidecar: Any, *arguments: str, token: str | None = None) -> dict[str, str]:
    env = {"SIDECAR_URL": sidecar.url, "SIDECAR_STORAGE": str(sidecar.storage), "JWT_TOKEN": token}
    done = CliRunner().invoke(main, ["events", "publish", *arguments], env=env, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    return {name.strip(): value.strip() for name, value in lines}


def test_it_tells_waiting_from_reading_later_and_names_what_was_spawned(start_sidecar: Any) -> None:
    sidecar = start_sidecar(TRIGGER)
    ada, bob, eve = (sidecar.agent("python-specialist", name) for name in ("ada", "bob", "eve"))
    wait(bob, "ready", filter="n:1")
    wait(eve, "ready", filter="n:2")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, ada, "ready", timeout=20_000)
        until_waiting(sidecar, 1)
        told = said(sidecar, "ready", "--data", '{"n": 1, "issue_id": "issue-1"}')
        assert waiting.result(10)["events"]
    assert (told["was waiting"], told["will read it"]) == ("ada", "bob")
    assert told["spawned"].startswith("go-specialist-")
    nobody = said(sidecar, "unheard")
    assert (nobody["was waiting"], nobody["will read it"], nobody["spawned"]) == ("nobody", "nobody yet", "nothing")


def test_an_agents_token_is_told_what_it_may_know(sidecar: Any) -> None:
    told = said(sidecar, "done", token=sidecar.token())
    assert told["waiting or subscribed"] == "nobody yet"
