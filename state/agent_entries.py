"""The AgentRegistry's entries as they stand in the journal: the last entry of each key counts."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from .events.gap import BEGINNING
from .models import AgentId, AgentSpec, AgentState, EventId, ExitCause, ProcessIdentity, event_seq

TRIGGERS = AgentId("sidecar")  # who asks for the agents that events spawn

SpawnKey = tuple[str, AgentId, str]  # the new agent's project, who asks, and the idempotency key
KEYS_KEPT_FOR = timedelta(days=1)


class TokenRef(msgspec.Struct, frozen=True):
    """A token that was handed out, without its text."""

    token_id: str
    expires_at: datetime


class FirstAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The first answer to a spawn with an idempotency key. token: enough to make its text again."""

    state: AgentState
    process_id: int | None
    token: TokenRef | None
    at: datetime


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="agent", omit_defaults=True):
    """One agent. serial: names its log files. incarnation: 0 before the first start, then counts starts.

    deaths, in_a_row, resume_at, started_monotonic: monotonic seconds of the boot `boot_id`, meaningless in another
    one. is_open: it died too often and is only probed. request_digest: of the spawn request that `idempotency_key`
    names. ran_for_s: the last run that ended; ran_in_all_s: all of them. tokens: those of the incarnation that runs.
    signal: number. ending, then, ending_note: why the sidecar is ending it and what follows, while it is stopping.
    log_starts: where this incarnation's output begins in stdout's and stderr's log.
    """

    spec: AgentSpec
    serial: int
    requested_by: AgentId
    idempotency_key: str | None = None
    request_digest: str = ""
    first_answer: FirstAnswer | None = None
    created_at: datetime
    state: AgentState = AgentState.QUEUED
    incarnation: int = 0
    boot_id: str = ""
    process: ProcessIdentity | None = None
    started_at: datetime | None = None
    started_monotonic: float = 0.0
    ended_at: datetime | None = None
    ran_for_s: float = 0.0
    runs_ended: int = 0
    ran_in_all_s: float = 0.0
    exit_code: int | None = None
    signal: int | None = None
    cause: ExitCause | None = None
    last_error: str | None = None
    deaths: tuple[float, ...] = ()
    in_a_row: int = 0
    is_open: bool = False
    resume_at: float = 0.0
    ending: ExitCause | None = None
    then: str = ""
    ending_note: str = ""
    log_starts: tuple[int, int] = (0, 0)
    tokens: tuple[TokenRef, ...] = ()

    @property
    def key(self) -> str:
        return self.spec.agent_id

    @property
    def spawn_key(self) -> SpawnKey | None:
        """Two requests with the same one are one spawn."""
        if self.idempotency_key is None:
            return None
        return self.spec.project_id, self.requested_by, self.idempotency_key

    @property
    def restarts(self) -> int:
        return max(0, self.incarnation - 1)

    @property
    def triggered_by(self) -> EventId | None:
        """The event whose trigger spawned the agent; None for an agent that was requested."""
        if self.requested_by != TRIGGERS or self.idempotency_key is None:
            return None
        event = self.idempotency_key.partition("-")[2]
        return EventId(event) if event_seq(event) is not None else None


def trigger_key(trigger_id: str, event: EventId) -> str:
    """The idempotency key of a spawn by a trigger: one agent for each trigger and event."""
    return f"{trigger_id}-{event}"


class Revoked(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="revoked"):
    """A token that is refused from a moment on. expires_at: when it would have been refused anyhow."""

    token_id: str
    from_: datetime
    expires_at: datetime


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="forgotten"):
    """An agent that ended long ago leaves the list; its project's totals keep counting it."""

    agent_id: AgentId


class Departed(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="departed"):
    """The record of a forgotten agent, kept for a day for repeats of its spawn."""

    record: AgentRecord


class Tally(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="tally"):
    """The totals of forgotten agents of one type of one project."""

    project_id: str
    agent_type: str
    spawned: int = 0
    completed: int = 0
    failed: int = 0
    restarts: int = 0
    runs_ended: int = 0
    ran_in_all_s: float = 0.0


class Announcement(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="announcement"):
    """A lifecycle event that the bus must still be given. seq: rises by one; it makes the event's idempotency key."""

    seq: int
    project_id: str
    event_type: str
    topic: str
    data: msgspec.Raw
    traceparent: str | None = None


class Announced(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="announced"):
    """The bus has every announcement up to `seq`."""

    seq: int


class TriggerPlace(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="trigger_place"):
    """Events up to `event_id` have been looked at by every trigger."""

    event_id: EventId


class TriggerKnown(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="trigger_known"):
    """A trigger acts on events after `after`, the newest when it was first configured, not on the past."""

    trigger_id: str
    after: EventId = BEGINNING


class Together(msgspec.Struct, frozen=True):
    """One group of agents in one issue of one project."""

    group: str
    project_id: str
    issue_id: str


class GroupRestart(msgspec.Struct, frozen=True, tag_field="entry", tag="group_restart"):
    """A restart of a group. to_stop: agents that still run, last one first. to_start: agents to start, in order; none
    if the restart is over.
    """

    where: Together
    to_stop: tuple[AgentId, ...] = ()
    to_start: tuple[AgentId, ...] = ()


class GroupDeaths(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="group_deaths"):
    """When members of a group died, as far as that still counts: monotonic seconds of the boot `boot_id`."""

    where: Together
    boot_id: str = ""
    deaths: tuple[float, ...] = ()


class Instance(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="instance"):
    """Names this storage in the environment of its agents, so that no sidecar touches another's.

    announcer_id: by which its bus knows it, where that is another.
    """

    instance_id: str
    announcer_id: str = ""
    last_serial: int = 0


Entry = (
    AgentRecord
    | Revoked
    | Forgotten
    | Departed
    | Tally
    | Announcement
    | Announced
    | TriggerPlace
    | TriggerKnown
    | GroupRestart
    | GroupDeaths
    | Instance
)
