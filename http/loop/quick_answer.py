"""Requests that never wait, answered in the I/O thread: no hand-over, and nothing can happen in between.

That is what receipts rest on: a client that gave up is noticed before its next request is looked at, so the two reach
an actor in this order.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from waitress.utilities import InternalServerError

from .parking import ACCOUNT, HandlerTask, Parked, Slip
from .request_parser import Quick

if TYPE_CHECKING:
    from .connection import Connection

log = logging.getLogger(__name__)


def answer_quickly(connection: Connection, quick: Quick, request: Any) -> None:
    """Have `quick` answer the request at the head of the queue, or park it."""
    slip = Slip()
    environ = request.environ(connection)
    environ["sidecar.park"] = slip.park
    environ["sidecar.stream"] = slip.open_stream
    try:
        reply = quick(environ)
        connection.account = environ.get(ACCOUNT)
    except Exception:
        log.exception("handler failed path=%s", request.path)
        slip.withdraw()
        request.error = InternalServerError("The server encountered an unexpected internal server error")
        connection.serve_with(HandlerTask)
        return
    if reply is None:
        connection.settle_in(slip)
        return
    slip.withdraw()
    connection.write_answer(Parked.answered(reply))
    if connection.requests:
        connection.server.post(connection.proceed)  # not at once: a client that pipelines has to take turns
