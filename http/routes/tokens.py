"""Route of tokens: refresh. The Spawner creates tokens, and so does `sidecar token` on the machine itself."""

from __future__ import annotations

import time

from ...actors.messages import RefreshToken
from ...actors.runtime.asking import ask
from ...state.errors import RateLimited, StorageUnavailable, Unavailable
from ..routing import ASK_S, Answer, Call, Route, Routes
from ..wire.agents import TokenRefreshed
from ..wire.codec import Nothing

routes = Routes()


@routes.add(
    Route(
        "POST",
        "/api/auth/refresh",
        access="refresh",
        answers=TokenRefreshed,
        errors=(RateLimited, StorageUnavailable, Unavailable),
    )
)
def refresh_token(call: Call[Nothing, Nothing]) -> Answer:
    """Get a new token in exchange for a valid one, or for one that has just expired while its agent still runs."""
    call.server.limiter.refresh(call.caller, now=time.monotonic())
    token = ask(call.actors.spawner, RefreshToken(caller=call.caller), timeout_s=ASK_S)
    return Answer(200, TokenRefreshed(token=token.text, expires_at=token.expires_at, timestamp=call.now))
