"""QuickStart: a prepared process that starts with one call, posix_spawn(3) of the C library.

It copies no page tables, can keep the GIL until the child runs its program, and takes a third of the CPU time of
`subprocess`, which knows neither of the three file actions that are needed here. What it cannot do, or fails to do, is
for `subprocess` to do, or to say why not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from .eager_calls import library
from .launch import Launch

# Source: <spawn.h> of glibc and of musl, which agree.
_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
_NEEDED = ("posix_spawn", "posix_spawn_file_actions_addchdir_np", "posix_spawn_file_actions_addclosefrom_np")
IS_POSSIBLE = sys.platform == "linux" and all(hasattr(library, name) for name in _NEEDED)  # glibc 2.34

_patient = ctypes.CDLL(None)  # lets go of the GIL during a call
_FIRST_OF_ITS_OWN = 3  # below it are the three standard descriptors
# The C library's structures are opaque, at most 336 bytes, and want the alignment of a pointer.
_Opaque = ctypes.c_uint64 * 128


class QuickStart:
    """stdin, stdout, stderr: open descriptors. Holds the strings that the C library is pointed to."""

    def __init__(self, launch: Launch, program: str, *, stdin: int, stdout: int, stderr: int) -> None:
        self._program = os.fsencode(program)
        self._argv = _strings(launch.argv)
        self._env = _strings([f"{name}={value}" for name, value in launch.env.items()])
        self._actions = _FileActions(os.fsencode(launch.cwd), (stdin, stdout, stderr))

    def start(self, *, at_once: bool) -> int | None:
        """The pid of the new process, which leads a session of its own; None if there is none.

        at_once: keep the GIL until the child runs its program, some half a millisecond. Where nobody waits for just
        this process, others had better use the time.
        """
        posix_spawn = library.posix_spawn if at_once else _patient.posix_spawn
        pid = ctypes.c_int()
        failed = posix_spawn(ctypes.byref(pid), self._program, self._actions.opaque, _attributes, self._argv, self._env)
        return None if failed else pid.value


class _FileActions:
    """The actions of a child before it runs its program. The C library's memory for them goes with this object."""

    def __init__(self, cwd: bytes, standard: tuple[int, int, int]) -> None:
        """Raises OSError when there is no memory for it."""
        self.opaque = _Opaque()
        failed = library.posix_spawn_file_actions_init(self.opaque)
        failed = failed or library.posix_spawn_file_actions_addchdir_np(self.opaque, cwd)
        for number, descriptor in enumerate(standard):
            failed = failed or library.posix_spawn_file_actions_adddup2(self.opaque, descriptor, number)
        failed = failed or library.posix_spawn_file_actions_addclosefrom_np(self.opaque, _FIRST_OF_ITS_OWN)
        if failed:
            raise OSError(failed, os.strerror(failed))

    def __del__(self) -> None:
        library.posix_spawn_file_actions_destroy(self.opaque)


def prepare(launch: Launch, *, stdin: int, stdout: int, stderr: int) -> QuickStart | None:
    """None where it takes `subprocess` to start this, or to say why it cannot be started."""
    texts = "".join((launch.cwd, *launch.argv, *launch.env, *launch.env.values()))
    if (
        not IS_POSSIBLE
        or launch.user is not None
        or min(stdin, stdout, stderr) < _FIRST_OF_ITS_OWN  # it would be overwritten before it is used
        or "\0" in texts
        or "=" in "".join(launch.env)  # in the names
    ):
        return None
    program = _program(launch)
    if program is None:
        return None
    try:
        return QuickStart(launch, program, stdin=stdin, stdout=stdout, stderr=stderr)
    except (OSError, ValueError):  # no memory; or a text that cannot be written in the file system's encoding
        return None


def _program(launch: Launch) -> str | None:
    """Where the command lies, by the PATH that it will have, and seen from the folder in which it will run."""
    name = launch.argv[0]
    if "/" in name:
        return name
    folders = os.get_exec_path(launch.env)
    if not all(folder.startswith("/") for folder in folders):
        return None
    return next((path for folder in folders if os.access(path := f"{folder}/{name}", os.X_OK)), None)


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    together = os.fsencode("\0".join(texts)).split(b"\0")  # many times faster than each by itself
    return (ctypes.c_char_p * (len(together) + 1))(*together, None)


def _made_attributes() -> ctypes.Array[ctypes.c_uint64]:
    """Attributes for a session of its own, with no signal blocked or ignored, whatever the sidecar has set."""
    attributes, signals = _Opaque(), _Opaque()
    library.sigfillset(signals)
    for number in (signal.SIGKILL, signal.SIGSTOP):  # nobody can ignore these
        library.sigdelset(signals, number)
    library.posix_spawnattr_init(attributes)
    library.posix_spawnattr_setsigdefault(attributes, signals)
    library.sigemptyset(signals)
    library.posix_spawnattr_setsigmask(attributes, signals)
    library.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSID | _SETSIGDEF | _SETSIGMASK))
    return attributes


_attributes = _made_attributes() if IS_POSSIBLE else _Opaque()
