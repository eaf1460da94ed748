"""Backlog: counts the bytes that the server holds for connections, by account and in all, and says which to close.

There is one ledger of unread answers and one of unfinished request bodies. The memory of the server must not depend on
how fast its clients are, or how many of them never read.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from .deadlines import monotonic_s

C = TypeVar("C", bound=Hashable)  # a connection

MIB = 1 << 20
MAX_UNREAD_BYTES = 256 * MIB
MAX_UNREAD_BYTES_OF_ONE = 32 * MIB  # of one account, unless it is a single answer
MAX_INCOMING_BYTES = 128 * MIB

# How long a client may take: without reading anything at all, and for an answer as a whole.
STALLED_S = 30.0
WHOLE_ANSWER_S = 60.0
SLOWEST_BYTES_PER_S = 16 << 10


class Backlog(Generic[C]):
    """One ledger, for the I/O thread. Bounds are in bytes. max_bytes_of_one: of one account that is named."""

    def __init__(self, *, max_bytes: int, max_bytes_of_one: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_one = max_bytes_of_one
        self._kept: dict[Hashable, dict[C, int]] = {}  # by account, the longest kept first
        self._of_account: dict[Hashable, int] = {}
        self._accounts: dict[C, Hashable] = {}
        self.bytes = 0

    def note(self, connection: C, count: int, account: Hashable) -> list[C]:
        """Set the bytes of a connection; return the connections that have to be closed for it."""
        if connection in self._accounts and self._accounts[connection] != account:
            self.forget(connection)
        of_account = self._kept.setdefault(account, {})
        change = count - of_account.get(connection, 0)
        of_account[connection] = count
        self._accounts[connection] = account
        self._of_account[account] = self._of_account.get(account, 0) + change
        self.bytes += change
        return self._to_close(account)

    def forget(self, connection: C) -> None:
        """Forget a connection."""
        if connection not in self._accounts:
            return
        account = self._accounts.pop(connection)
        of_account = self._kept[account]
        count = of_account.pop(connection)
        self.bytes -= count
        self._of_account[account] -= count
        if not of_account:
            del self._kept[account], self._of_account[account]

    def _to_close(self, account: Hashable) -> list[C]:
        """The oldest connection of the account that is over its bound, else of the account with the most bytes."""
        closing: list[C] = []
        while (
            account is not None and self._of_account[account] > self._max_bytes_of_one and len(self._kept[account]) > 1
        ):
            closing.append(self._drop_oldest(account))
        while self.bytes > self._max_bytes and len(self._accounts) > 1:
            closing.append(self._drop_oldest(max(self._of_account, key=self._of_account.__getitem__)))
        return closing

    def _drop_oldest(self, account: Hashable) -> C:
        oldest = next(iter(self._kept[account]))
        self.forget(oldest)
        return oldest


class Held(Generic[C]):
    """What the server holds for one connection, as noted in the two ledgers: unread answers and unfinished requests."""

    __slots__ = (
        "_connection",
        "_incoming",
        "_most_unread",
        "_unread",
        "_unread_since",
        "incoming_bytes",
        "unread_bytes",
    )

    def __init__(self, connection: C, *, unread: Backlog[C], incoming: Backlog[C]) -> None:
        self._connection = connection
        self._unread = unread
        self._incoming = incoming
        self.unread_bytes = 0
        self.incoming_bytes = 0
        self._unread_since = 0.0
        self._most_unread = 0

    def note_unread(self, count: int, account: Hashable) -> list[C]:
        """Set the bytes of answers that the client has not read; return the connections to close for it."""
        if count and not self.unread_bytes:
            self._unread_since, self._most_unread = monotonic_s(), 0
        if count == self.unread_bytes:
            return []
        self.unread_bytes = count
        self._most_unread = max(self._most_unread, count)
        return self._note(self._unread, count, account)

    def note_incoming(self, count: int) -> list[C]:
        """Set the bytes of requests that are not served yet; return the connections to close for it."""
        if count == self.incoming_bytes:
            return []
        self.incoming_bytes = count
        return self._note(self._incoming, count, None)

    def _note(self, ledger: Backlog[C], count: int, account: Hashable) -> list[C]:
        if count:
            return ledger.note(self._connection, count, account)
        ledger.forget(self._connection)
        return []

    def forget(self) -> None:
        """Take the connection out of both ledgers: it is closed."""
        self._unread.forget(self._connection)
        self._incoming.forget(self._connection)

    def is_read_too_slowly(self, silent_for_s: float, *, is_endless: bool) -> bool:
        """Whether the client has stopped reading an answer, or reads it too slowly. is_endless: it is a stream."""
        if not self.unread_bytes:
            return False
        may_take_s = WHOLE_ANSWER_S + self._most_unread / SLOWEST_BYTES_PER_S
        is_slow = not is_endless and monotonic_s() - self._unread_since > may_take_s
        return silent_for_s > STALLED_S or is_slow
