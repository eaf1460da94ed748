"""Sole instance: of all sidecars on this machine one alone goes by an instance's name.

A storage that was copied names the same agents as the original. Two sidecars that serve both would each take the
other's processes for its own, and end those that it does not know of.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import suppress

from ..state.errors import StorageInUse

_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class SoleInstance:
    """Raises StorageInUse, naming the process that goes by the name. Where there is no Linux nothing is held."""

    def __init__(self, instance_id: str) -> None:
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        # Of the abstract kind: no file is left of it, and the kernel lets go of it when we die, however we die.
        name = f"\0sidecar-{instance_id}"
        holds = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holds.bind(name)
            holds.listen(1)  # so that others can see whose it is
        except OSError:
            holds.close()
            _refuse_beside(name)
        else:
            self._socket = holds

    def release(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _refuse_beside(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.settimeout(1.0)
        pid, uid = 0, os.getuid()
        with suppress(OSError):  # it has ended meanwhile, or too many have asked
            other.connect(name)
            pid, uid, _ = _PEER.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid not in (os.getuid(), 0):
        return  # not a sidecar that could end our agents
    by = f"process {pid}" if pid else "another process"
    raise StorageInUse(
        f"this storage is a copy of one that {by} serves, and both name the same agents: stop that one, or make this"
        " one with `sidecar restore --copy`",
        pid=str(pid),
    )
