"""From a route's outcome to its answer: at once, or later for a request that stays open without a thread."""

from __future__ import annotations

from typing import Any

from ..state.errors import SidecarError
from ..state.identity import Caller
from .access.holds import Hold, Holds
from .access.sessions import Session
from .exchange import Environ, Exchange, Rendered
from .routing import MIB, Answer, Pending, Refused, Sink, Streaming

MAX_UNREAD_BYTES = 8 * MIB  # of a stream: enough for a whole log that is sent faster than it is read


def answer_later(
    environ: Environ, exchange: Exchange, outcome: Refused | Pending[Any] | Streaming, holds: Holds
) -> Rendered | None:
    """Answer with an outcome that is not a plain answer. None: the request is parked.

    Raises RateLimited.
    """
    if isinstance(outcome, Pending):
        return _answer_when(environ, exchange, outcome, holds)
    if isinstance(outcome, Streaming):
        _stream(environ, exchange, outcome, holds)
        return None
    return exchange.render(outcome)


def _answer_when(environ: Environ, exchange: Exchange, pending: Pending[Any], holds: Holds) -> Rendered | None:
    """Answer when an actor does: park the request if the server can, otherwise wait."""
    park = environ.get("sidecar.park")
    caller = exchange.caller
    if park is None:
        pending.later.wait(pending.deadline_s)
        return _Rendering(exchange, pending)(pending.later)
    if not pending.is_wait or caller is None:
        render = _Rendering(exchange, pending)
        park(pending.later, render=render, deadline_s=pending.deadline_s, receipt=pending.receipt)
        return None
    wait = _Wait(exchange, pending, caller, holds)
    park(pending.later, render=wait, deadline_s=pending.deadline_s, receipt=pending.receipt)
    holds.add(wait)
    pending.later.add_done_callback(wait.is_over)
    return None


class _Rendering:
    """Renders a late answer. Not a closure, to save memory: ten thousand requests may wait."""

    __slots__ = ("_exchange", "_pending")

    def __init__(self, exchange: Exchange, pending: Pending[Any]) -> None:
        self._exchange = exchange
        self._pending = pending

    def __call__(self, future: Any) -> Rendered:
        try:
            if future.was_answered():
                self._exchange.replied(future.result())
            return self._exchange.render(self._pending.settle(future))
        except Exception as error:  # noqa: BLE001  # rendered, and logged where it is not one of ours
            return self._exchange.render(error)


class _Wait(Hold):
    """Renders the answer of a waiting request, or refuses it when its token has ended."""

    __slots__ = ("_error", "_exchange", "_holds", "_pending")

    def __init__(self, exchange: Exchange, pending: Pending[Any], caller: Caller, holds: Holds) -> None:
        super().__init__(caller, exchange.session)
        self._exchange = exchange
        self._pending = pending
        self._holds = holds
        self._error: SidecarError | None = None

    def end(self, error: SidecarError) -> None:
        """Answer with the error, unless an answer is on its way, which has its own receipt."""
        self._error = error
        self._pending.later.cancel()

    def is_over(self, _: object) -> None:
        self._holds.remove(self)

    def __call__(self, future: Any) -> Rendered:
        if self._error is not None and future.cancelled():
            return self._exchange.render(self._error)
        return _Rendering(self._exchange, self._pending)(future)


def _stream(environ: Environ, exchange: Exchange, streaming: Streaming, holds: Holds) -> None:
    """Open a stream. Raises RateLimited."""
    caller = exchange.caller
    assert caller is not None  # a stream without a token would have no end and no bound
    holds.open_stream(caller)
    hold = _OpenStream(caller, exchange.session, streaming, holds)
    # nginx buffers small pieces, and so the whole stream, unless the answer forbids it.
    unbuffered = (("X-Accel-Buffering", "no"),)
    rendered = exchange.render(Answer(200, b"", unbuffered, content_type=streaming.content_type))
    sink = environ["sidecar.stream"](
        headers=[(name, value) for name, value in rendered.headers if name != "Content-Length"],
        on_close=hold.was_closed,
        max_buffered_bytes=MAX_UNREAD_BYTES,
        heartbeat=streaming.heartbeat,
    )
    hold.sink = sink
    streaming.feed.start(sink)
    holds.add(hold)


class _OpenStream(Hold):
    __slots__ = ("_holds", "_streaming", "sink")

    def __init__(self, caller: Caller, session: Session | None, streaming: Streaming, holds: Holds) -> None:
        super().__init__(caller, session)
        self._streaming = streaming
        self._holds = holds
        self.sink: Sink | None = None

    def end(self, error: SidecarError) -> None:  # noqa: ARG002  # its status was sent long ago
        """End the stream after the data sent so far; the client learns the reason when it connects again."""
        if self.sink is not None:
            self.sink.close()

    def was_closed(self) -> None:
        self._streaming.feed.stop()
        self._holds.remove(self)
        self._holds.close_stream(self.caller)
