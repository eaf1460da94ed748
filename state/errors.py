"""The errors that a caller may get. `http/errors.py` maps each `code` to a status and a wire code.

Raise an error where the fact is known, and name the thing, the field and what was expected. Unexpected exceptions are
not among these: they are logged with their traceback, and the caller gets `internal`.
"""

from __future__ import annotations

from typing import ClassVar


class SidecarError(Exception):
    """Something a caller can be told.

    message: one sentence with the ids in it; it is sent to the caller as it is, so it never holds a secret.
    details: JSON values for `details` on the wire, such as `field` and `expected`.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(SidecarError):
    """Malformed JSON, a wrong or unknown field, a bad identifier."""

    code = "invalid_request"


class InvalidEvent(SidecarError):
    """A published event that cannot be accepted: its topic, type or data."""

    code = "invalid_event"


class InvalidFilter(SidecarError):
    """An event filter that cannot be read; `details["position"]` is the 0-based offset of the fault."""

    code = "invalid_filter"


class InvalidContextRequest(SidecarError):
    """A request for a context that cannot be read."""

    code = "invalid_context_request"


class Unauthorized(SidecarError):
    """No token, or one that is not ours, or revoked."""

    code = "unauthorized"


class TokenExpired(SidecarError):
    """The token is ours and its time is over."""

    code = "token_expired"


class PermissionDenied(SidecarError):
    """The token does not carry the right that this needs."""

    code = "forbidden"


class WrongProject(SidecarError):
    """The token acts in another project."""

    code = "wrong_project"


class WrongIdentity(SidecarError):
    """The publisher, agent id or agent type named is not the token's."""

    code = "wrong_identity"


class NotFound(SidecarError):
    """Nothing has this id, or the caller may not know of it."""

    code = "not_found"


class MethodNotAllowed(SidecarError):
    """The path exists, and not for this method."""

    code = "method_not_allowed"


class IdempotencyConflict(SidecarError):
    """The idempotency key was used before with another body."""

    code = "idempotency_conflict"


class WrongState(SidecarError):
    """The agent is not in a state for that."""

    code = "wrong_state"


class EventsGone(SidecarError):
    """Events after `since` are gone; `details` has the `oldest` event still there, and the `reason`."""

    code = "events_gone"


class BodyTooLarge(SidecarError):
    """The request's body is larger than its route takes."""

    code = "body_too_large"


class NotJson(SidecarError):
    """The request's body is not declared as JSON, or is compressed."""

    code = "not_json"


class NoCommand(SidecarError):
    """The agent type's profile has no command to run."""

    code = "no_command"


class ChainTooLong(SidecarError):
    """Agents have caused one another too often: the chain ends here."""

    code = "chain_too_long"


class TooManySpawns(SidecarError):
    """The issue has had its full number of agents."""

    code = "too_many_spawns"


class QueueFull(SidecarError):
    """The queue is full: by number of agents, or by their size."""

    code = "queue_full"


class RateLimited(SidecarError):
    """`details["retry_after_s"]`: whole seconds until a request is let through."""

    code = "rate_limited"


class StorageUnavailable(SidecarError):
    """Storage cannot be written; nothing of the request was kept."""

    code = "storage_unavailable"


class StorageUnreadable(SidecarError):
    """A stored result lies in a file that is damaged or missing; `details` name the file and the byte."""

    code = "storage_unreadable"


class ContextFailed(SidecarError):
    """A context could not be built."""

    code = "context_failed"


class SpawnFailed(SidecarError):
    """The agent's process could not be started."""

    code = "spawn_failed"


class Unavailable(SidecarError):
    """Shutting down, or an actor did not answer in time."""

    code = "unavailable"


class BusUnavailable(Unavailable):
    """The event bus failed while it held the request."""

    code = "event_bus_unavailable"


class ConfigError(SidecarError):
    """A setting is missing, unknown or wrong. Met at start-up, never over HTTP."""

    code = "config"


class StorageDamaged(SidecarError):
    """Data that was acknowledged cannot be read back. Names file, offset and record; only a repair may cut it."""

    code = "storage_damaged"


class StorageInUse(SidecarError):
    """Another process holds the storage; the message names its pid."""

    code = "storage_in_use"


class StorageTooNew(SidecarError):
    """The storage was written by a newer version of the sidecar, in a format that this one cannot read."""

    code = "storage_too_new"
