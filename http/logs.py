"""How the server logs: one line an event, in the past tense, with ids as key=value. No token or body gets here.

As text for people, or as JSON for programs: there each `key=` of the message is a field of its own.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any, Literal

import msgspec

from ..state.clock import utc_at
from ..state.os_text import writable
from .visible import json_text, lines, one_field

LogFormat = Literal["text", "json"]

_FIELD = re.compile(r"(?:\b(\w+)=)?%[-+ #0]*[\d.]*[a-zA-Z]")
_PLAIN = (str, int, float, bool, type(None))


class TextLines(logging.Formatter):
    """A line for people. What a message quotes cannot begin a line of its own, or steer a terminal."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return one_field(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return lines(super().formatException(ei))


class JsonLines(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, message, the fields of the message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            **_fields(record),
            "timestamp": utc_at(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        written = {name: writable(value) if isinstance(value, str) else value for name, value in line.items()}
        return json_text(msgspec.json.encode(written).decode())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The values that the message names, as `agent_id=%s` does."""
    if not isinstance(record.args, tuple):
        return {}
    names = [match[1] for match in _FIELD.finditer(str(record.msg).replace("%%", ""))]
    return {
        name: value if isinstance(value, _PLAIN) else str(value)
        for name, value in zip(names, record.args, strict=False)
        if name is not None
    }


def set_up_logging(level: str, format_: LogFormat = "text") -> None:
    """Log to standard error from `level` on; the libraries' own talk only when it is a warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format_ == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(__package__.partition(".")[0]).setLevel(level.upper())
