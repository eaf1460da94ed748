"""Routes: each is a line of a table (permission, input, answers) and a function.

The function gets a Call, asks an actor, and returns an Answer, or a Pending if the answer takes time. `/openapi.json`
is made from the same table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar

import msgspec

from ..actors.runtime.actor_supervisor import ActorStatus
from ..actors.runtime.asking import Later, Recipient
from ..actors.runtime.turns import TurnByTurn
from ..state.durations import Durations
from ..state.errors import BodyTooLarge, InvalidRequest, SidecarError, Unavailable
from ..state.identity import Caller, Permission
from ..state.projects import Projects
from ..state.trace import traceparent
from ..state.typed import Decoder, decoder
from ..supervision.profile import Profiles
from .access.auth import Authenticator
from .access.holds import Holds
from .access.limits import Limiter
from .access.proving import AddressProofs
from .access.sessions import Sessions
from .errors import ErrorBody
from .log_texts import LogTexts
from .observe.connections import Connections
from .observe.last_numbers import LastNumbers
from .observe.observing import Observers
from .wire.codec import Nothing

if TYPE_CHECKING:  # at run time, a type variable has a default from Python 3.13 on
    from typing_extensions import TypeVar as WithDefault

    B = WithDefault("B", bound=msgspec.Struct, default=Any)
    Q = WithDefault("Q", bound=msgspec.Struct, default=Any)
else:
    B = TypeVar("B", bound=msgspec.Struct)
    Q = TypeVar("Q", bound=msgspec.Struct)
P = ParamSpec("P")
R = TypeVar("R")

JSON = "application/json"
KIB = 1024
MIB = 1024 * KIB
ASK_S = 10.0  # a commit on a slow disk; an actor that needs longer is in trouble
MAX_IDEMPOTENCY_KEY_CHARS = 255

Access = Literal["open", "loopback", "token", "refresh"]


class Answer(msgspec.Struct, frozen=True):
    """An answer that is known.

    body: a wire struct, or bytes that are sent as they are.
    """

    status: int
    body: msgspec.Struct | bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON


ErrorShape = Callable[[ErrorBody], msgspec.Struct]


class Refused(msgspec.Struct, frozen=True):
    """An error inside an answer of another protocol: described like every error, then put into `shape`."""

    error: BaseException
    shape: ErrorShape
    status: int = 200


Refuse = Callable[[Callable[[str], str | None], bytes, BaseException], Answer | Refused | BaseException]


class Pending(Generic[R]):
    """An answer that comes when an actor knows it.

    deadline_s: when to stop waiting; then `late` makes the answer, or it is Unavailable. receipt: called with whether
    the client took the answer, if the server can know. is_wait: it waits for others, so it ends with the caller's
    token; a request that an actor is working on is still answered.
    """

    __slots__ = ("deadline_s", "is_wait", "late", "later", "receipt", "render")

    def __init__(
        self,
        later: Later[R],
        render: Callable[[R], Answer],
        *,
        deadline_s: float,
        receipt: Callable[[bool], None] | None = None,
        late: Callable[[], Answer] | None = None,
        is_wait: bool = False,
    ) -> None:
        self.later = later
        self.is_wait = is_wait
        self.late = late
        self.render = render
        self.deadline_s = deadline_s
        self.receipt = receipt

    def settle(self, future: Later[R]) -> Answer | Refused:
        """The answer from the present state of `future`. Raises the actor's error, or Unavailable if there is none
        yet."""
        if not future.was_answered() and (not future.done() or future.cancelled()):
            future.cancel()
            if self.late is not None:
                return self.late()
            raise Unavailable(f"no answer came within {self.deadline_s:g} s")
        return self.render(future.result())


class Sink(Protocol):
    """Takes the bytes of an endless answer. send: False if the client has gone or reads too slowly."""

    def send(self, data: bytes) -> bool: ...

    def close(self) -> None: ...


class Feed(Protocol):
    """The source of a stream. Neither method may wait; stop is called once, in any thread."""

    def start(self, sink: Sink) -> None: ...

    def stop(self) -> None: ...


class Streaming(msgspec.Struct, frozen=True):
    """An answer without an end. heartbeat: sent after a while without data."""

    feed: Feed
    content_type: str
    heartbeat: bytes


Outcome = Answer | Refused | Pending[Any] | Streaming


class Actors(msgspec.Struct, frozen=True):
    """The four owners of state, by the names that routes send to."""

    spawner: Recipient
    bus: TurnByTurn  # it gets what the I/O loop reads in a turn as one message
    results: Recipient
    contexts: Recipient


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The server as its routes know it. started_at_s: monotonic."""

    actors: Actors
    profiles: Profiles
    projects: Projects
    observers: Observers
    last_numbers: LastNumbers
    connections: Connections
    storage: Path
    started_at_s: float
    max_wait_s: float
    draining: threading.Event
    authenticator: Authenticator
    limiter: Limiter
    holds: Holds
    log_texts: LogTexts
    proofs: AddressProofs
    sessions: Sessions
    actor_statuses: Callable[[], tuple[ActorStatus, ...]]
    actor_handling: Callable[[], Mapping[str, Durations]]
    restart_actor: Callable[[str, str], bool]
    api_description: Callable[[], bytes]


class Call(msgspec.Struct, Generic[B, Q], frozen=True, kw_only=True):
    """One request, read and allowed. asked_project: `?project_id=`, which only operators may set to another's."""

    caller: Caller
    body: B
    query: Q
    asked_project: str | None
    header: Callable[[str], str | None]
    server: Server
    now: datetime

    @property
    def actors(self) -> Actors:
        return self.server.actors

    @property
    def project_id(self) -> str:
        """The project the request acts in."""
        return self.asked_project or self.caller.project_id

    @property
    def scope(self) -> str | None:
        """The project whose records may be seen; None: all projects, for operators who name none."""
        if self.caller.is_operator and self.asked_project is None:
            return None
        return self.project_id

    @property
    def traceparent(self) -> str | None:
        """The request's W3C trace context, if it is valid."""
        given = self.header("traceparent")
        return None if given is None else traceparent(given)

    def idempotency_key(self) -> str | None:
        key = self.header("Idempotency-Key")
        if key is not None and not (0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable()):
            raise InvalidRequest(
                "the Idempotency-Key cannot be used",
                field="Idempotency-Key",
                expected=f"1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters",
            )
        return key


Handler = Callable[..., Outcome]


def _no_handler(*_: Any) -> Outcome:
    raise NotImplementedError("the route has no function yet")


NO_BODY_BYTES = 64 * KIB  # unused bodies up to this size are let through


class Route(msgspec.Struct, Generic[B, Q], frozen=True, dict=True):
    """A line of the table of routes: the input and the answers of a method and path.

    path: Bottle's syntax; every part in angle brackets is an identifier. answers: the struct of the answer of `status`.
    access: "open" to anyone, "loopback": open to this machine, else for operators; "token": for any valid token;
    "refresh": also for a token that expired within the refresh grace. needs: a permission beyond having a token.
    body: left out, no body is read.
    is_wait: the client chooses its duration, so it is no response time. is_quick: the function never waits for
    anything, so it runs in the I/O thread. error_shape: the shape of errors in another protocol. refuse: makes the
    answer to a request that never reached the function, from headers, body and error.
    errors: what the function, and the actors it asks, may raise beyond the errors of every such route.
    also: other statuses of the function, each with its struct; None: without a body.
    handler: set by `Routes.add`.
    """

    method: str
    path: str
    answers: type[msgspec.Struct] | None
    status: int = 200
    access: Access = "token"
    needs: Permission | None = None
    body: type[B] | None = None
    max_body_bytes: int = MIB
    query: type[Q] = Nothing  # type: ignore[assignment]  # the default of a type variable
    content_type: str = JSON
    is_wait: bool = False
    is_quick: bool = False
    error_shape: ErrorShape | None = None
    refuse: Refuse | None = None
    errors: tuple[type[SidecarError], ...] = ()
    also: Mapping[int, type[msgspec.Struct] | None] = MappingProxyType({})
    handler: Handler = _no_handler

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or self.name).strip()

    @cached_property
    def decoder(self) -> Decoder[B]:
        """Decodes the body of a route that has one. Kept: looking it up takes longer than to decode most bodies."""
        assert self.body is not None
        return decoder(self.body)

    @property
    def body_limit(self) -> int:
        """The maximum size of a request's body, whether or not it is read."""
        return NO_BODY_BYTES if self.body is None else self.max_body_bytes

    @cached_property  # each request is asked
    def is_audited(self) -> bool:
        """Whether it changes the work of others, so that the caller is recorded."""
        return self.method != "GET" and self.needs in (Permission.SPAWN_AGENTS, Permission.ADMIN)


class Routes:
    """The routes of one resource, filled by its module as it is imported."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def add(
        self, route: Route[B, Q]
    ) -> Callable[[Callable[Concatenate[Call[B, Q], P], Outcome]], Callable[Concatenate[Call[B, Q], P], Outcome]]:
        """Add a route with the function below."""

        def register(
            handler: Callable[Concatenate[Call[B, Q], P], Outcome],
        ) -> Callable[Concatenate[Call[B, Q], P], Outcome]:
            self._routes.append(msgspec.structs.replace(route, handler=handler))
            return handler

        return register


def too_large(max_bytes: int) -> BodyTooLarge:
    """The error for a body of more than `max_bytes`."""
    return BodyTooLarge(f"the body is larger than {max_bytes} bytes", field="body", max_bytes=max_bytes)
