"""Says why a command cannot run at all. Imports nothing of ours: there may be no memory for it."""

from __future__ import annotations

import sys


def say_why_it_cannot_run(error: MemoryError | ImportError) -> None:
    """Print it in one line. A library that finds no memory to be loaded into says so as an ImportError."""
    if isinstance(error, MemoryError):
        line = "out of memory; raise the limit (ulimit -v, or that of the container)"
    else:
        line = f"{error.name or 'a module'} cannot be loaded: {error}"
    print(f"Error: {line}".replace("\n", " "), file=sys.stderr)
