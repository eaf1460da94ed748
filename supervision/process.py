"""The hand that touches the operating system for one process: start it, name it for ever, signal it, see how it ended.

Signals go through a pidfd, so they never reach a process that got the same pid. Nothing here decides.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import struct
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from ..state.errors import SpawnFailed
from ..state.models import ProcessIdentity
from . import eager_calls as eager
from . import quick_start
from .known_state import give_limit_of_the_start, limit_of_the_start
from .launch import OF_THE_ACCOUNT, Launch
from .process_table import HAS_PROC, TICKS_PER_S, fields_of_stat, has_ended

log = logging.getLogger(__name__)


def _knows_pidfds() -> bool:
    """Linux before 5.3 has the call in the library only, and a sandbox may refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux"


HAS_PIDFD = _knows_pidfds()

_LOG_MODE = 0o600
_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_SIGNAL_WHOLE_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_GET_INFO = 0xC040FF0B  # ioctl PIDFD_GET_INFO with a struct of 64 bytes, Linux 6.13
_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_EXIT_CODE_AT = 60  # offset of exit_code in struct pidfd_info
_STAT_START_TICKS, _STAT_EXIT_CODE = 22 - 3, 52 - 3  # fields of /proc/PID/stat, from the third on

_MAX_INTERPRETER_LINE = 256  # BINPRM_BUF_SIZE of Linux

# Agents should be killed before the sidecar when memory runs out. Raising one's own child's value needs no privilege.
_OOM_SCORE_ADJ = b"500"


class ExitStatus(msgspec.Struct, frozen=True):
    """How a process ended: one of both, or neither where nobody could see it."""

    exit_code: int | None = None
    signal: int | None = None


class StartedProcess(msgspec.Struct, frozen=True):
    identity: ProcessIdentity
    pidfd: int | None


@cache
def boot_id() -> str:
    """Names this boot of the machine; pids and monotonic times of another one mean nothing."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    from . import portable_processes

    return portable_processes.boot_id()


def identity_of(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now; None when there is none, or only a zombie."""
    ticks = _start_ticks(pid)
    return ProcessIdentity(boot_id(), pid, ticks) if ticks is not None and not _is_zombie(pid) else None


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
        """So that a process of that user may open what it writes to once more, as scripts do with /dev/stderr."""
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
        return StartedProcess(ProcessIdentity(boot_id(), pid, _start_ticks(pid) or 0), pidfd)

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


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly this process, zombie or not; None when it is gone or the platform has none."""
    if not HAS_PIDFD or identity.boot_id != boot_id():
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    # Checked after opening: from here on the descriptor means one process whatever becomes of the pid.
    if _start_ticks(identity.pid) == identity.start_ticks:
        return pidfd
    os.close(pidfd)
    return None


def age_s(identity: ProcessIdentity) -> float:
    """For how many seconds it has been there."""
    if not HAS_PROC:
        from . import portable_processes

        return portable_processes.age_s(identity.start_ticks)
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_ticks / TICKS_PER_S)


def is_alive(identity: ProcessIdentity) -> bool:
    return identity_of(identity.pid) == identity


def send_signal(identity: ProcessIdentity, number: int) -> bool:
    """Signal exactly this process; False when it is gone. Raises PermissionError when it is another user's."""
    if not HAS_PIDFD:
        if not is_alive(identity):
            return False
        with suppress(ProcessLookupError):
            os.kill(identity.pid, number)
            return True
        return False
    pidfd = open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)  # type: ignore[attr-defined,unused-ignore]  # Linux only
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def signal_group(pidfd: int | None, pid: int, number: int) -> None:
    """Signal the process group that `pid` leads. Only while the leader is not reaped: that pins the number."""
    try:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, number, None, _SIGNAL_WHOLE_GROUP)  # type: ignore[attr-defined,unused-ignore]
            return
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a kernel before 6.9 knows no such flag
            return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def reap(pid: int) -> ExitStatus | None:
    """How our own child ended, and let the kernel forget it; None when it still runs. Raises ChildProcessError when
    it is not our child, or when someone else reaped it."""
    status = eager.waited(pid)
    return None if status is None else _status_of(status)


def end_of_child(pid: int) -> ExitStatus | None:
    """As `reap`, but the kernel does not forget it: that takes as long again, and can wait."""
    end = eager.end_of_child(pid)
    if end is None:
        return None
    code, status = end
    return ExitStatus(exit_code=status) if code == os.CLD_EXITED else ExitStatus(signal=status)


def exit_of_stranger(identity: ProcessIdentity, pidfd: int) -> ExitStatus:
    """How a process that is not our child ended. Empty where that cannot be seen, or not until its parent reaps it."""
    return _exit_of_zombie(identity) or _exit_of_reaped(pidfd) or ExitStatus()


def _exit_of_zombie(identity: ProcessIdentity) -> ExitStatus | None:
    """Not reaped yet: an init may take seconds for that."""
    fields = _stat_of(identity.pid)
    if len(fields) <= _STAT_EXIT_CODE or fields[0] != b"Z" or int(fields[_STAT_START_TICKS]) != identity.start_ticks:
        return None
    try:
        # The kernel shows the status to those who may look at this link, too, and 0 to all others.
        Path(f"/proc/{identity.pid}/ns/user").readlink()
    except OSError:
        return None
    return _status_of(int(fields[_STAT_EXIT_CODE]))


def _exit_of_reaped(pidfd: int) -> ExitStatus | None:
    """Linux 6.15."""
    info = bytearray(64)
    struct.pack_into("Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    (mask,) = struct.unpack_from("Q", info, 0)
    (status,) = struct.unpack_from("i", info, _EXIT_CODE_AT)
    return _status_of(status) if mask & _INFO_EXIT else None


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot; 0 where it does not say."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_bytes().splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _start_ticks(pid: int) -> int | None:
    if not HAS_PROC:
        from . import portable_processes

        return portable_processes.start_ticks(pid)
    fields = _stat_of(pid)
    return int(fields[_STAT_START_TICKS]) if len(fields) > _STAT_START_TICKS else None


def _is_zombie(pid: int) -> bool:
    if not HAS_PROC:
        from . import portable_processes

        return portable_processes.is_zombie(pid)
    fields = _stat_of(pid)
    return not fields or has_ended(fields)


def _stat_of(pid: int) -> list[bytes]:
    """Fields from the third on; none where there is no such process."""
    return fields_of_stat(eager.read_small(f"/proc/{pid}/stat") or b")")


def _status_of(status: int) -> ExitStatus:
    if os.WIFSIGNALED(status):
        return ExitStatus(signal=os.WTERMSIG(status))
    return ExitStatus(exit_code=os.WEXITSTATUS(status))


@cache
def _nothing() -> int:
    """/dev/null, opened once."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _account_of(launch: Launch) -> dict[str, Any]:
    """The account that the process runs as, and its environment. Raises KeyError when there is no such user."""
    if launch.user is None:
        return {"env": launch.env}
    import pwd

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
    import shutil  # only for programs that cannot be run; without it all others start sooner

    found = shutil.which(launch.argv[0], path=launch.env.get("PATH")) if "/" not in launch.argv[0] else launch.argv[0]
    try:
        with (Path(launch.cwd) / (found or launch.argv[0])).open("rb") as program:
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
