"""Keeps an agent alive next to its work: sends heartbeats, and renews its token before it expires."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

from ...state.errors import ConfigError, NotFound, SidecarError
from .api import Api
from .connections import BlockingConnections
from .token import holder_of

log = logging.getLogger(__name__)

# Early enough that a sidecar which is down for a while is back before the token expires.
_REFRESH_AT = 0.75
_TRY_AGAIN_AFTER_S = 15.0


def refresh_in_s(issued_at: datetime, expires_at: datetime, *, now: datetime) -> float:
    """Seconds until a token should be exchanged: when three quarters of its life have passed."""
    due = issued_at + (expires_at - issued_at) * _REFRESH_AT
    return max(0.0, (due - now).total_seconds())


class Upkeep:
    """One daemon thread; it never ends the agent: what fails is logged and tried again.

    heartbeat_s: pause between heartbeats, 0 for none. A token that is not a sidecar's is left as it is.
    """

    def __init__(self, api: Api, connections: BlockingConnections, *, agent_id: str, heartbeat_s: float) -> None:
        self._api = api
        self._connections = connections
        self._agent_id = agent_id
        self._heartbeat_s = heartbeat_s
        self._ending = threading.Event()
        now = time.monotonic()
        self._heartbeat_due = now + heartbeat_s if heartbeat_s > 0 else None
        self._refresh_due: float | None = None
        try:
            holder = holder_of(api.token or "")
        except ConfigError as error:
            log.warning("the token is not kept fresh: %s", error)
        else:
            self._refresh_due = now + refresh_in_s(holder.issued_at, holder.expires_at, now=datetime.now(UTC))
        self._thread = threading.Thread(target=self._run, name="sidecar-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()

    def _run(self) -> None:
        while True:
            dues = [due for due in (self._heartbeat_due, self._refresh_due) if due is not None]
            if not dues or self._ending.wait(max(0.0, min(dues) - time.monotonic())):
                return
            now = time.monotonic()
            if self._heartbeat_due is not None and self._heartbeat_due <= now:
                self._heartbeat()
            if self._refresh_due is not None and self._refresh_due <= now:
                self._refresh()

    def _heartbeat(self) -> None:
        self._heartbeat_due = time.monotonic() + self._heartbeat_s
        try:
            self._connections.run(self._api.heartbeat(self._agent_id))
        except NotFound:
            log.debug("no heartbeats: the sidecar does not supervise this agent agent_id=%s", self._agent_id)
            self._heartbeat_due = None
        except SidecarError as error:
            log.warning("heartbeat failed agent_id=%s: %s", self._agent_id, error)

    def _refresh(self) -> None:
        try:
            expires_at = self._connections.run(self._api.refresh_token())
        except SidecarError as error:
            log.warning("token not refreshed agent_id=%s: %s", self._agent_id, error)
            self._refresh_due = time.monotonic() + _TRY_AGAIN_AFTER_S
        else:
            now = datetime.now(UTC)
            self._refresh_due = time.monotonic() + refresh_in_s(now, expires_at, now=now)
