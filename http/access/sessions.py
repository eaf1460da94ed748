"""Sessions of browsers: a cookie instead of a token, and one-time codes that open a session. Pure, takes `now`.

Kept in memory: a restart of the sidecar logs everybody out. Only digests of cookies and codes are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from ...state.errors import PermissionDenied, Unauthorized
from ...state.identity import Caller

SESSION_S = 12 * 3600.0  # a working day, and never longer than the token it was opened with
IDLE_S = 3600.0  # the page asks every few seconds while it is visible
CODE_S = 60.0
MAX_SESSIONS = 256
MAX_CODES = 64

CSRF_HEADER = "X-CSRF-Token"
_SAFE_METHODS = frozenset({"GET", "HEAD"})

Header = Callable[[str], str | None]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One browser session.

    key: names the session in Sessions. csrf_token: proves that a write comes from our own page; no other can read it.
    """

    key: bytes
    caller: Caller
    csrf_token: str
    expires_at: datetime


class Sessions:
    """The open browser sessions. Used by every request thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        self._used_at: dict[bytes, datetime] = {}
        self._codes: dict[bytes, tuple[Caller, datetime]] = {}

    def open(self, caller: Caller, *, now: datetime) -> tuple[str, Session]:
        """A new session for `caller`, with the value of its cookie."""
        cookie = secrets.token_urlsafe(32)
        key = _digest(cookie)
        session = Session(
            key=key,
            caller=caller,
            csrf_token=secrets.token_urlsafe(32),
            expires_at=min(caller.expires_at, now + timedelta(seconds=SESSION_S)),
        )
        with self._lock:
            self._forget(now)
            self._sessions[key] = session
            self._used_at[key] = now
        return cookie, session

    def is_open(self, session: Session, *, now: datetime) -> bool:
        """Whether the session is open and has not expired. Asking does not extend it."""
        with self._lock:
            return session.key in self._sessions and not self._is_over(session.key, now)

    def good_until(self, session: Session) -> datetime:
        """The time at which the session expires if it is not used before."""
        with self._lock:
            used_at = self._used_at.get(session.key)
        if used_at is None:
            return datetime.min.replace(tzinfo=UTC)
        return min(session.expires_at, used_at + timedelta(seconds=IDLE_S))

    def find(self, cookie: str, *, now: datetime) -> Session | None:
        """The session of a cookie; None if it is over. To look it up counts as using it."""
        key = _digest(cookie)
        with self._lock:
            session = self._sessions.get(key)
            if session is None or self._is_over(key, now):
                return None
            self._used_at[key] = now
            return session

    def close(self, cookie: str) -> Session | None:
        """End a session and return it; None if there was none."""
        with self._lock:
            self._used_at.pop(_digest(cookie), None)
            return self._sessions.pop(_digest(cookie), None)

    def issue_code(self, caller: Caller, *, now: datetime) -> tuple[str, datetime]:
        """A code that opens one session for `caller`, and the time until which it works."""
        code, until = secrets.token_urlsafe(32), now + timedelta(seconds=CODE_S)
        with self._lock:
            self._forget(now)
            self._codes[_digest(code)] = (caller, until)
        return code, until

    def redeem(self, code: str, *, now: datetime) -> Caller:
        """Redeem a code: return its caller, once. Raises Unauthorized."""
        with self._lock:
            caller, until = self._codes.pop(_digest(code), (None, now))
        if caller is None or now >= until:
            raise Unauthorized("the login link was used already, or is older than a minute")
        return caller

    def _is_over(self, key: bytes, now: datetime) -> bool:
        is_idle = now - self._used_at[key] > timedelta(seconds=IDLE_S)
        return is_idle or now >= self._sessions[key].expires_at

    def _forget(self, now: datetime) -> None:
        """Drop sessions and codes that are over, and the oldest if there is no room for another."""
        over = [key for key in self._sessions if self._is_over(key, now)]
        for key in over or [*self._sessions][: max(0, len(self._sessions) - MAX_SESSIONS + 1)]:
            del self._sessions[key], self._used_at[key]
        worthless = [key for key, (_, until) in self._codes.items() if now >= until]
        for key in worthless or [*self._codes][: max(0, len(self._codes) - MAX_CODES + 1)]:
            del self._codes[key]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def cookie_name(header: Header) -> str:
    """The name of the session's cookie. It has the port in it: browsers share cookies between ports."""
    port = (header("Host") or "").rpartition(":")[2]
    return f"sidecar_session_{port}" if port.isascii() and port.isdigit() else "sidecar_session"


def cookie_of(header: Header) -> str | None:
    """The session cookie that a request carries."""
    wanted = cookie_name(header)
    for part in (header("Cookie") or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted and value:
            return value
    return None


def session_of(sessions: Sessions, header: Header, *, method: str, now: datetime) -> Session | None:
    """The session of a request from a browser; None for a request without a session cookie.

    Raises Unauthorized when the session is over, PermissionDenied for a request that another site sent, or a write
    without the session's CSRF token.
    """
    cookie = cookie_of(header)
    if cookie is None:
        return None
    require_same_origin(header)
    session = sessions.find(cookie, now=now)
    if session is None:
        raise Unauthorized("the session is over: log in again")
    given = header(CSRF_HEADER) or ""
    if method not in _SAFE_METHODS and not hmac.compare_digest(given.encode(), session.csrf_token.encode()):
        raise PermissionDenied("a write with a session needs its CSRF token", field=CSRF_HEADER)
    return session


def require_same_origin(header: Header) -> None:
    """Raises PermissionDenied for a request that a browser sent for another site, or for another port of this host.

    A browser sends a cookie of 127.0.0.1 to every port, even with SameSite, so the browser's own headers decide.
    """
    site, origin = header("Sec-Fetch-Site"), header("Origin")
    is_ours = site in (None, "same-origin", "none")
    if origin is not None:
        is_ours = is_ours and origin.partition("://")[2] == header("Host")
    if not is_ours:
        raise PermissionDenied("the request comes from another site", field="Origin")
