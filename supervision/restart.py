"""When to restart what died: intensity within a window, as a pure function of earlier deaths and now."""

from __future__ import annotations

from enum import Enum

import msgspec


class Verdict(Enum):
    RESTART = "restart"
    GIVE_UP = "give_up"


class RestartIntensity(msgspec.Struct, frozen=True, kw_only=True):
    """At most `max_restarts` restarts within any `within_s` seconds."""

    max_restarts: int = 5
    within_s: float = 60.0

    def decide(self, deaths: tuple[float, ...], *, now: float) -> tuple[Verdict, tuple[float, ...]]:
        """Judge one more death, at monotonic time `now` (seconds).

        deaths: earlier deaths, monotonic seconds, oldest first.
        Returns the verdict and the deaths still inside the window, this one last.
        Source: restart intensity and period, Erlang/OTP supervisor; as there, a death exactly `within_s` ago counts.
        """
        recent = (*(t for t in deaths if now - t <= self.within_s), now)
        return (Verdict.RESTART if len(recent) <= self.max_restarts else Verdict.GIVE_UP), recent
