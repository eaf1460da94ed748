"""Routes of the dashboard's login: open a session with an operator's token or a one-time code, and end it."""

from __future__ import annotations

from ...state.errors import InvalidRequest, TokenExpired, Unauthorized
from ...state.identity import Permission
from ..access.auth import require
from ..access.sessions import Session, cookie_name, cookie_of, require_same_origin, session_of
from ..routing import KIB, Answer, Call, Route, Routes
from ..wire.codec import Nothing
from ..wire.sessions import LogIn, LoginCodeOut, SessionEnded, SessionOut, SessionShown

routes = Routes()

_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


@routes.add(
    Route(
        "POST",
        "/api/auth/login",
        access="open",
        body=LogIn,
        max_body_bytes=16 * KIB,
        status=201,
        answers=SessionShown,
        errors=(Unauthorized, TokenExpired),
    )
)
def log_in(call: Call[LogIn, Nothing]) -> Answer:
    """Open a browser session with an operator's token or a one-time code; the answer sets its cookie."""
    require_same_origin(call.header)
    token, code = call.body.token, call.body.code
    if token is not None and code is None:
        caller = call.server.authenticator.caller(f"Bearer {token}")
    elif code is not None and token is None:
        caller = call.server.sessions.redeem(code, now=call.now)
    else:
        raise InvalidRequest("the body names neither or both", field="token", expected="either token or code")
    require(caller, Permission.ADMIN)
    cookie, session = call.server.sessions.open(caller, now=call.now)
    set_cookie = f"{cookie_name(call.header)}={cookie}; {_ATTRIBUTES}"
    return Answer(201, SessionShown(session=_shown(session), timestamp=call.now), (("Set-Cookie", set_cookie),))


@routes.add(Route("GET", "/api/auth/session", access="open", answers=SessionShown))
def show_session(call: Call[Nothing, Nothing]) -> Answer:
    """Get the browser's session and its end. Without a session this is no error."""
    try:
        session = session_of(call.server.sessions, call.header, method="GET", now=call.now)
        if session is not None:
            call.server.authenticator.recheck(session.caller)
    except (Unauthorized, TokenExpired):
        session = None
    shown = _shown(session) if session is not None else None
    return Answer(200, SessionShown(session=shown, timestamp=call.now))


@routes.add(Route("DELETE", "/api/auth/session", answers=SessionEnded))
def log_out(call: Call[Nothing, Nothing]) -> Answer:
    """End the browser session; its cookie is no longer valid."""
    cookie = cookie_of(call.header)
    session = call.server.sessions.close(cookie) if cookie is not None else None
    if session is not None:
        call.server.holds.logged_out(session.key)
    gone = (("Set-Cookie", f"{cookie_name(call.header)}=; Max-Age=0; {_ATTRIBUTES}"),)
    return Answer(200, SessionEnded(ended=session is not None, timestamp=call.now), gone)


@routes.add(Route("POST", "/api/auth/login-codes", needs=Permission.ADMIN, status=201, answers=LoginCodeOut))
def issue_login_code(call: Call[Nothing, Nothing]) -> Answer:
    """Create a code that opens one browser session within a minute, so that no token is put into a URL."""
    code, until = call.server.sessions.issue_code(call.caller, now=call.now)
    return Answer(201, LoginCodeOut(code=code, path=f"/login?code={code}", expires_at=until, timestamp=call.now))


def _shown(session: Session) -> SessionOut:
    caller = session.caller
    return SessionOut(
        agent_id=caller.agent_id,
        agent_type=caller.agent_type,
        project_id=caller.project_id,
        expires_at=session.expires_at,
        csrf_token=session.csrf_token,
    )
