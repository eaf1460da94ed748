"""Where a server is reached, from where it listens."""

from __future__ import annotations


def url_of(host: str, port: int) -> str:
    """The URL for clients on this machine, also of a server that listens everywhere."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
