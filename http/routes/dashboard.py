"""Routes of the operators' dashboard and of the API's description as a page: static files that use the public API.

A page may load nothing but its own parts, run no inline script and be framed by nobody; text from agents reaches it
as text only (Trusted Types refuse anything else where the browser knows them).
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from ...state.errors import NotFound
from ..routing import Answer, Call, Route, Routes
from ..wire.codec import Nothing
from ..wire.sessions import LoginQuery

routes = Routes()

HTML = "text/html; charset=utf-8"
_DIRECTORY = Path(__file__).parent.parent / "dashboard"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": HTML,
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Cache-Control", "no-cache"),  # asked for again each time, sent again when it has changed
)

_UNCHANGED = {304: None}  # If-None-Match named what there is


@routes.add(Route("GET", "/", access="open", answers=None, content_type=HTML, also=_UNCHANGED))
def show_dashboard(call: Call[Nothing, Nothing]) -> Answer:
    """Get the dashboard, a page for browsers. Without a session, it asks for an operator's token."""
    return _file("index.html", call)


@routes.add(Route("GET", "/login", access="open", answers=None, content_type=HTML, query=LoginQuery, also=_UNCHANGED))
def show_login(call: Call[Nothing, LoginQuery]) -> Answer:
    """Get the same page. It exchanges the one-time code in its URL for a session; the request keeps it valid."""
    return _file("index.html", call)


@routes.add(Route("GET", "/docs", access="open", answers=None, content_type=HTML, also=_UNCHANGED))
def show_reference(call: Call[Nothing, Nothing]) -> Answer:
    """Get the API's description, `/openapi.json`, as a page for people. It needs no network."""
    return _file("reference.html", call)


@routes.add(
    Route(
        "GET",
        "/dashboard/<asset>",
        access="open",
        answers=None,
        content_type=", ".join(_TYPES.values()),
        errors=(NotFound,),
        also=_UNCHANGED,
    )
)
def show_asset(call: Call[Nothing, Nothing], asset: str) -> Answer:
    """Get a part of the page: a script, the stylesheet, the icon."""
    return _file(asset, call)


def _file(name: str, call: Call[Nothing, Nothing] | Call[Nothing, LoginQuery]) -> Answer:
    path = _files().get(name)
    if path is None:
        raise NotFound(f"the dashboard has no part {name}", field="asset")
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = (*_HEADERS, ("ETag", tag))
    if call.header("If-None-Match") == tag:
        return Answer(304, b"", headers)
    return Answer(200, body, headers, content_type=_TYPES[path.suffix])


@cache
def _files() -> dict[str, Path]:
    """The dashboard's files by name: a client's text never becomes a path."""
    return {path.name: path for path in _DIRECTORY.iterdir() if path.suffix in _TYPES}
