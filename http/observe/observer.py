"""Observer: sees what happens in the sidecar, to measure, record or trace it.

The HTTP side calls one Observer that stands for all of them. The actors and `state` get its methods as plain
functions.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, TypeVar, cast

from ...actors.agents.announcer import LifecycleEvent
from ...actors.runtime.asking import Later, Request
from ...state.audit import Act
from ...state.identity import Caller, Minted

Q = TypeVar("Q", bound=Request[Any])


class ObservedRequest(Protocol):
    """An HTTP request as observers see it. started_at: monotonic. span: kept here by the observer that traces."""

    method: str
    route: str
    address: str
    request_id: str
    caller: Caller | None
    is_wait: bool
    started_at: float
    span: Any


class Observer:
    """Sees events in the sidecar. Subclasses override the methods that they need; the others are never called.

    Each is called where the event happens, in any thread, and must not wait.
    """

    def began(self, request: ObservedRequest, environ: MutableMapping[str, Any]) -> None:
        """A request came. Its traceparent in `environ` may be replaced."""

    def asked(self, request: Q, later: Later[Any]) -> Q:  # noqa: ARG002  # those who see it want it
        """An actor is asked something, and answers in `later`. Returns what is sent to it instead."""
        return request

    def replied(self, request: ObservedRequest, reply: object) -> None:
        """An actor's reply is about to be rendered."""

    def refused(self, request: ObservedRequest, *, status: int, wire_code: str, code: str) -> None:
        """A client is sent an error, perhaps inside an answer of another protocol."""

    def answered(self, request: ObservedRequest, *, status: int, body_bytes: int, now: float) -> None:
        """A request was answered. now: monotonic."""

    def called_tool(self, tool: str, outcome: str) -> None:
        """A tool of MCP was called. outcome: "ok", or the code of the error."""

    def acted(self, act: Act) -> None:
        """A caller changed the work of others, or tried to."""

    def changed(self, events: tuple[LifecycleEvent, ...]) -> None:
        """The event bus has these events of agents."""

    def minted(self, token: Minted) -> None:
        """A token was created."""

    def restarted(self, actor: str, reason: str) -> None:
        """An actor was restarted."""


def all_of(*observers: Observer) -> Observer:
    """One observer for all of them: each that overrides a method is called, in order."""
    return cast(Observer, _All(observers))


class _All:
    """The result of `all_of`. A method that one observer overrides, or none, is called directly."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        for name, method in vars(Observer).items():
            if not name.startswith("_") and callable(method):
                tell = _tell_all if name != "asked" else _ask_all
                told = tuple(getattr(each, name) for each in observers if _writes(each, name))
                setattr(self, name, tell(told) if len(told) > 1 else told[0] if told else getattr(_NOBODY, name))


_NOBODY = Observer()


def _writes(observer: Observer, name: str) -> bool:
    return getattr(type(observer), name) is not getattr(Observer, name)


def _tell_all(told: tuple[Callable[..., None], ...]) -> Callable[..., None]:
    def tell(*what: Any, **more: Any) -> None:
        for each in told:
            each(*what, **more)

    return tell


def _ask_all(told: tuple[Callable[[Any, Later[Any]], Any], ...]) -> Callable[[Any, Later[Any]], Any]:
    def asked(request: Any, later: Later[Any]) -> Any:
        for each in told:
            request = each(request, later)
        return request

    return asked
