"""Publishing and long polling as one would write them on FastAPI or raw Starlette, with the same paths and tokens.

They keep events in memory only: no journal, no filters, no receipts, no rate limits. A mailbox is a cursor. Run by
bench_events in a virtual environment of its own: `python event_peers.py fastapi|starlette SECRET`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Any

import jwt
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

KEEP = 10_000
SECRET = sys.argv[2]

events: defaultdict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=KEEP))  # by type
numbers = itertools.count(1)
cursors: dict[tuple[str, str], int] = {}
waiting: dict[str, set[asyncio.Future[None]]] = {}
verified: dict[str, dict[str, Any]] = {}


def now() -> str:
    return datetime.now(UTC).isoformat()


def caller(authorization: str) -> dict[str, Any]:
    """Verified tokens are remembered, as the sidecar does; PyJWT would cost 37 µs a request."""
    token = authorization.removeprefix("Bearer ")
    claims = verified.get(token)
    if claims is None:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="sidecar-agents")
        verified[token] = claims
    return claims


def publish(event_type: str, data: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    number = next(numbers)
    event = {
        "event_id": f"evt-{number:016x}",
        "event_type": event_type,
        "publisher": claims["sub"],
        "publisher_type": claims["agent_type"],
        "topic": "coordination",
        "data": data,
        "correlation_id": None,
        "priority": "normal",
        "timestamp": now(),
    }
    events[event_type].append({"number": number, **event})
    woken = waiting.pop(event_type, set())
    for waiter in woken:
        if not waiter.done():
            waiter.set_result(None)
    return {
        "event_id": event["event_id"],
        "published": True,
        "subscribers_notified": [],
        "subscriber_count": len(woken),
        "topic": "coordination",
        "ttl_seconds": 86400,
        "timestamp": event["timestamp"],
    }


async def wait(event_type: str, timeout_ms: int, claims: dict[str, Any]) -> dict[str, Any]:
    mailbox = (claims["sub"], event_type)
    found = take(mailbox, event_type)
    if not found:
        waiter = asyncio.get_running_loop().create_future()
        waiting.setdefault(event_type, set()).add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout_ms / 1000)
        except TimeoutError:
            waiting.get(event_type, set()).discard(waiter)
        found = take(mailbox, event_type)
    return {"events": found, "more_available": False, "next_cursor": None, "timeout": not found, "timestamp": now()}


def take(mailbox: tuple[str, str], event_type: str) -> list[dict[str, Any]]:
    """What the mailbox was not given yet; from the newest on, for most was looked at before."""
    cursor = cursors.get(mailbox, 0)
    found: list[dict[str, Any]] = []
    for event in reversed(events[event_type]):
        if event["number"] <= cursor or len(found) == 100:
            break
        found.append(event)
    if found:
        cursors[mailbox] = found[0]["number"]
    return found[::-1]


class NewEvent(BaseModel):
    data: dict[str, Any]
    topic: str | None = None
    correlation_id: str | None = None
    ttl_seconds: int | None = None


def fastapi_app() -> FastAPI:
    app = FastAPI()

    async def who(authorization: str = Header()) -> dict[str, Any]:
        try:
            return caller(authorization)
        except jwt.PyJWTError as error:
            raise HTTPException(401, "unauthorized") from error

    holder = Depends(who)

    @app.post("/api/events/{event_type}", status_code=202)
    async def publish_event(event_type: str, event: NewEvent, claims: dict[str, Any] = holder) -> dict[str, Any]:
        return publish(event_type, event.data, claims)

    @app.get("/api/events/wait/{event_type}")
    async def wait_for_event(event_type: str, timeout: int = 30000, claims: dict[str, Any] = holder) -> dict[str, Any]:
        return await wait(event_type, timeout, claims)

    return app


def starlette_app() -> Starlette:
    async def publish_event(request: Request) -> JSONResponse:
        claims = caller(request.headers["authorization"])
        body = json.loads(await request.body())
        return JSONResponse(publish(request.path_params["event_type"], body["data"], claims), 202)

    async def wait_for_event(request: Request) -> JSONResponse:
        claims = caller(request.headers["authorization"])
        timeout_ms = int(request.query_params.get("timeout", "30000"))
        return JSONResponse(await wait(request.path_params["event_type"], timeout_ms, claims))

    return Starlette(
        routes=[
            Route("/api/events/wait/{event_type}", wait_for_event),
            Route("/api/events/{event_type}", publish_event, methods=["POST"]),
        ]
    )


def main() -> None:
    app = {"fastapi": fastapi_app, "starlette": starlette_app}[sys.argv[1]]()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock:
        print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
        server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", backlog=4096))
        server.run(sockets=[sock])


if __name__ == "__main__":
    main()
