"""The entry point of the console script `sidecar`."""

from __future__ import annotations

import gc

from .cannot_run import say_why_it_cannot_run


def run() -> None:
    # What is imported is no garbage, and to look for some meanwhile takes as long as a fifth of it.
    gc.disable()
    try:
        from .main import main
    except (MemoryError, ImportError) as error:
        say_why_it_cannot_run(error)
        raise SystemExit(1) from None
    gc.enable()
    main()
