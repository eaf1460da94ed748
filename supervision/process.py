"""Starts one process, prepared in advance as far as possible. Makes no decisions."""

from __future__ import annotations

import errno
import logging
import os
import pwd
import signal
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from ..state.errors import SpawnFailed
from ..state.models import ProcessIdentity
from . import eager_calls as eager
from . import process_table, quick_start
from .known_state import give_limit_of_the_start, limit_of_the_start
from .launch import OF_THE_ACCOUNT, Launch
from .process_identity import HAS_PIDFD, boot_id

log = logging.getLogger(__name__)

_LOG_MODE = 0o600
_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

_MAX_INTERPRETER_LINE = 256  # BINPRM_BUF_SIZE of Linux

# Agents should be killed before the sidecar when memory runs out. Raising one's own child's value needs no privilege.
_OOM_SCORE_ADJ = b"500"


class StartedProcess(msgspec.Struct, frozen=True):
    """A process that was started or found. pidfd: open; None where the platform has none."""

    identity: ProcessIdentity
    pidfd: int | None


class LogFiles:
    """The two files a process writes to, open: so that the next one can be started without asking the disk."""

    def __init__(self, stdout: Path, stderr: Path) -> None:
        """Raises SpawnFailed naming the file that cannot be opened."""
        self._descriptors: list[int] = []
        try:
            for path in (stdout, stderr):
                self._descriptors.append(os.open(path, _LOG_FLAGS, _LOG_MODE))
        except OSError as error:
            self.close()
            raise SpawnFailed(f"log file {_shown(error.filename)} cannot be opened: {error.strerror}") from error

    @property
    def stdout(self) -> int:
        return self._descriptors[0]

    @property
    def stderr(self) -> int:
        return self._descriptors[1]

    def ends(self) -> tuple[int, int]:
        """How long they are."""
        return eager.end_of(self.stdout), eager.end_of(self.stderr)

    def give_to(self, uid: int) -> None:
        """Give the files to a user, whose process may then open them again, as scripts do with /dev/stderr."""
        for descriptor in self._descriptors:
            with suppress(PermissionError):  # who may switch users may perhaps not do this; it can write all the same
                os.fchown(descriptor, uid, -1)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


class Prepared:
    """A process that is ready to start: its log files are open, and everything possible is prepared."""

    def __init__(self, launch: Launch, logs: LogFiles) -> None:
        self._launch = launch
        self._logs = logs
        self._quick = quick_start.prepare(launch, stdin=_nothing(), stdout=logs.stdout, stderr=logs.stderr)

    def start(self, *, at_once: bool = False) -> StartedProcess:
        """Run it in a session of its own, its output straight to the log files: no pipe that could break or fill.

        at_once: keep the GIL until it runs. Raises SpawnFailed naming what could not be run.
        """
        pid = None
        if self._quick is not None:
            with limit_of_the_start(keeps_gil=at_once) as has_limit:
                pid = self._quick.start(at_once=at_once)
        if pid is None:
            with limit_of_the_start(keeps_gil=False) as has_limit:
                pid = self._start_the_long_way()
        try:
            pidfd = os.pidfd_open(pid) if HAS_PIDFD else None
        except OSError as error:  # no descriptor is left; what could not be seen to end must not run
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise SpawnFailed(f"{_shown(self._launch.argv[0])} cannot be watched: {error.strerror}") from error
        if not has_limit:
            give_limit_of_the_start(pid)
        # The process may have ended already, or the kernel may have no such file.
        eager.write_small(f"/proc/{pid}/oom_score_adj", _OOM_SCORE_ADJ)
        # It cannot be gone, for only we reap it; a zombie still shows when it started.
        return StartedProcess(ProcessIdentity(boot_id(), pid, process_table.start_ticks(pid) or 0), pidfd)

    def _start_the_long_way(self) -> int:
        """Never preexec_fn: it costs a copy of our page tables."""
        import subprocess  # seldom needed, and the start of an agent waits for what is imported

        launch = self._launch
        try:
            account = _account_of(launch)
            if "user" in account:
                self._logs.give_to(account["user"])
            child = subprocess.Popen(
                launch.argv,
                cwd=launch.cwd,
                stdin=_nothing(),
                stdout=self._logs.stdout,
                stderr=self._logs.stderr,
                start_new_session=True,
                close_fds=True,
                **account,
            )
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            log.warning("process not started argv0=%s cwd=%s: %s", launch.argv[0], launch.cwd, error)
            raise SpawnFailed(_why_not_started(launch, error)) from error
        # The exit is seen and reaped elsewhere; with a returncode set, Popen neither warns nor reaps behind our back.
        child.returncode = 0
        return child.pid


@cache
def _nothing() -> int:
    """/dev/null, opened once."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _account_of(launch: Launch) -> dict[str, Any]:
    """The account that the process runs as, and its environment. Raises KeyError when there is no such user."""
    if launch.user is None:
        return {"env": launch.env}
    entry = pwd.getpwnam(launch.user)
    own = dict(zip(OF_THE_ACCOUNT, (entry.pw_dir, launch.user, launch.user, entry.pw_shell), strict=True))
    return {
        "user": entry.pw_uid,
        "group": entry.pw_gid,
        "extra_groups": os.getgrouplist(launch.user, entry.pw_gid),
        "env": own | launch.env,
    }


def _why_not_started(launch: Launch, error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no user {launch.user}"
    # A program or folder that the user may not use is EACCES.
    if isinstance(error, OSError) and error.errno == errno.EPERM and launch.user is not None:
        return f"the sidecar may not switch to user {launch.user}"
    if isinstance(error, OSError) and error.filename == launch.cwd:
        return f"folder {_shown(launch.cwd)} cannot be entered: {error.strerror}"
    if isinstance(error, OSError):
        program = error.filename or launch.argv[0]
        missing = _missing_interpreter(launch) if error.errno == errno.ENOENT else None
        return f"{_shown(program)} cannot be run: {missing or error.strerror}"
    return f"{_shown(launch.argv[0])} cannot be run: {error}"


def _missing_interpreter(launch: Launch) -> str | None:
    """The missing loader or interpreter of a program that exists; None if the program itself is missing."""
    name = launch.argv[0]
    if "/" not in name:
        paths = (f"{folder}/{name}" for folder in os.get_exec_path(launch.env))
        name = next((path for path in paths if os.access(path, os.X_OK)), name)
    try:
        with (Path(launch.cwd) / name).open("rb") as program:
            first_line = program.readline(_MAX_INTERPRETER_LINE)
    except OSError:
        return None
    if not first_line.startswith(b"#!"):
        return "the loader that it names is missing"
    interpreter = first_line[2:].strip(b" \t\n").partition(b" ")[0].decode("utf-8", "replace")
    return f"its first line names the interpreter {interpreter!r}, which is missing"


def _shown(path: str) -> str:
    """Agents read what could not be started, and are not to learn where things lie outside the project."""
    return (Path(path).name or path) if Path(path).is_absolute() else path
