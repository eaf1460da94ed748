"""The forms of texts on the wire, for the API's description alone: these annotations check nothing.

The checks are where the texts are read, since their errors name the field; a test holds the two to each other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...state.models import IDENTIFIER

Schema = dict[str, Any]

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
