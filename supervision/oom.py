"""Attributes SIGKILLs to the OOM killer, which only exposes a machine-wide counter."""

from __future__ import annotations

_SOON_S = 1.0  # a death is told within a tenth of it


class OomKills:
    """Attributes one death by SIGKILL to each kill that the kernel has counted, if the death is reported soon after.

    counted: kills since the machine's boot. now: monotonic seconds.
    """

    def __init__(self, counted: int) -> None:
        self._counted = counted
        self._left = 0
        self._until = 0.0

    def look(self, counted: int, *, now: float) -> None:
        """The count is so much now."""
        if now > self._until:
            self._left = 0  # those were others
        if counted > self._counted:
            self._left += counted - self._counted
            self._until = now + _SOON_S
        self._counted = counted

    def take(self, counted: int, *, now: float) -> bool:
        """Decide whether the kernel sent a SIGKILL that was not ours."""
        self.look(counted, now=now)
        if self._left == 0:
            return False
        self._left -= 1
        return True
