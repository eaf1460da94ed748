"""Backlog: counts the bytes that the server holds for connections, by account and in all, and says which to close.

There is one ledger of unread answers and one of unfinished request bodies. The memory of the server must not depend on
how fast its clients are, or how many of them never read.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection

MIB = 1 << 20
MAX_UNREAD_BYTES = 256 * MIB
MAX_UNREAD_BYTES_OF_ONE = 32 * MIB  # of one account, unless it is a single answer
MAX_INCOMING_BYTES = 128 * MIB

# How long a client may take: without reading anything at all, and for an answer as a whole.
STALLED_S = 30.0
WHOLE_ANSWER_S = 60.0
SLOWEST_BYTES_PER_S = 16 << 10


class Backlog:
    """One ledger, for the I/O thread. Bounds are in bytes. max_bytes_of_one: of one account that is named."""

    def __init__(self, *, max_bytes: int, max_bytes_of_one: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_one = max_bytes_of_one
        self._kept: dict[Hashable, dict[Connection, int]] = {}  # by account, the longest kept first
        self._of_account: dict[Hashable, int] = {}
        self._accounts: dict[Connection, Hashable] = {}
        self.bytes = 0

    def note(self, connection: Connection, count: int, account: Hashable) -> list[Connection]:
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

    def forget(self, connection: Connection) -> None:
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

    def _to_close(self, account: Hashable) -> list[Connection]:
        """The oldest connection of the account that is over its bound, else of the account with the most bytes."""
        closing: list[Connection] = []
        while (
            account is not None and self._of_account[account] > self._max_bytes_of_one and len(self._kept[account]) > 1
        ):
            closing.append(self._drop_oldest(account))
        while self.bytes > self._max_bytes and len(self._accounts) > 1:
            closing.append(self._drop_oldest(max(self._of_account, key=self._of_account.__getitem__)))
        return closing

    def _drop_oldest(self, account: Hashable) -> Connection:
        oldest = next(iter(self._kept[account]))
        self.forget(oldest)
        return oldest
