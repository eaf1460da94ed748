"""The settings of the whole fleet: `[agents]` and `[[triggers]]` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..state.errors import ConfigError
from .strategy import Group


class SpawnerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[agents]`.

    max_concurrent: agents that are not queued and have not ended. spawns_per_second, spawn_burst: a bucket for first
    starts; restarts have their own limits. on_shutdown: "detach" leaves agents running for the next sidecar.
    log_max_mb: for each output stream of an agent. min_free_disk_mb: on the disk of the logs; below it, the oldest
    logs of ended agents are deleted; 0 for never. sample_seconds: between checks of CPU, memory and limits.
    keep_ended: how many ended agents stay in the list; the newest are kept. max_queued, max_queued_mb: agents that
    may wait, and the memory of their requests. max_chain_depth: an agent that no agent caused has depth 1, others one
    more than the one that caused them. max_spawns_per_issue: within a day. 0: no such limit.
    groups: `[groups.NAME]`, not part of the table.
    """

    max_concurrent: int = 10
    spawns_per_second: Annotated[float, Meta(gt=0)] = 20.0
    spawn_burst: Annotated[int, Meta(ge=1)] = 50
    on_shutdown: Literal["stop", "detach"] = "stop"
    log_max_mb: float = 50.0
    min_free_disk_mb: float = 256.0
    sample_seconds: Annotated[float, Meta(ge=0.05)] = 2.0
    keep_ended: int = 1000
    max_queued: int = 1000
    max_queued_mb: float = 64.0
    max_chain_depth: int = 8
    max_spawns_per_issue: int = 200
    groups: dict[str, Group] = {}


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[triggers]]`: an event of type `on` that passes `filter` spawns an agent of type `spawn` for its issue.

    allow_self: also for events caused by an agent of that type.
    """

    on: str
    spawn: str
    filter: str = ""
    allow_self: bool = False


def refuse_chain_cut(trigger: Trigger, setting: str) -> None:
    """Raise ConfigError for a trigger on the event `chain_cut`: it would start the chain again.

    setting: the trigger's name in the configuration.
    """
    if trigger.on == "chain_cut":
        raise ConfigError(
            f"setting {setting}.on is chain_cut, which would begin the chain again: name another event type",
            field=f"{setting}.on",
        )
