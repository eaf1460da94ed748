"""`/openapi.json`: OpenAPI 3.1, made from the routes and the types of their requests and answers, never by hand.

A route lists exactly the statuses that it can answer with: those that follow from its line of the table (who may
ask, what is read), and those that the line declares as its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from http import HTTPStatus

import msgspec

from ... import __version__
from ...state.errors import (
    BodyTooLarge,
    IdempotencyConflict,
    InvalidRequest,
    NotJson,
    PermissionDenied,
    RateLimited,
    SidecarError,
    TokenExpired,
    Unauthorized,
    WrongProject,
)
from ..errors import ROWS, ErrorBody
from ..routing import JSON, KIB, MAX_IDEMPOTENCY_KEY_CHARS, Route
from ..wire.codec import Nothing, encode
from ..wire.results import NewResult, Outcome, ResultOut
from ..wire.sessions import LogIn
from ..wire.shapes import IDENTIFIER_SCHEMA, Schema

_PART = re.compile(r"<(\w+)>")
_SCHEMAS = "#/components/schemas/"
_HEADERS = "#/components/headers/"
_RESPONSES = "#/components/responses/"
EVENT_STREAM = "text/event-stream"

_INFO = {
    "title": "Orchestration sidecar",
    "version": __version__,
    "description": (
        "Spawns and supervises agents, builds their context, stores their results, carries their events.\n\n"
        "Every answer has `X-Request-Id`: the request's own, if it sent a valid one. An unknown path is a 404 "
        "`REQ_404`, another method a 405 `REQ_405` with `Allow`; GET also answers HEAD. Operators may log in with a "
        "browser instead of a token: `POST /api/auth/login`.\n\n"
        "An identifier has 1 to 128 of `A-Z a-z 0-9 . _ : @ -` and starts with a letter or digit."
    ),
}

# Errors of the parser, before the route of a request is known: status and cause.
_UNREADABLE = {
    431: "The headers of the request are larger than 64 KiB.",
    501: "The body comes in a transfer encoding other than `chunked`.",
}
_ANY: tuple[type[SidecarError], ...] = (InvalidRequest, PermissionDenied, WrongProject, BodyTooLarge)
_WITH_TOKEN: tuple[type[SidecarError], ...] = (Unauthorized, TokenExpired, RateLimited)
_INTERNAL = SidecarError  # its code is that of an unexpected failure

_DONE = {200: "Done.", 201: "Created.", 202: "Accepted.", 304: "Unchanged since the answer with that `ETag`."}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_ANSWER_HEADERS: Schema = {
    "X-Request-Id": {"description": "Finds the request in the log.", "required": True, "schema": IDENTIFIER_SCHEMA},
    "X-RateLimit-Limit": {"description": "Size of the caller's bucket, if it has a limit.", "schema": _COUNT},
    "X-RateLimit-Remaining": {"description": "Requests left in the bucket.", "schema": _COUNT},
    "X-RateLimit-Reset": {"description": "Unix time at which the bucket is full again.", "schema": _COUNT},
    "Retry-After": {"description": "Seconds.", "required": True, "schema": _COUNT},
    "WWW-Authenticate": {"required": True, "schema": _TEXT},
    "ETag": {"description": "For `If-None-Match`.", "required": True, "schema": _TEXT},
}
_PROJECT: Schema = {
    "name": "project_id",
    "in": "query",
    "required": False,
    "description": "The project; only operators may name another than the token's.",
    "schema": IDENTIFIER_SCHEMA,
}


def _header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "A text that you choose: a repeat with the same key gets the first answer, and nothing is done twice.",
    {"type": "string", "pattern": f"^[!-~]([ -~]{{0,{MAX_IDEMPOTENCY_KEY_CHARS - 2}}}[!-~])?$"},
)
_TRACEPARENT = _header("traceparent", "W3C trace context; an invalid one is ignored.", _TEXT)
_IF_NONE_MATCH = _header("If-None-Match", "An `ETag`; 304 as long as it still matches.", _TEXT)
_EVENT_ID: Schema = {"type": "string", "pattern": "^evt-[0-9]{16}$"}
_LAST_EVENT_ID = _header("Last-Event-ID", "Continue after this event.", _EVENT_ID)


def description(routes: Iterable[Route]) -> bytes:
    """The document as JSON."""
    return encode(_Document(tuple(routes)).made())


class _Document:
    """The document as it grows: operations refer to schemas and responses, each of which stands in it once."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes = routes
        self._schemas, self._components = _schemas(routes)
        self._responses: dict[str, Schema] = {}
        self._names: set[str] = set()

    def made(self) -> Schema:
        paths: dict[str, Schema] = {}
        for route in self._routes:
            path = _PART.sub(r"{\1}", route.path)
            paths.setdefault(path, {})[route.method.lower()] = self._operation(route, path)
        return {
            "openapi": "3.1.0",
            "info": _INFO,
            "tags": [{"name": name, "description": about} for name, about in dict(map(_tag, self._routes)).items()],
            "paths": paths,
            "components": {
                "schemas": self._components,
                "responses": self._responses,
                "headers": _ANSWER_HEADERS,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            },
        }

    def _operation(self, route: Route, path: str) -> Schema:
        operation: Schema = {
            "operationId": self._operation_id(route, path),
            "summary": " ".join(route.summary.split()),
            "tags": [_tag(route)[0]],
            "parameters": [*_parts(route), *self._query(route), *_headers(route)],
            "responses": self._answers(route),
        }
        if route.body is not None:
            operation["requestBody"] = {
                "required": True,
                "description": f"At most {route.max_body_bytes // KIB:,} KiB.",
                "content": {JSON: {"schema": self._schemas[route.body]}},
            }
        if route.access != "open":
            operation["security"] = [{"token": []}] if route.access != "loopback" else [{}, {"token": []}]
        about = [f"Needs the permission `{route.needs}`."] if route.needs is not None else []
        fields = _fields_doc(route.query)
        if fields:
            about.append(f"Query: {fields}")
        if about:
            operation["description"] = "\n\n".join(about)
        return operation

    def _operation_id(self, route: Route, path: str) -> str:
        """The name of the function, followed by the path if it serves a second path."""
        name = route.name
        if name in self._names:
            name += re.sub(r"[^A-Za-z0-9]+", "_", path).rstrip("_")
        self._names.add(name)
        return name

    def _query(self, route: Route) -> list[Schema]:
        schema = self._components[route.query.__name__]
        required = set(schema.get("required", ()))
        fields = [
            {"name": name, "in": "query", "required": name in required, "schema": _in_query(field)}
            for name, field in schema.get("properties", {}).items()
        ]
        return fields if route.access == "open" else [*fields, _PROJECT]

    def _answers(self, route: Route) -> Schema:
        answers = {str(status): self._answer(route, status) for status in (route.status, *route.also)}
        for status, rows in _errors(route).items():
            if status not in route.also:
                answers[str(status)] = self._error(route, status, rows)
            elif (own := route.also[status]) is not None:  # described by the function, or by the table
                either = [self._schemas[own], self._schemas[ErrorBody]]
                answers[str(status)]["content"] = {JSON: {"schema": {"anyOf": either}}}
        return dict(sorted(answers.items()))

    def _answer(self, route: Route, status: int) -> Schema:
        names = ["X-Request-Id"]
        if route.access != "open":
            names += ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
        if 304 in route.also:
            names.append("ETag")
        if status == 503:
            names.append("Retry-After")
        answer: Schema = {
            "description": _DONE.get(status, f"{HTTPStatus(status).phrase}."),
            "headers": {name: {"$ref": _HEADERS + name} for name in names},
        }
        type_ = route.answers if status == route.status else route.also[status]
        if type_ is not None:
            answer["content"] = {JSON: {"schema": self._schemas[type_]}}
        elif status == route.status:
            schema: Schema = {"type": "object"} if route.content_type == JSON else _TEXT
            types = [each.partition(";")[0] for each in route.content_type.split(", ")]
            answer["content"] = {each: {"schema": schema} for each in types}
        return answer

    def _error(self, route: Route, status: int, rows: Mapping[str, str]) -> Schema:
        """rows: the codes of the status, each with its cause and remedy."""
        is_shaped = route.error_shape is not None and status not in _UNREADABLE
        name = ".".join([str(status), *rows, *(["rpc"] if is_shaped else [])])
        if name not in self._responses:
            names = ["X-Request-Id"]
            names += ["Retry-After"] if status in (429, 503) else []
            names += ["WWW-Authenticate"] if status == 401 else []
            shapes = [self._schemas[ErrorBody]]
            if is_shaped:
                shapes.append({"$ref": _SCHEMAS + "Failure"})
            self._responses[name] = {
                "description": "\n".join(f"- `{code}` {when}" for code, when in rows.items()),
                "headers": {each: {"$ref": _HEADERS + each} for each in names},
                "content": {JSON: {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}},
            }
        return {"$ref": _RESPONSES + name}


def _schemas(routes: tuple[Route, ...]) -> tuple[dict[type, Schema], dict[str, Schema]]:
    """The schema of each type that a route names, and the components they refer to."""
    types: list[type] = [ErrorBody, Outcome]
    for route in routes:
        types += [type_ for type_ in (route.body, route.query, route.answers, *route.also.values()) if type_]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_SCHEMAS + "{name}")
    for type_ in (NewResult, ResultOut):  # passed through as bytes, but not unread
        components[type_.__name__]["properties"]["result"] = {"$ref": _SCHEMAS + Outcome.__name__}
    components[LogIn.__name__]["oneOf"] = [
        {"properties": {name: _TEXT, other: {"type": "null"}}, "required": [name]}
        for name, other in (("token", "code"), ("code", "token"))
    ]
    return dict(zip(unique, schemas, strict=True)), components


def _errors(route: Route) -> dict[int, dict[str, str]]:
    """Each status that an error of this route may have, with its codes, when they come and what to do then."""
    raised: list[type[SidecarError]] = [*_ANY, *route.errors, _INTERNAL]
    if route.access != "open":
        raised += _WITH_TOKEN
    if route.body is not None:
        raised.append(NotJson)
    rows = {row.wire_code: row for row in (ROWS[error.code] for error in raised)}
    statuses: dict[int, dict[str, str]] = {}
    for row in sorted(rows.values(), key=lambda row: (row.status, row.wire_code)):
        statuses.setdefault(row.status, {})[row.wire_code] = f"{row.when} {row.advice}"
    for status, when in _UNREADABLE.items():
        statuses[status] = {ROWS[InvalidRequest.code].wire_code: when}
    return statuses


def _parts(route: Route) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": IDENTIFIER_SCHEMA}
        for name in _PART.findall(route.path)
    ]


def _headers(route: Route) -> list[Schema]:
    """Headers that change what the route does."""
    read = [_IDEMPOTENCY_KEY, _TRACEPARENT] if IdempotencyConflict in route.errors else []
    if 304 in route.also:
        read.append(_IF_NONE_MATCH)
    if route.content_type == EVENT_STREAM:
        read.append(_LAST_EVENT_ID)
    return read


def _tag(route: Route) -> tuple[str, str]:
    """The resource that the route belongs to, and what its module says of it."""
    module = route.handler.__module__
    name = module.rpartition(".")[2]
    about = (sys.modules[module].__doc__ or "").partition("\n")[0]
    return ("mcp" if name == "endpoint" else name), about


def _in_query(field: Schema) -> Schema:
    """A field as a query has it, where null is said by leaving it out."""
    given = [each for each in field.get("anyOf", ()) if each != {"type": "null"}]
    return given[0] if len(given) == 1 else field


def _fields_doc(type_: type[msgspec.Struct]) -> str:
    """The field notes of a query's struct and of those it extends."""
    own = (each for each in type_.__mro__ if issubclass(each, Nothing) and each is not Nothing)
    return " ".join(" ".join((each.__dict__.get("__doc__") or "").split()) for each in own).strip()
