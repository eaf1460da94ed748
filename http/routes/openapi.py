"""`/openapi.json`: OpenAPI 3.1, made from the routes and the types of what they read and answer; never by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ... import __version__
from ..errors import ROWS, ErrorBody
from ..routing import JSON, Route
from ..wire.codec import encode

_PART = re.compile(r"<(\w+)>")
_REFS = "#/components/schemas/{name}"

IDENTIFIER_SCHEMA = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"}

_TITLE = "Orchestration sidecar"
_PROJECT = {
    "name": "project_id",
    "in": "query",
    "description": "Act in, or look at, this project; another than the token's only for operators.",
    "schema": IDENTIFIER_SCHEMA,
}


def description(routes: Iterable[Route]) -> bytes:
    """The document as JSON."""
    listed = tuple(routes)
    schemas, components = _schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        path = _PART.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, schemas, components)
    return encode(
        {
            "openapi": "3.1.0",
            "info": {"title": _TITLE, "version": __version__},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            },
        }
    )


Schema = dict[str, Any]


def _schemas(routes: tuple[Route, ...]) -> tuple[dict[type, Schema], dict[str, Schema]]:
    """The schema of each type that a route names, and the components they refer to."""
    types: list[type] = [ErrorBody]
    for route in routes:
        types += [type_ for type_ in (route.body, route.query, route.answers) if type_ is not None]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, schema_hook=payload_schema, ref_template=_REFS)
    return dict(zip(unique, schemas, strict=True)), components


def payload_schema(type_: type) -> Schema:
    """A Raw field holds a JSON object of the client's own."""
    if type_ is msgspec.Raw:
        return {"type": "object"}
    raise TypeError(f"{type_} has no place on the wire")


def _operation(route: Route, path: str, schemas: dict[type, Schema], components: dict[str, Schema]) -> Schema:
    operation: Schema = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', path).rstrip('_')}",
        "summary": route.summary,
        "parameters": [*_parts(route), *_query(route, components)],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas[route.body]}}}
    if route.access != "open":
        operation["security"] = [{"token": []}] if route.access != "loopback" else [{}, {"token": []}]
    if route.needs is not None:
        operation["description"] = f"Needs the permission `{route.needs}`."
    return operation


def _parts(route: Route) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": IDENTIFIER_SCHEMA}
        for name in _PART.findall(route.path)
    ]


def _query(route: Route, components: dict[str, Schema]) -> list[Schema]:
    schema = components[route.query.__name__]
    required = set(schema.get("required", ()))
    fields = [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]
    return [*fields, _PROJECT]


def _responses(route: Route, schemas: dict[type, Schema]) -> Schema:
    answer: Schema = {"description": "Done"}
    if route.answers is not None:
        answer["content"] = {JSON: {"schema": schemas[route.answers]}}
    else:
        answer["content"] = {route.content_type.partition(";")[0]: {}}
    responses = {str(route.status): answer}
    for status in sorted({row.status for row in ROWS.values()} & _possible(route)):
        codes = sorted({row.wire_code for row in ROWS.values() if row.status == status})
        responses[str(status)] = {
            "description": ", ".join(codes),
            "content": {JSON: {"schema": schemas[ErrorBody]}},
        }
    return responses


def _possible(route: Route) -> set[int]:
    """The statuses of errors that a route may answer with."""
    statuses = {400, 403, 500, 503}
    if route.access != "open":
        statuses |= {401, 429}
    if "<" in route.path:
        statuses |= {404, 409, 410}
    if route.body is not None:
        statuses |= {404, 409, 413, 415, 422}
    if route.is_wait:
        statuses |= {410}
    return statuses
