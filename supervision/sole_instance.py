"""Sole instance: only one sidecar on a machine may use an instance name.

A copy of a storage names the same agents as the original. Two sidecars, one for each, would both take the other's
processes for their own, and end those that they do not know.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from contextlib import suppress

from ..state.errors import StorageInUse

_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid

# A child that is just being started holds a copy of our socket until it runs its program.
_OURS_FOR_S = 1.0
_TRY_AGAIN_S = 0.005


class SoleInstance:
    """Holds an instance's name. name: the one held, from `take` to `release`. Except on Linux nothing is held."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._socket: socket.socket | None = None

    def take(self, instance_id: str) -> None:
        """Take the name, if it is not ours already. Raises StorageInUse, naming the process that has it."""
        if self.name == instance_id:
            return
        self.release()
        if sys.platform == "linux":
            self._socket = _taken(f"\0sidecar-{instance_id}")
        self.name = instance_id

    def release(self) -> None:
        self.name = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _taken(name: str) -> socket.socket | None:
    """Of the abstract kind: no file is left of it, and the kernel lets go of it when we die, however we die.

    None where the name is held by another user's process, which could not end our agents.
    """
    held = _bound(name)
    if held is not None:
        return held
    pid, uid = _holder_of(name)
    until = time.monotonic() + (_OURS_FOR_S if pid == os.getpid() else 0.0)
    while held is None and time.monotonic() < until:
        time.sleep(_TRY_AGAIN_S)
        held = _bound(name)
    if held is None and uid in (os.getuid(), 0):
        raise _in_use_by(pid)
    return held


def _bound(name: str) -> socket.socket | None:
    """None if the name is taken."""
    holds = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holds.bind(name)
        holds.listen(1)  # so that others can see whose it is
    except OSError:
        holds.close()
        return None
    return holds


def _holder_of(name: str) -> tuple[int, int]:
    """Process and user; process 0, and ourselves, where that cannot be seen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.settimeout(1.0)
        with suppress(OSError):  # it has ended meanwhile, or too many have asked
            other.connect(name)
            pid, uid, _ = _PEER.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            return pid, uid
    return 0, os.getuid()


def _in_use_by(pid: int) -> StorageInUse:
    by = f"process {pid}" if pid else "another process"
    return StorageInUse(
        f"this storage is a copy of one that {by} serves, and both name the same agents: stop that one, or make this"
        " one with `sidecar restore --copy`",
        pid=str(pid),
    )
