"""Wire names of browser sessions: how an operator logs in to the dashboard."""

from __future__ import annotations

import msgspec

from .codec import Body, Nothing, Timed
from .shapes import Moment


class LoginQuery(Nothing, frozen=True, kw_only=True):
    """The query of the page that logs in.

    code: used by the page, not by the server.
    """

    code: str = ""


class LogIn(Body, frozen=True, kw_only=True):
    """One of the two: an operator's token, or a one-time code."""

    token: str | None = None
    code: str | None = None


class SessionOut(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's session, as its page gets it.

    csrf_token: required as X-CSRF-Token in every write from the browser.
    """

    agent_id: str
    agent_type: str
    project_id: str
    expires_at: Moment
    csrf_token: str


class SessionShown(Timed, frozen=True, kw_only=True):
    """Who is logged in.

    session: null if nobody is logged in.
    """

    session: SessionOut | None


class LoginCodeOut(Timed, frozen=True, kw_only=True):
    """A code that logs a browser in.

    code: works once, until expires_at. path: open it in a browser, after the server's address.
    """

    code: str
    path: str
    expires_at: Moment


class SessionEnded(Timed, frozen=True, kw_only=True):
    """The answer to a log-out."""

    ended: bool
