"""Restart policies: intensity within a window and back-off, as pure functions of earlier deaths and now.

See docs/supervision.md.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from ..state.models import ExitCause

RestartType = Literal["always", "on-failure", "never"]  # OTP: permanent, transient, temporary

# An agent that ran this long did not die of its start: a wait would protect nothing. runit draws the same line.
SETTLED_AFTER_S = 1.0


class RestartVerdict(Enum):
    """What follows a death: a restart, or none because there were too many, or none because the work is done."""

    RESTART = "restart"
    GIVE_UP = "give_up"
    COMPLETE = "complete"


class RestartIntensity(msgspec.Struct, frozen=True, kw_only=True):
    """At most `max_restarts` restarts within any `within_s` seconds."""

    max_restarts: int = 5
    within_s: float = 60.0

    def decide(self, deaths: tuple[float, ...], *, now: float) -> tuple[RestartVerdict, tuple[float, ...]]:
        """Judge one more death, at monotonic time `now` (seconds).

        deaths: earlier deaths, monotonic seconds, oldest first.
        Returns the verdict and the deaths still inside the window, this one last.
        Source: restart intensity and period, Erlang/OTP supervisor; as there, a death exactly `within_s` ago counts.
        """
        recent = (*(t for t in deaths if now - t <= self.within_s), now)
        return (RestartVerdict.RESTART if len(recent) <= self.max_restarts else RestartVerdict.GIVE_UP), recent


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Doubles from `initial_s` up to `max_s`; each delay is shortened by a random part of at most `jitter`."""

    initial_s: float = 0.5
    max_s: float = 30.0
    jitter: float = 0.2

    def delay_s(self, deaths_in_a_row: int, *, chance: float) -> float:
        """Seconds to wait after this number of deaths in a row (1 or more).

        chance: uniform in [0, 1), so that agents that died together do not start together.
        """
        # 2**63 is beyond any delay; without the bound a long row would overflow a float.
        full = min(self.max_s, self.initial_s * 2.0 ** min(deaths_in_a_row - 1, 63))
        return full * (1.0 - self.jitter * chance)


class RestartHistory(msgspec.Struct, frozen=True):
    """The earlier deaths of an agent. deaths: monotonic seconds, inside the window. in_a_row: how many without a
    healthy run between them. is_open: it died too often, and is only probed."""

    deaths: tuple[float, ...] = ()
    in_a_row: int = 0
    is_open: bool = False


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """How an incarnation ended, or that it could not be started. `death_of` in after_exit.py makes it.

    exit_code, signal: how the process ended by itself; at most one of them is given. uptime_s: how long it ran.
    cause: EXIT with an exit code, SIGNAL with a signal (the watcher cannot tell an OOM kill from others), START_FAILED,
    or the limit that it broke: MEMORY, TIMEOUT or HEARTBEAT. None: nobody could see how it ended.
    """

    uptime_s: float
    exit_code: int | None = None
    signal: int | None = None
    cause: ExitCause | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision after a death. delay_s: before a restart, otherwise 0. reason: why it is given up, or empty."""

    verdict: RestartVerdict
    history: RestartHistory
    delay_s: float = 0.0
    reason: str = ""


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When an agent is started again.

    no_restart_exit_codes: after an exit with one of these codes it is given up at once. probe_after_s: if not 0, an
    agent that would be given up is tried once more each time this many seconds have passed, until a try is healthy (a
    half-open circuit breaker).
    """

    restart: RestartType = "on-failure"
    intensity: RestartIntensity = RestartIntensity()
    backoff: Backoff = Backoff()
    no_restart_exit_codes: frozenset[int] = frozenset()
    probe_after_s: float = 0.0

    def decide(self, history: RestartHistory, death: Death, *, now: float, chance: float) -> Decision:
        """Judge one more death, at monotonic time `now` (seconds); `chance` as in Backoff.

        As in OTP, every restart counts towards the intensity, also after exit 0 if the agent always restarts.
        An agent that had settled restarts at once after its first death. A row of deaths ends with an incarnation
        that ran for the whole window.
        """
        if death.exit_code == 0 and self.restart != "always":
            return Decision(verdict=RestartVerdict.COMPLETE, history=RestartHistory())
        if self.restart == "never":
            return self._give_up(history, "its profile says never to restart it")
        if death.exit_code in self.no_restart_exit_codes:
            return self._give_up(history, f"exit code {death.exit_code} is in no_restart_exit_codes")
        healthy = death.uptime_s >= self.intensity.within_s
        in_a_row = 1 if healthy else history.in_a_row + 1
        verdict, deaths = self.intensity.decide(history.deaths, now=now)
        after = RestartHistory(deaths, in_a_row)
        if self.probe_after_s > 0 and (verdict is RestartVerdict.GIVE_UP or (history.is_open and not healthy)):
            after = RestartHistory(deaths, in_a_row, is_open=True)
            return Decision(verdict=RestartVerdict.RESTART, history=after, delay_s=self.probe_after_s)
        if verdict is RestartVerdict.GIVE_UP:
            within_s, most = self.intensity.within_s, self.intensity.max_restarts
            return self._give_up(after, f"the limit of restarts within {within_s:g} s is {most}")
        settled = in_a_row == 1 and death.uptime_s >= SETTLED_AFTER_S
        delay_s = 0.0 if settled else self.backoff.delay_s(in_a_row, chance=chance)
        return Decision(verdict=RestartVerdict.RESTART, history=after, delay_s=delay_s)

    def _give_up(self, history: RestartHistory, reason: str) -> Decision:
        return Decision(verdict=RestartVerdict.GIVE_UP, history=history, reason=reason)
