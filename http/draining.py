"""Ends a sidecar's waiting requests and agents, within the time of a shutdown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..actors.messages import AnswerWaiters, Drain
from ..actors.runtime.asking import Later, ask
from ..actors.runtime.timers import GAP_S
from ..state.errors import SidecarError, Unavailable
from .routing import Actors, Server

log = logging.getLogger(__name__)

ASK_S = 1.0


def end_agents(server: Server, *, within_s: float, has_failed: Callable[[], bool]) -> None:
    """Stop the agents. If an actor was given up, leave them: the next sidecar takes them over."""
    _log_count("agents", lambda: _drain(server, within_s=within_s, has_failed=has_failed))


def answer_waiters(actors: Actors) -> None:
    """Answer the requests that wait for events."""
    _log_count("waiting requests", lambda: ask(actors.bus, AnswerWaiters(), timeout_s=ASK_S))


def kill_agents(actors: Actors) -> None:
    """Kill the agents: none outlives a sidecar after a second signal."""
    try:
        ask(actors.spawner, Drain(timeout_s=0.0), timeout_s=ASK_S)
    except SidecarError as error:
        log.error("agents did not end at once: %s", error)


def _drain(server: Server, *, within_s: float, has_failed: Callable[[], bool]) -> int:
    """Ask again whenever the Spawner is restarted. Returns the number of running agents. Raises Unavailable."""
    left_s = within_s
    while True:
        later = server.actors.spawner.request(Drain(timeout_s=left_s, leave=has_failed()))
        left_s = _wait_running(later, left_s)
        try:
            return later.result(timeout=ASK_S)
        except TimeoutError:
            later.cancel()
            raise Unavailable(f"the agents did not end within {within_s + ASK_S:g} s") from None
        except Unavailable:
            if left_s == 0 or has_failed() or _is_over("spawner", server):
                raise


def _is_over(actor: str, server: Server) -> bool:
    return all(status.state.is_over for status in server.actor_statuses() if status.name == actor)


def _wait_running(later: Later[int], left_s: float) -> float:
    """Wait for an answer. Returns the time left, of which a pause of the sidecar takes nothing: see Timers."""
    is_done = False
    while left_s > 0 and not is_done:
        began_at, step_s = time.monotonic(), min(GAP_S / 2, left_s)
        is_done = later.wait(step_s)
        left_s -= min(time.monotonic() - began_at, step_s)
    return max(0.0, left_s)


def _log_count(what: str, end: Callable[[], int]) -> None:
    try:
        log.info("%s ended count=%d", what, end())
    except SidecarError as error:  # the shutdown goes on whatever happens
        log.error("%s did not end in time: %s", what, error)
