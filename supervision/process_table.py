"""The machine's process table: from /proc, or through psutil without /proc. Chosen once, at import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

HAS_PROC = Path("/proc/self/stat").exists()

if HAS_PROC:
    from .proc_fs import age_s, boot_id, environ, is_zombie, rows, start_ticks
else:
    from .portable_processes import age_s, boot_id, environ, is_zombie, rows, start_ticks

__all__ = ["HAS_PROC", "age_s", "boot_id", "environ", "is_zombie", "rows", "start_ticks", "variables"]


def variables(environ: Iterable[bytes]) -> dict[bytes, bytes]:
    """An environment by name; what is no NAME=value is left out."""
    return dict(entry.split(b"=", 1) for entry in environ if b"=" in entry)
