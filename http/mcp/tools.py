"""Tools for agents that speak MCP: each is a route of the HTTP API, called without HTTP. No logic of its own.

A tool's arguments are fields of the route's path, query and body, and their schemas come from those types. Values that
the token already sets (agent, project, issue) may be left out.
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
    """A route of the API as a tool.

    arguments: names and descriptions. own: fields that the token fills if they are left out. shapes: more precise types
    for free-form arguments. withheld: fields of the answer that a model must not see. reads_only: a client may call it
    without asking its user. defaults: of arguments that are left out. is_text: the answer is large, so it is sent only
    once, as text, and not as structured content too. advice: adds to a JSON answer how to get more.
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
        """Call the route. Raises the errors of the route, and InvalidRequest for invalid arguments."""
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
        if len(rest) > route.body_limit:
            raise too_large(route.body_limit)
        # Models sometimes send "30" for 30; the meaning is clear.
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
        """The route's answer as JSON, without the withheld fields."""
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
    """The context with a first field that says how to get the omitted files."""
    cut = _CUT.decode(context)
    if not cut.truncated:
        return context
    how = (
        f"This context is cut to {cut.max_bytes:,} bytes. `context.omitted` lists what was left out. Call get_context "
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

    Some clients send an object or a list as JSON text, and models write a list instead of comma-separated text, or the
    other way round. The meaning is clear. Anything else stays unchanged, and the check of its field refuses it.
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
    """A type's JSON schema without references: not every client follows a `$ref`."""
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


_REPEAT = "A text that you choose; the same call with the same key is done only once."

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="get_context",
            title="Get context",
            description="What you should know before you start: the project's files that matter for the issue, the "
            "decisions of earlier agents, git history, dependencies. Call it first. It is cut to "
            f"{CONTEXT_BYTES:,} bytes, the most relevant files first. `context.omitted` lists what was left out: ask "
            "for single files with `files`, or for more of everything with `max_bytes`.",
            route=_route(context.routes, "GET", "/api/context/<issue_id>/<agent_type>"),
            arguments={
                "issue_id": "The issue; default: yours.",
                "agent_type": "The agent type; default: yours.",
                "q": "The work, in your own words; it decides which files are chosen.",
                "files": "Comma-separated paths or globs of files to add in full.",
                "requirements": "Comma-separated sections: project_structure, previous_decisions, security_policies, "
                "test_coverage_reports, git_history, dependencies, documentation, code_reviews.",
                "max_bytes": f"Maximum size in bytes; default: {CONTEXT_BYTES}. Many clients cut a tool's answer "
                "at about 25,000 tokens, which is 60,000 to 100,000 bytes.",
                "refresh": "Build it again instead of using the cache.",
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
            description="Store the result of your work. After the answer it is on disk, and everyone who waits for "
            "`result_stored` has received the event. `next_agents` lists the agents that should continue.",
            route=_route(results.routes, "POST", "/api/results"),
            arguments={
                "result": "`status`, and anything else worth keeping, under any other key.",
                "issue_id": "The issue; default: yours.",
                _KEY: _REPEAT,
            },
            own=frozenset({"agent_id", "agent_type", "issue_id", "project_id"}),
            shapes={"result": ResultOutcome},
        ),
        Tool(
            name="publish_event",
            title="Publish event",
            description="Tell the other agents of the project that something happened. The event is kept, so agents "
            "that ask later get it too.",
            route=_route(events.routes, "POST", "/api/events/<event_type>"),
            arguments={
                "event_type": "The kind of event, such as implementation_complete.",
                "data": "Details: any JSON object.",
                "topic": "Default: the standard topic of the type.",
                "correlation_id": "Connects question and answer, or all events of one piece of work.",
                "ttl_seconds": "How long the event is of interest.",
                "priority": "The urgency, as a label.",
                _KEY: _REPEAT,
            },
        ),
        Tool(
            name="wait_for_event",
            title="Wait for event",
            description="Wait for events, up to `timeout` milliseconds. Each call continues where the last one with "
            "the same types, topics, filter and consumer ended; the first starts at the oldest event that is kept. "
            "`timeout: true` means that no event came: call again.",
            route=_route(events.routes, "GET", "/api/events/wait"),
            arguments={
                "types": "Comma-separated event types; default: all.",
                "topics": "Comma-separated topics; default: all.",
                "filter": "Terms field:value joined by commas, which must all match, such as "
                "issue_id:42,status:success. Also a:1|2, !a:1, a:issue-*, a:>90.",
                "timeout": "Milliseconds. Keep it below your client's own limit for a tool call; 240000 is safe.",
                "limit": "The maximum number of events in the answer.",
                "ack": "Id of the last event that you have handled. Use it in every call, or in none.",
                "since": "Read from here instead: an event id, `earliest`, `latest` or a time.",
                "consumer": "A name, for a separate position in the log.",
            },
        ),
        Tool(
            name="spawn_agent",
            title="Spawn agent",
            description="Start another agent for a piece of work. It is supervised: restarted when it crashes. Follow "
            "it with agent_status, or wait_for_event with topics `system,error`.",
            route=_route(agents.routes, "POST", "/api/agents/spawn"),
            arguments={
                "agent_type": "The type, such as python-specialist; its profile has the command.",
                "task": "The task for the agent.",
                "issue_id": "The issue; default: yours.",
                "context_requirements": "Sections of the context that it needs.",
                "environment": "Additional environment variables, as allowed by request_env of its profile.",
                "priority": "Its priority in the queue, if all slots are taken.",
                _KEY: _REPEAT,
            },
            own=frozenset({"issue_id"}),
            withheld=("jwt_token",),
        ),
        Tool(
            name="agent_status",
            title="Agent status",
            description="The state of an agent, its process, its restarts and the cause of its last exit.",
            route=_route(agents.routes, "GET", "/api/agents/<agent_id>"),
            arguments={"agent_id": "The agent; default: you."},
            own=frozenset({"agent_id"}),
            reads_only=True,
        ),
        Tool(
            name="list_results",
            title="List results",
            description="The stored results, newest first, with all their fields.",
            route=_route(results.routes, "GET", "/api/results"),
            arguments={
                "issue_id": "Only of this issue.",
                "agent_type": "Only of agents of this type.",
                "agent_id": "Only of this agent.",
                "status": "Only with this status.",
                "since": "Stored at or after this time (RFC 3339).",
                "until": "Stored before this time (RFC 3339).",
                "limit": "The maximum number of results in the answer.",
                "cursor": "`next_cursor` of the previous page.",
            },
            reads_only=True,
        ),
    )
}
