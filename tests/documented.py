"""What the API's description allows, and a hook that holds every answer a test gets to it."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import httpx
import msgspec

from sidecar.http.app import ROUTES
from sidecar.http.routes import openapi
from sidecar.http.routing import JSON, Route

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")


class Operation:
    """One method of one path, with what it may answer."""

    def __init__(
        self, method: str, path: str, about: dict[str, Any], document: dict[str, Any], route: Route | None = None
    ) -> None:
        self.route = route
        self.method = method
        self.path = path
        self.about = about
        self._document = document
        self._pattern = re.compile(re.sub(r"{\w+}", "[^/]+", path))

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"

    def is_at(self, method: str, path: str) -> bool:
        return method == self.method and self._pattern.fullmatch(path) is not None

    @property
    def statuses(self) -> set[int]:
        return {int(status) for status in self.about["responses"]}

    def response(self, status: int) -> dict[str, Any]:
        found: dict[str, Any] = self.about["responses"][str(status)]
        if "$ref" in found:
            found = self._document["components"]["responses"][found["$ref"].rpartition("/")[2]]
        return found

    def codes(self, status: int) -> set[str]:
        """The error codes that are documented for a status."""
        return set(re.findall(r"^- `(\w+)`", self.response(status)["description"], re.MULTILINE))

    def url(self, **parts: str) -> str:
        """The path with `parts` in it, `x` for those not named."""
        return re.sub(r"{(\w+)}", lambda match: parts.get(match[1], "x"), self.path)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    described: dict[str, Any] = json.loads(openapi.description(ROUTES))
    return described


@lru_cache(maxsize=1)
def operations() -> tuple[Operation, ...]:
    paths = document()["paths"]
    routes = {(route.method, re.sub(r"<(\w+)>", r"{\1}", route.path)): route for route in ROUTES}
    return tuple(
        Operation(method.upper(), path, about, document(), routes[method.upper(), path])
        for path, methods in paths.items()
        for method, about in methods.items()
    )


def operation_at(method: str, path: str) -> Operation | None:
    """The operation of a request; a literal path goes before one with parts, as in the router."""
    found = [each for each in operations() if each.is_at("GET" if method == "HEAD" else method, path)]
    return min(found, key=lambda each: each.path.count("{"), default=None)


def must_be_documented(answer: httpx.Response) -> None:
    """Raises AssertionError for an answer whose status, error code or fields are not in its operation's description."""
    request = answer.request
    operation = operation_at(request.method, request.url.path)
    if operation is None:
        may_be = (400, 403, 404, 405, 413, 429, 431)
        assert answer.status_code in may_be, f"{request.method} {request.url.path}: {answer}"
        return
    assert answer.status_code in operation.statuses, f"{operation!r} answered {answer.status_code}"
    codes = operation.codes(answer.status_code)
    if request.method == "HEAD":
        return
    route = operation.route
    if route is not None and route.answers is not None and answer.status_code == route.status:
        assert answer.headers["Content-Type"] == JSON
        msgspec.json.decode(answer.read(), type=route.answers)
    if codes:
        answer.read()
        code = answer.json().get("code")
        assert code is None or code in codes, f"{operation!r} answered {answer.status_code} {code}, not {codes}"
