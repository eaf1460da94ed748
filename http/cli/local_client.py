"""A client of one storage's sidecar, which follows it to another address after a restart."""

from __future__ import annotations

from pathlib import Path

from ..client.client import Client
from ..client.retry import ONE_ATTEMPT
from ..client.vouching import SidecarCheck
from ..storage import announced_url


class LocalClient(Client):
    """A Client that finds its sidecar by the storage; each server must first prove to be that sidecar."""

    def __init__(self, url: str, token: str, check: SidecarCheck, storage: Path) -> None:
        super().__init__(url, token, retries=ONE_ATTEMPT, check=check)
        self._storage = storage

    def find_again(self) -> None:
        """Go on at the sidecar's present address, which with `--port 0` changes at each start."""
        url = announced_url(self._storage)
        if url is not None and url != self.url:
            self.move_to(url)


def find_again(client: Client) -> None:
    """Move a client to the sidecar's present address; a client with a URL of its own stays there."""
    if isinstance(client, LocalClient):
        client.find_again()
