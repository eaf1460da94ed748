"""A client of the sidecar of one storage, wherever that listens after it was restarted."""

from __future__ import annotations

from pathlib import Path

from ..client.calls import Calls
from ..client.client import Client
from ..client.retry import ONE_ATTEMPT
from ..client.vouching import SidecarCheck
from ..storage import announced_url


class LocalClient(Client):
    """A Client that found its sidecar by the storage; each server that it is sent to must prove to be that one."""

    def __init__(self, url: str, token: str, check: SidecarCheck, storage: Path) -> None:
        super().__init__(url, token, retries=ONE_ATTEMPT, check=check)
        self._storage = storage

    def find_again(self) -> None:
        """Go on where the sidecar of the storage listens now, which with `--port 0` is elsewhere each time."""
        url = announced_url(self._storage)
        if url is not None and url != self.url:
            self.move_to(url)


def find_again(client: Calls) -> None:
    """Look where the client's sidecar listens now; one that was named by its URL stays there."""
    if isinstance(client, LocalClient):
        client.find_again()
