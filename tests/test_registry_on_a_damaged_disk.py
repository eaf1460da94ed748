"""Bits of the registry flip, or its end is lost: no revoked token is good again, and no agent is forgotten."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors import messages as m
from sidecar.actors.runtime.asking import ask
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.errors import StorageDamaged
from sidecar.state.identity import TokenKey
from sidecar.state.journal import fs as fs_module
from sidecar.state.models import AgentState
from sidecar.supervision.process_identity import is_alive
from tests.fleet import SLEEPS, WITHIN_S, Fleet, does, wait_until

PROFILES: dict[str, dict[str, Any]] = {
    "sleeps": does(*SLEEPS),
    "ends": does("sh", "-c", "sleep 0.05", restart="never"),
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "storage", **PROFILES) as fleet:
        yield fleet


@pytest.fixture(params=["a kill", "a power loss"])
def left(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fleet], Path]:
    """A copy of the registry, as it would be left by a kill, or by a power loss, now."""

    def copy(fleet: Fleet) -> Path:
        registry = shutil.copytree(fleet.directory / "registry", tmp_path / "left")
        if request.param == "a power loss":
            monkeypatch.setattr(fs_module, "_boot", lambda: "another-boot")
        return registry

    return copy


def no_flip_forgets(registry: Path, token_id: str) -> int:
    """Opens it with each of many bits flipped: it is refused, or knows the revocation. How often it was refused."""
    (segment,) = registry.glob("seg-*")
    whole, refused = segment.read_bytes(), 0
    for offset in range(0, len(whole), 31):
        segment.write_bytes(whole[:offset] + bytes((whole[offset] ^ (1 << offset % 8),)) + whole[offset + 1 :])
        try:
            opened = AgentRegistry(registry)
        except StorageDamaged:
            refused += 1
        else:
            assert token_id in opened.revoked, f"the flip at byte {offset} makes a revoked token good"
            opened.close()
    return refused


def test_no_flip_after_a_stop_was_answered_makes_its_token_good(fleet: Fleet, left: Callable[[Fleet], Path]) -> None:
    agent = fleet.spawn_id("sleeps")
    token = fleet.token_of(agent)
    fleet.stop(agent, force=True)
    assert no_flip_forgets(left(fleet), token.token_id) > 8


def test_no_flip_after_an_end_was_announced_makes_its_token_good(fleet: Fleet, left: Callable[[Fleet], Path]) -> None:
    spawned = fleet.spawn("ends")
    fleet.wait_for_event(spawned.status.agent_id, "agent_exited")
    assert spawned.token is not None
    assert no_flip_forgets(left(fleet), spawned.token.token_id) > 8


def test_no_flip_after_a_refresh_makes_the_old_token_good_for_longer(
    fleet: Fleet, left: Callable[[Fleet], Path]
) -> None:
    caller = fleet.token_of(fleet.spawn_id("sleeps"))
    fleet.ask(m.RefreshToken(caller=caller))
    assert no_flip_forgets(left(fleet), caller.token_id) > 8


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No sync of a journal ends before the event is set, from the moment it is cleared."""
    may_end = threading.Event()
    may_end.set()
    sync = fs_module._OsFile.sync

    def wait_and_sync(file: Any) -> None:
        assert may_end.wait(WITHIN_S)
        sync(file)

    monkeypatch.setattr(fs_module._OsFile, "sync", wait_and_sync)
    yield may_end
    may_end.set()


def test_a_slow_disk_delays_no_restart_but_what_tells_of_the_revocation(
    slow_disk: threading.Event, fleet: Fleet
) -> None:
    agent = fleet.spawn("sleeps").status
    slow_disk.clear()
    os.kill(agent.process_id or 0, signal.SIGKILL)
    wait_until(lambda: fleet.status(agent.agent_id).incarnation == 2, what="it is restarted")
    again = fleet.wait_for_state(agent.agent_id, AgentState.RUNNING)
    assert (again.incarnation, again.process_id != agent.process_id) == (2, True)
    stopping = fleet.spawner.request(m.StopAgent(agent_id=agent.agent_id, project_id=None, force=True))
    fleet.wait_for_state(agent.agent_id, AgentState.STOPPED)
    assert not stopping.done()
    assert "agent_exited" not in fleet.story(agent.agent_id)
    slow_disk.set()
    fleet.wait_for_event(agent.agent_id, "agent_stopped")
    wait_until(stopping.done, what="the stop is answered")


def test_a_slow_disk_delays_no_publish_at_level_os(slow_disk: threading.Event, fleet: Fleet) -> None:
    slow_disk.clear()
    event = m.PublishEvent(
        project_id="p", event_type="e", publisher="a", publisher_type="a", data=b"{}", topic="coordination"
    )
    for _ in range(3):
        ask(fleet.bus, event, timeout_s=WITHIN_S)
        syncs = fleet.directory / "events" / "log"
        assert b'"event_type":"e"' in next(syncs.glob("seg-*")).read_bytes()
    slow_disk.set()


def test_what_was_published_is_synced_and_noted_when_nothing_goes_on(fleet: Fleet) -> None:
    event = m.PublishEvent(
        project_id="p", event_type="e", publisher="a", publisher_type="a", data=b"{}", topic="coordination"
    )
    ask(fleet.bus, event, timeout_s=WITHIN_S)
    (segment,) = (fleet.directory / "events" / "log").glob("seg-*")
    wait_until(lambda: segment.read_bytes().endswith(b",0,1,0,null]\n"), what="the mark of record 1")


def lose(registry: Path) -> None:
    """Everything that came after the name of the storage."""
    (segment,) = registry.glob("seg-*")
    lines = segment.read_bytes().splitlines(keepends=True)
    named = next(number for number, line in enumerate(lines) if b'"entry":"instance"' in line)
    segment.write_bytes(b"".join(lines[: named + 1]))


def test_an_agent_of_which_every_record_is_lost_is_adopted_by_its_marks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Fleet(tmp_path / "storage", **PROFILES)
    first.open()
    before = first.spawn("sleeps", task="look after it").status
    first.vanish()
    lose(tmp_path / "storage" / "registry")
    with Fleet(tmp_path / "storage", **PROFILES) as second:
        after = second.status(before.agent_id)
        assert (after.process_id, after.incarnation) == (before.process_id, 1)
        assert (after.state, after.task, after.issue_id) == (AgentState.RUNNING, "look after it", "issue-1")
        assert f"agent adopted that the registry had lost agent_id={before.agent_id}" in caplog.text
        os.kill(after.process_id or 0, signal.SIGKILL)
        second.wait_for_event(before.agent_id, "agent_restarting")
        assert "agent_adopted" in second.story(before.agent_id)


def test_what_bears_our_marks_and_no_token_of_ours_is_ended_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Fleet(tmp_path / "storage", **PROFILES)
    first.open()
    agent = first.spawn("sleeps").status
    identity = first.trees()[agent.agent_id][0].identity
    first.vanish()
    lose(tmp_path / "storage" / "registry")
    second = Fleet(tmp_path / "storage", **PROFILES)
    second.key = TokenKey(b"another secret for tests, 32 bytes")
    with second:
        wait_until(lambda: not is_alive(identity), what="it is ended")
    os.waitpid(identity.pid, 0)  # the sidecar that started it is gone; here that is the tests' own process
    assert f"processes of an unknown agent ended agent_id={agent.agent_id} count=1" in caplog.text
