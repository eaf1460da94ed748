"""Routes of operation: health, status, metrics, actors, the description of the API."""

from __future__ import annotations

import os
import time
from typing import Any, TypeVar

from ... import __version__
from ...actors.replies import ResultNumbers
from ...state.clock import utc_now
from ...state.errors import BusUnavailable, NotFound, SidecarError, Unavailable
from ...state.identity import Permission
from ...state.journal.presence import missing_below
from ...state.os_text import shown
from ..observe.vitals import MB, CpuGauge, disk_free_bytes, memory_bytes
from ..routing import Answer, Call, Pending, Route, Routes, Server
from ..wire.codec import Nothing
from ..wire.ops import (
    HEALTHY,
    ActorOut,
    ActorRestarting,
    ActorsListed,
    AgentsStatus,
    Checks,
    EventsStatus,
    Health,
    Proof,
    ProofQuery,
    Status,
    StorageStatus,
    health_of,
)
from .numbers import ask_numbers

R = TypeVar("R")

routes = Routes()

STATUS_S = 5.0
LEAST_DISK_MB = 50.0  # with less, the next large result may not fit

_cpu = CpuGauge()


@routes.add(Route("GET", "/health", access="open", answers=Health, also={503: Health}, is_quick=True))
def show_health(call: Call[Nothing, Nothing]) -> Pending[Any]:
    """Check whether the sidecar is healthy: 200, or 503 if a check fails."""
    server = call.server
    look = server.last_numbers.look()
    return Pending(look.done, lambda _: _health(server), deadline_s=look.within_s, late=lambda: _health(server))


def _health(server: Server) -> Answer:
    last = server.last_numbers
    silent = last.silent()
    agents, events, results = last.agents.numbers, last.events.numbers, last.results.numbers
    disk_mb = _disk_free_mb(server)
    health = health_of(
        checks=Checks(
            storage=_storage_health(server, results if last.results.name not in silent else None, disk_mb),
            event_bus=HEALTHY if last.events.name not in silent else "does not answer",
            memory_usage_mb=round(memory_bytes() / MB, 3),
            cpu_usage_percent=round(_cpu.percent(), 2),
            active_agents=agents.active if agents is not None else 0,
            event_queue_size=events.queue_depth if events is not None else 0,
            disk_space_available_mb=round(disk_mb, 3),
        ),
        is_answering=not silent,
        is_draining=server.draining.is_set(),
        version=__version__,
        uptime_s=time.monotonic() - server.started_at_s,
        now=utc_now(),
    )
    if health.status == HEALTHY:
        return Answer(200, health)
    return Answer(503, health, (("Retry-After", "1"),))


def _disk_free_mb(server: Server) -> float:
    try:
        return disk_free_bytes(server.storage) / MB
    except OSError:  # the storage is gone, which its own check reports
        return 0.0


def _storage_health(server: Server, results: ResultNumbers | None, disk_mb: float) -> str:
    if missing := missing_below(server.storage):
        # Relative to the storage's folder: only operators may see where that lies.
        return shown("; ".join(missing).replace(f"{server.storage.parent}{os.sep}", ""))
    if results is None:
        return "does not answer"
    if results.problem is not None:
        return "cannot store results"
    if not os.access(server.storage, os.W_OK):
        return "is not writable"
    return HEALTHY if disk_mb >= LEAST_DISK_MB else "is almost full"


@routes.add(Route("GET", "/api/proof", access="open", query=ProofQuery, answers=Proof, is_quick=True))
def prove_address(call: Call[Nothing, ProofQuery]) -> Answer:
    """Prove to a client that holds the storage's secret that this is its sidecar, before it sends a token."""
    address, nonce = call.query.address, call.query.nonce
    return Answer(200, Proof(address=address, proof=call.server.proofs.of(address, nonce)))


@routes.add(Route("GET", "/status", answers=Status, errors=(BusUnavailable, Unavailable)))
def show_status(call: Call[Nothing, Nothing]) -> Answer:
    """Get measured numbers: of the caller's project, or of everything for operators."""
    server, scope = call.server, call.scope
    numbers = ask_numbers(server.actors, project_id=scope, timeout_s=STATUS_S)
    status = Status(
        agents=AgentsStatus.of(_known(numbers.agents)),
        storage=StorageStatus.of(
            _known(numbers.results),
            _known(numbers.contexts),
            _known(numbers.events),
            storage_path=shown(server.storage) if call.caller.is_operator else None,
        ),
        events=EventsStatus.of(_known(numbers.events)),
        performance=server.observers.meter.performance(project_id=scope, now=time.monotonic()),
        timestamp=call.now,
    )
    return Answer(200, status)


def _known(counted: R | SidecarError) -> R:
    if isinstance(counted, SidecarError):
        raise counted
    return counted


@routes.add(
    Route("GET", "/metrics", access="loopback", answers=None, content_type="text/plain; version=0.0.4; charset=utf-8")
)
def show_metrics(call: Call[Nothing, Nothing]) -> Answer:
    """Get metrics for Prometheus. Open on this machine; from elsewhere, for operators."""
    from . import exposition  # it imports the Prometheus client, which few need

    return Answer(200, exposition.text_of(call.server), content_type="text/plain; version=0.0.4; charset=utf-8")


@routes.add(Route("GET", "/api/actors", answers=ActorsListed))
def list_actors(call: Call[Nothing, Nothing]) -> Answer:
    """List the actors with their states; for operators, with all measurements."""
    in_full = call.caller.is_operator
    actors = [ActorOut.of(status, in_full=in_full) for status in call.server.actor_statuses()]
    return Answer(200, ActorsListed(actors=actors, timestamp=call.now))


@routes.add(
    Route(
        "POST",
        "/api/actors/<actor_name>/restart",
        needs=Permission.ADMIN,
        status=202,
        answers=ActorRestarting,
        errors=(NotFound,),
    )
)
def restart_actor(call: Call[Nothing, Nothing], actor_name: str) -> Answer:
    """End an actor's loop; the next incarnation rebuilds its state from disk. Its pending requests get a 503."""
    if not call.server.restart_actor(actor_name, f"asked for by {call.caller.agent_id}"):
        known = [status.name for status in call.server.actor_statuses()]
        raise NotFound(f"there is no actor {actor_name}", field="actor_name", expected=known)
    return Answer(202, ActorRestarting(name=actor_name, restarting=True, timestamp=call.now))


@routes.add(Route("GET", "/openapi.json", access="open", answers=None))
def describe_api(call: Call[Nothing, Nothing]) -> Answer:
    """Get this description: OpenAPI 3.1, built from the routes and the types of their requests and answers."""
    return Answer(200, call.server.api_description())
