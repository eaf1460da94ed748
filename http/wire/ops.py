"""Wire names of health, status and the actor tree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from ...actors.replies import AgentNumbers, ContextNumbers, EventNumbers, ResultNumbers
from ...actors.runtime.actor_supervisor import ActorStatus
from ..observe.meter import Performance
from .codec import Timed

MB = 1_000_000


class ProofQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client asks a server to prove.

    nonce: 64 digits of 0-9 a-f, new for each request. address: the address that the client is connected to.
    """

    nonce: str
    address: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The proof that a server holds the storage's secret.

    proof: HMAC-SHA256 over address and nonce, by a key derived from the storage's secret; in hexadecimal.
    """

    address: str
    proof: str


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """The checks and numbers of /health.

    storage, event_bus: "healthy", or the problem. disk_space_available_mb: on the disk of the storage.
    """

    storage: str
    event_bus: str
    memory_usage_mb: float
    cpu_usage_percent: float
    active_agents: int
    event_queue_size: int
    disk_space_available_mb: float


class Health(Timed, frozen=True, kw_only=True):
    """Whether the sidecar can do its work.

    status: "healthy", "unhealthy", or "draining" during shutdown.
    """

    status: str
    service: str
    version: str
    uptime_seconds: float
    checks: Checks


class AgentsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of agents. active: those that hold a slot; by_type: how many were spawned."""

    active: int
    completed: int
    failed: int
    queued: int
    spawned_total: int
    restarts_total: int
    by_type: Mapping[str, int]
    avg_execution_time_ms: float

    @classmethod
    def of(cls, numbers: AgentNumbers) -> AgentsStatus:
        return cls(
            active=numbers.active,
            completed=numbers.completed,
            failed=numbers.failed,
            queued=numbers.queued,
            spawned_total=numbers.spawned_total,
            restarts_total=numbers.restarts_total,
            by_type=numbers.by_type,
            avg_execution_time_ms=numbers.avg_execution_time_ms,
        )


class StorageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of what is stored, and how safely.

    storage_path: for operators only. durability: "commit" or "os" for each kind of data; a setting for events.
    """

    durability: dict[str, str]
    context_cache_entries: int
    results_stored: int
    total_size_mb: float
    cache_hit_rate: float
    storage_path: str | UnsetType = UNSET

    @classmethod
    def of(
        cls, results: ResultNumbers, contexts: ContextNumbers, events: EventNumbers, *, storage_path: str | None
    ) -> StorageStatus:
        return cls(
            durability={"results": "commit", "events": events.durability, "agents": "os"},
            context_cache_entries=contexts.cache_entries,
            results_stored=results.results_stored,
            total_size_mb=round(results.total_bytes / MB, 6),
            cache_hit_rate=contexts.cache_hit_rate,
            storage_path=storage_path if storage_path is not None else UNSET,
        )


class EventsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of events since the start. queue_depth: events not yet taken, over all mailboxes."""

    total_published: int
    total_delivered: int
    active_subscriptions: int
    queue_depth: int
    avg_delivery_time_ms: float
    dead_letter_queue_size: int

    @classmethod
    def of(cls, numbers: EventNumbers) -> EventsStatus:
        return cls(
            total_published=numbers.total_published,
            total_delivered=numbers.total_delivered,
            active_subscriptions=numbers.active_subscriptions,
            queue_depth=numbers.queue_depth,
            avg_delivery_time_ms=round(numbers.avg_delivery_time_ms, 3),
            dead_letter_queue_size=numbers.dead_letters,
        )


class Status(Timed, frozen=True, kw_only=True):
    """Measured numbers: of the caller's project, or of everything for operators."""

    agents: AgentsStatus
    storage: StorageStatus
    events: EventsStatus
    performance: Performance


class ActorOut(msgspec.Struct, frozen=True, kw_only=True):
    """One actor. Everything except name and state is for operators."""

    name: str
    state: str
    mailbox_depth: int | UnsetType = UNSET
    processed: int | UnsetType = UNSET
    failures: int | UnsetType = UNSET
    restarts: int | UnsetType = UNSET
    last_error: str | UnsetType | None = UNSET
    busy_ms: float | UnsetType = UNSET

    @classmethod
    def of(cls, status: ActorStatus, *, in_full: bool) -> ActorOut:
        if not in_full:
            return cls(name=status.name, state=status.state)
        return cls(**{name: getattr(status, name) for name in cls.__struct_fields__})


class ActorsListed(Timed, frozen=True, kw_only=True):
    """In the order of their start."""

    actors: list[ActorOut]


class ActorRestarting(Timed, frozen=True, kw_only=True):
    """The answer to the restart of an actor, which may not have ended yet."""

    name: str
    restarting: bool


def health_of(
    *, checks: Checks, is_answering: bool, is_draining: bool, version: str, uptime_s: float, now: datetime
) -> Health:
    """Unhealthy when a check is, or an actor does not answer; draining counts before that."""
    is_healthy = is_answering and checks.storage == checks.event_bus == HEALTHY
    return Health(
        status="draining" if is_draining else HEALTHY if is_healthy else "unhealthy",
        service="orchestration-sidecar",
        version=version,
        uptime_seconds=round(uptime_s, 3),
        checks=checks,
        timestamp=now,
    )


HEALTHY = "healthy"
