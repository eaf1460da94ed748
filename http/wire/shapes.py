"""The forms of values on the wire, for the API's description alone: these annotations check nothing.

The checks are where the values are read. Use a form from here where the check has an error of its own, which names the
field and what was expected; a test compares the two. Use `Meta(ge=…, le=…)` where the decoder's own error says enough.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...state.models import IDENTIFIER

Schema = dict[str, Any]


def described_range(minimum: float, maximum: float | None = None) -> Meta:
    """The range of a number that the route checks."""
    return Meta(extra_json_schema={"minimum": minimum} | ({"maximum": maximum} if maximum is not None else {}))


_ID = IDENTIFIER.pattern
_PATTERN = {"title": "identifier", "pattern": f"^{_ID}$"}  # the title is for people: the page at /docs shows it
IDENTIFIER_SCHEMA: Schema = {"type": "string", **_PATTERN}

Identifier = Annotated[str, Meta(extra_json_schema=_PATTERN)]
MaybeIdentifier = Annotated[str, Meta(extra_json_schema={"title": "identifier", "pattern": f"^({_ID})?$"})]
Identifiers = Annotated[
    str, Meta(extra_json_schema={"title": "comma list of identifiers", "pattern": f"^({_ID}(,{_ID})*)?$"})
]
_EVENT = "evt-[0-9]{16}"
EventRef = Annotated[str, Meta(extra_json_schema={"title": "event id", "pattern": f"^{_EVENT}$"})]
MaybeEventRef = Annotated[str, Meta(extra_json_schema={"title": "event id", "pattern": f"^({_EVENT})?$"})]
Moment = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Payload = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]  # passed through as the bytes it came as
Filter = Annotated[str, Meta(extra_json_schema={"format": "event-filter"})]
Globs = Annotated[str, Meta(extra_json_schema={"format": "path-globs"})]
Place = Annotated[
    str,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"enum": ["earliest", "latest"]},
                {"pattern": f"^{_EVENT}$"},
                {"format": "date-time"},
            ]
        }
    ),
]
