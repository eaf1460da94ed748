"""The entry point of the console script `sidecar`."""

from __future__ import annotations

import gc


def run() -> None:
    # What is imported is no garbage, and to look for some meanwhile takes as long as a fifth of it.
    gc.disable()
    from .main import main

    gc.enable()
    main()
