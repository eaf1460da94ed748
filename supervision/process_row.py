"""ProcessRow: one row of the machine's process table."""

from __future__ import annotations

import msgspec


class ProcessRow(msgspec.Struct, frozen=True):
    """One process as the kernel shows it. start_ticks: when it started, in a clock that only equality is asked of.

    cpu_s: used since it started. is_zombie: every thread of it has ended.
    """

    pid: int
    parent: int
    group: int
    session: int
    start_ticks: int
    cpu_s: float
    rss_bytes: int
    is_zombie: bool
