"""How the server logs: one line an event, in the past tense, with ids as key=value. No token or body gets here."""

from __future__ import annotations

import logging
import sys
import time


class _Utc(logging.Formatter):
    converter = staticmethod(time.gmtime)


def set_up_logging(level: str) -> None:
    """Log to standard error from `level` on; the libraries' own talk only when it is a warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Utc("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(__package__.partition(".")[0]).setLevel(level.upper())
