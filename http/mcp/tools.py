"""Tools for agents that speak MCP: each is a route of the HTTP API, called without HTTP. No logic of its own.

A tool's arguments are fields of the route's path, query and body, and their schemas come from those types. What the
token says already (who, which project, which issue) need not be said again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import msgspec

from ...state.errors import InvalidRequest
from ...state.typed import decoder
from ..access.auth import admit
from ..acts import perform
from ..routes import agents, context, events, results
from ..routing import MAX_IDEMPOTENCY_KEY_CHARS, Call, Outcome, Route, too_large
from ..wire.codec import NOTHING, encode, read_body, read_part, refuse_many_parts
from ..wire.results import Outcome as ResultOutcome
from ..wire.shapes import IDENTIFIER_SCHEMA

_PART = re.compile(r"<(\w+)>")
_REF = "#/$defs/"
_KEY = "idempotency_key"
_TEXT = decoder(str)
_PLACE = "arguments"
_KEEP_WHOLE = {
    "anthropic/maxResultSizeChars": 500_000
}  # otherwise Claude Code shows the model 2 KB of a result over 50,000
CONTEXT_BYTES = 60_000  # 15,000 to 20,000 tokens; clients keep 25,000 of a tool's answer, or less

Schema = dict[str, Any]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """arguments: name and description of those on offer. own: fields that the token fills where they are left out.

    shapes: types that say more of a free-form argument than its own does. withheld: fields of the answer that a
    model must not see. reads_only: a client need not ask its user before it calls. defaults: of arguments that are
    left out. is_text: the answer is large, so it is given once, as text, and not as structured content too. advice:
    adds to an answer in JSON how to get more.
    """

    name: str
    title: str
    description: str
    route: Route
    arguments: Mapping[str, str]
    own: frozenset[str] = frozenset()
    shapes: Mapping[str, type] | None = None
    withheld: tuple[str, ...] = ()
    reads_only: bool = False
    defaults: Mapping[str, int] = {}
    is_text: bool = False
    advice: Callable[[bytes], bytes] = bytes

    def call(self, call: Call[Any, Any], arguments: Mapping[str, msgspec.Raw]) -> Outcome:
        """Do what the route does. Raises what the route raises, and InvalidRequest for arguments that do not fit."""
        route = self.route
        kinds = _kinds_of(self.name)
        given = {
            name: _as_meant(name, value, kinds.get(name, frozenset()))
            for name, value in arguments.items()
            if bytes(value) != b"null"
        }
        defaults = {name: msgspec.Raw(encode(value)) for name, value in self.defaults.items()}
        fields = {**self._of_token(call), **defaults, **given}
        key = read_part(fields.pop(_KEY), _TEXT, _KEY) if _KEY in fields else None
        parts = {name: _part(fields, name) for name in _PART.findall(route.path)}
        admit(call.caller, route.needs, parts)
        rest = encode(fields)
        if len(rest) > route.max_body_bytes:
            raise too_large(route.max_body_bytes)
        # Models now and then send "30" for 30; what is meant is plain.
        reader = decoder(route.query if route.body is None else route.body, strict=False)
        read = read_body(rest, reader, place=_PLACE)
        inner = msgspec.structs.replace(
            call,
            query=read if route.body is None else NOTHING,
            body=NOTHING if route.body is None else read,
            # A 304 would tell the model nothing.
            header=lambda name: {"Idempotency-Key": key, "If-None-Match": None}.get(name, call.header(name)),
        )
        return perform(route, inner, parts)

    def _of_token(self, call: Call[Any, Any]) -> dict[str, msgspec.Raw]:
        caller = call.caller
        known = {
            "agent_id": caller.agent_id,
            "agent_type": caller.agent_type,
            "issue_id": caller.issue_id,
            "project_id": call.project_id,
        }
        return {name: msgspec.Raw(encode(known[name])) for name in self.own if known[name] is not None}

    def body(self, answered: msgspec.Struct | bytes) -> bytes:
        """The route's answer as JSON, without what is withheld."""
        if isinstance(answered, bytes):
            return self.advice(answered)
        return encode(msgspec.structs.replace(answered, **dict.fromkeys(self.withheld)))

    def listed(self) -> Schema:
        """The tool as `tools/list` describes it."""
        answers = self.route.answers
        assert answers is not None
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self._input_schema(),
            **({"_meta": _KEEP_WHOLE} if self.is_text else {"outputSchema": _schema(answers)}),
            "annotations": {
                "readOnlyHint": self.reads_only,
                "destructiveHint": False,
                "openWorldHint": False,
            },
        }

    def _input_schema(self) -> Schema:
        route = self.route
        parts = _PART.findall(route.path)
        fields = _schema(route.query if route.body is None else route.body)
        known: Schema = {
            _KEY: {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_CHARS},
            **fields.get("properties", {}),
            **dict.fromkeys(parts, IDENTIFIER_SCHEMA),
            **{name: _schema(type_) for name, type_ in (self.shapes or {}).items()},
        }
        properties = {name: {**known[name], "description": text} for name, text in self.arguments.items()}
        needed = {*fields.get("required", ()), *parts} - self.own
        return {
            "type": "object",
            "properties": properties,
            "required": [name for name in self.arguments if name in needed],
            "additionalProperties": False,
        }


class _Cut(msgspec.Struct):
    """Whether a context was cut, and to how many bytes."""

    truncated: bool
    max_bytes: int


_CUT = decoder(_Cut)


def _with_advice(context: bytes) -> bytes:
    """The context with a first field that says how to ask for the files left out."""
    cut = _CUT.decode(context)
    if not cut.truncated:
        return context
    how = (
        f"This context is cut to {cut.max_bytes:,} bytes. `context.omitted` names what was left out. Call get_context "
        "again with `files` (paths or globs) for whole files, `q` for another choice, or a larger `max_bytes` for more."
    )
    return b'{"more":' + encode(how) + b"," + context[1:]


_COMMA_LISTS = frozenset({"files", "filter", "requirements", "topics", "types"})


@cache
def _kinds_of(name: str) -> Mapping[str, frozenset[str]]:
    """The JSON types that each argument of a tool may have."""
    properties = TOOLS[name].listed()["inputSchema"]["properties"]
    return {
        argument: frozenset(kind for each in schema.get("anyOf", [schema]) if isinstance(kind := each.get("type"), str))
        for argument, schema in properties.items()
    }


def _as_meant(name: str, value: msgspec.Raw, kinds: frozenset[str]) -> msgspec.Raw:
    """Convert an argument to the expected type, if a client gave the same value in another.

    Some clients send an object or a list as JSON text, and models write a list where a comma list is wanted, or the
    other way round. The meaning is plain. Anything else stays as it is, and is refused by its field.
    """
    begins = bytes(value).lstrip()[:1]
    if begins == b'"' and "string" not in kinds and kinds & {"object", "array"}:
        return _from_text(value, kinds)
    if begins == b"[" and name in _COMMA_LISTS:
        try:
            return msgspec.Raw(encode(",".join(msgspec.json.decode(value, type=list[str]))))
        except msgspec.DecodeError:
            return value
    return value


def _from_text(value: msgspec.Raw, kinds: frozenset[str]) -> msgspec.Raw:
    try:
        text = msgspec.json.decode(value, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value
    refuse_many_parts(text.encode("utf-8", "surrogatepass"), _PLACE)
    try:
        inner = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        inner = None
    if (isinstance(inner, dict) and "object" in kinds) or (isinstance(inner, list) and "array" in kinds):
        return msgspec.Raw(text.encode())
    if inner is None and "array" in kinds:
        return msgspec.Raw(encode([part.strip() for part in text.split(",") if part.strip()]))
    return value


def _part(fields: dict[str, msgspec.Raw], name: str) -> str:
    if name not in fields:
        raise InvalidRequest(f"{name} is missing from the {_PLACE}", field=name, expected="a value")
    return read_part(fields.pop(name), _TEXT, name)


def _schema(type_: type) -> Schema:
    """A type's JSON schema with nothing to look up in it: not every client follows a `$ref`."""
    (schema,), components = msgspec.json.schema_components([type_], ref_template=_REF + "{name}")
    inlined: Schema = _inlined(schema, components)
    return inlined


def _inlined(schema: Any, components: Mapping[str, Schema]) -> Any:
    if isinstance(schema, list):
        return [_inlined(each, components) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(components[schema["$ref"].removeprefix(_REF)], components)
    return {name: _inlined(value, components) for name, value in schema.items()}


def _route(routes: Iterable[Route], method: str, path: str) -> Route:
    return next(route for route in routes if (route.method, route.path) == (method, path))


_REPEAT = "Any text of your own; the same call with the same key is done once only."

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="get_context",
            title="Get context",
            description="What you should know before you begin: the project's files that matter for the issue, what "
            "earlier agents decided, git history, dependencies. Call it first. It is cut to "
            f"{CONTEXT_BYTES:,} bytes, the most relevant files first. `context.omitted` names what was left out: ask "
            "for single files with `files`, or for more of everything with `max_bytes`.",
            route=_route(context.routes, "GET", "/api/context/<issue_id>/<agent_type>"),
            arguments={
                "issue_id": "Which issue; left out: yours.",
                "agent_type": "For an agent of which type; left out: yours.",
                "q": "What the work is about, in your own words; steers which files come.",
                "files": "Comma list of paths or globs to add in full.",
                "requirements": "Comma list of sections: project_structure, previous_decisions, security_policies, "
                "test_coverage_reports, git_history, dependencies, documentation, code_reviews.",
                "max_bytes": f"The most bytes you want; left out: {CONTEXT_BYTES}. Many clients cut a tool's answer "
                "at about 25,000 tokens, which is 60,000 to 100,000 bytes.",
                "refresh": "Build it again instead of taking it from the cache.",
            },
            own=frozenset({"issue_id", "agent_type"}),
            reads_only=True,
            defaults={"max_bytes": CONTEXT_BYTES},
            is_text=True,
            advice=_with_advice,
        ),
        Tool(
            name="store_result",
            title="Store result",
            description="Hand in what you did. Once this is answered it is on the disk, and everybody who waits for "
            "`result_stored` has been told. `next_agents` names who should go on.",
            route=_route(results.routes, "POST", "/api/results"),
            arguments={
                "result": "`status`, and whatever else is worth keeping; any further key is welcome.",
                "issue_id": "Which issue; left out: yours.",
                _KEY: _REPEAT,
            },
            own=frozenset({"agent_id", "agent_type", "issue_id", "project_id"}),
            shapes={"result": ResultOutcome},
        ),
        Tool(
            name="publish_event",
            title="Publish event",
            description="Tell the other agents of the project that something happened. It is kept, so whoever asks "
            "later is told too.",
            route=_route(events.routes, "POST", "/api/events/<event_type>"),
            arguments={
                "event_type": "What happened, such as implementation_complete.",
                "data": "What is to be known of it: an object of your own making.",
                "topic": "Left out: the standard topic of the type.",
                "correlation_id": "Ties question and answer, or all events of one piece of work.",
                "ttl_seconds": "How long it is of interest.",
                "priority": "How pressing it is.",
                _KEY: _REPEAT,
            },
        ),
        Tool(
            name="wait_for_event",
            title="Wait for event",
            description="Wait until something happens, up to `timeout` milliseconds. Each call goes on where the last "
            "one with the same types, topics, filter and consumer ended, the first at the oldest event kept; "
            "`timeout: true` means that nothing came: call again.",
            route=_route(events.routes, "GET", "/api/events/wait"),
            arguments={
                "types": "Comma list of event types; left out: any.",
                "topics": "Comma list of topics; left out: any.",
                "filter": "Terms field:value joined by commas, all of which must hold, such as "
                "issue_id:42,status:success. Also a:1|2, !a:1, a:issue-*, a:>90.",
                "timeout": "Milliseconds. Keep it below your client's own limit for a tool call; 240000 is safe.",
                "limit": "The most events to be given at once.",
                "ack": "Id of the last event you have dealt with. Use it in every call, or in none.",
                "since": "Read from here instead: an event id, `earliest`, `latest` or a time.",
                "consumer": "A name for a place of its own in the log.",
            },
        ),
        Tool(
            name="spawn_agent",
            title="Spawn agent",
            description="Start another agent on a piece of work. It is supervised: restarted when it crashes. Follow "
            "it with agent_status, or wait_for_event with topics `system,error`.",
            route=_route(agents.routes, "POST", "/api/agents/spawn"),
            arguments={
                "agent_type": "Which kind, such as python-specialist; its profile says what runs.",
                "task": "What it is to do.",
                "issue_id": "For which issue; left out: yours.",
                "context_requirements": "Sections of the context it will need.",
                "environment": "Further environment variables for it, of those its profile's request_env allows.",
                "priority": "Which goes first when all places are taken.",
                _KEY: _REPEAT,
            },
            own=frozenset({"issue_id"}),
            withheld=("jwt_token",),
        ),
        Tool(
            name="agent_status",
            title="Agent status",
            description="How an agent is: its state, its process, its restarts, why it last ended.",
            route=_route(agents.routes, "GET", "/api/agents/<agent_id>"),
            arguments={"agent_id": "Which agent; left out: you."},
            own=frozenset({"agent_id"}),
            reads_only=True,
        ),
        Tool(
            name="list_results",
            title="List results",
            description="What has been handed in, newest first, with all that was said.",
            route=_route(results.routes, "GET", "/api/results"),
            arguments={
                "issue_id": "Of this issue only.",
                "agent_type": "Of agents of this type only.",
                "agent_id": "Of this agent only.",
                "status": "With this status only.",
                "since": "Kept at or after this time (RFC 3339).",
                "until": "Kept before this time (RFC 3339).",
                "limit": "How many at once.",
                "cursor": "`next_cursor` of the page before.",
            },
            reads_only=True,
        ),
    )
}
