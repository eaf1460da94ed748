"""The one door to git: runs one command, with an empty environment and a fixed PATH.

GitPython only runs commands; its objects are not used: `commit.stats` or `tree.traverse()` cost 10 to 90 times as
much. Nothing here reads a repository's own configuration: `shadow.py` makes the git directory that commands use.
"""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

# Without this, the import of GitPython fails where there is no git. The answer should say that instead.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from git.cmd import Git
from git.exc import GitCommandNotFound

TIMEOUT_S = 20.0  # `status` of 50,000 files on a cold disk takes about 5 s
MAX_WORDS = 300  # characters of what git said about a failure
MAX_OUTPUT = 64 << 20  # bytes of one command: the list of 200,000 files takes 24 MB
MAX_MEMORY = 768 << 20  # bytes of one command, not counting the packs it maps; `status` of 200,000 files takes 150 MB
_MAX_SAID = 64 << 10
_NO_MEMORY = ("ut of memory", "unable to create thread", "Cannot allocate memory", "mmap failed")
_TOO_LONG = "time"
PATH = "/usr/local/bin:/usr/bin:/bin"
NO_REPOSITORY = {"GIT_DIR": os.devnull}  # otherwise git would look for a repository above the folder it runs in

_ENVIRONMENT = {
    "PATH": PATH,
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",  # otherwise `status` takes index.lock, and the agents' own git commands fail
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    # An object that a partial clone lacks is not fetched.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}
NO_CONFIGURATION = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


class GitUnavailable(Exception):
    """There is no git, or a command failed or took too long. The text names no path of this machine.

    output: what the command printed before it failed.
    """

    def __init__(self, text: str, output: bytes = b"") -> None:
        super().__init__(text)
        self.output = output


class GitStalled(GitUnavailable):
    """A command took too long and was killed."""


def run_git(
    *words: str,
    at: Path,
    environment: Mapping[str, str],
    stdin: BinaryIO | None = None,
    names: Mapping[str, str] | None = None,
) -> bytes:
    """Run a git command and return its output. Raises GitUnavailable with git's error output.

    at: the folder it runs in. environment: added to the few variables that every command gets; none is inherited.
    names: for paths that git's error output may contain, the text that replaces each in the error.
    """
    program, env = find_program("git"), shutil.which("env", path=PATH)
    if program is None or env is None:
        raise GitUnavailable(f"{'git' if program is None else 'env'} was not found on the sidecar's PATH: install it")
    variables = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **environment}.items()]
    command = [env, "-i", *variables, program, "--no-pager", *words]
    try:
        # GitPython can only add to the environment of the sidecar, where GIT_DIR and its like may be set.
        process = Git(str(at)).execute(command, istream=stdin, as_process=True)
    except GitCommandNotFound as error:
        raise GitUnavailable("git cannot be run") from error
    except (OSError, ValueError) as error:
        raise GitUnavailable(f"git could not be run: {type(error).__name__}") from error
    _bound_memory(process)
    ended = _until_it_ends(process)
    if ended.status == 0:
        return ended.output
    if ended.why == _TOO_LONG:
        raise GitStalled(f"git {words[0]} took longer than {TIMEOUT_S:g} s", ended.output)
    why = ended.why or _lack_of_memory(ended.said) or _in_public(ended.said, names or {}) or f"exit code {ended.status}"
    raise GitUnavailable(f"git {words[0]}: {why}", ended.output)


def _bound_memory(process: Any) -> None:
    """Limit the memory of a command and of every process that it starts: a tree of a few kilobytes can make git use
    gigabytes.

    Only Linux can limit another process. The command already runs by then, but too briefly to have used much.
    """
    if not hasattr(resource, "prlimit"):
        return
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    bound = MAX_MEMORY if most == resource.RLIM_INFINITY else min(MAX_MEMORY, most)
    with suppress(ProcessLookupError):  # it has ended already
        resource.prlimit(process.proc.pid, resource.RLIMIT_DATA, (bound, bound))


def _lack_of_memory(said: str) -> str:
    """The reason, if git's error output says that it ran out of memory; otherwise empty."""
    if not any(words in said for words in _NO_MEMORY):
        return ""
    return f"it needs more than {MAX_MEMORY >> 20} MiB of memory, which is the most that a command may take"


class _Ended(NamedTuple):
    """A command that has ended. said: the start of its standard error. why: why we killed it, or empty."""

    status: int
    output: bytes
    said: str
    why: str


def _until_it_ends(process: Any) -> _Ended:
    """Read the output of a command until it ends. It is killed after TIMEOUT_S, or if it prints more than MAX_OUTPUT.

    A repository of a few kilobytes can make git print gigabytes: objects are compressed, and many trees may contain the
    same tree.
    """
    why: list[str] = []
    said: list[bytes] = []

    def end(reason: str) -> None:
        why.append(reason)
        process.proc.kill()

    alarm = threading.Timer(TIMEOUT_S, end, (_TOO_LONG,))
    listener = threading.Thread(target=_drain, args=(process.stderr, said), name="context-git-said", daemon=True)
    alarm.start()
    listener.start()
    try:
        output = process.stdout.read(MAX_OUTPUT)
        if process.stdout.read(1):
            end(f"it printed more than {MAX_OUTPUT >> 20} MiB")
        status = process.proc.wait()
        listener.join()
    finally:
        alarm.cancel()
        process.stdout.close()
        process.stderr.close()
    return _Ended(status, output, b"".join(said).decode("utf-8", "replace"), why[0] if why and status else "")


def _drain(source: BinaryIO, said: list[bytes]) -> None:
    """Keep the start of the output and read the rest away: a full pipe would block the writer."""
    said.append(source.read(_MAX_SAID))
    while source.read(_MAX_SAID):
        continue


def find_program(name: str) -> str | None:
    """The absolute path of a program on the sidecar's own PATH; relative folders in PATH are ignored."""
    folders = [folder for folder in os.environ.get("PATH", PATH).split(os.pathsep) if folder.startswith("/")]
    return shutil.which(name, path=os.pathsep.join(folders))


def _in_public(said: str, names: Mapping[str, str]) -> str:
    """Git's error output on one line, without paths of this machine."""
    for path, name in sorted(names.items(), key=lambda pair: -len(pair[0])):
        said = said.replace(path, name)
    words = []
    for word in said[: MAX_WORDS * 10].replace("fatal: ", "").split():
        bare = word.lstrip("'\"(")
        words.append(word if not bare.startswith("/") or bare == "/" else "[path]")
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(words))
    return line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 1] + "…"
