"""The storage directory: made, locked against a second server, and its signing secret."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..state.errors import ConfigError
from ..state.fs import PidLock
from ..state.identity import MIN_SECRET_BYTES, Minted, TokenKey, new_secret

log = logging.getLogger(__name__)

SECRET_VARIABLE = "SIDECAR_JWT_SECRET"
SECRET_FILE = "secret"
LOCK_FILE = "LOCK"
URL_FILE = "URL"
_MAX_URL_CHARS = 300


def prepare(storage: Path) -> None:
    """Make the directory (mode 0700) if it is not there. Raises ConfigError if it cannot be written."""
    try:
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"storage directory {storage} cannot be made: {error.strerror}", field="storage") from None
    if not storage.is_dir():
        raise ConfigError(f"storage {storage} is not a directory", field="storage")
    probe = storage / "probe"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        probe.unlink(missing_ok=True)  # by another that starts in the same moment
    except OSError as error:
        raise ConfigError(f"storage directory {storage} cannot be written: {error.strerror}", field="storage") from None


@contextmanager
def locked(storage: Path) -> Iterator[None]:
    """Hold the storage for this process. Raises StorageInUse that names the pid of who holds it."""
    lock = PidLock(storage / LOCK_FILE)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def announced(storage: Path, url: str) -> Iterator[None]:
    """Leave the URL of the sidecar that serves the storage next to its lock, for commands on this machine.

    The file is whole or not there. One that a killed sidecar has left names an address that proves nothing.
    """
    path = storage / URL_FILE
    scratch = path.with_name(f"{URL_FILE}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{url}\n")
    scratch.rename(path)
    try:
        yield
    finally:
        if announced_url(storage) == url:
            path.unlink(missing_ok=True)


def announced_url(storage: Path) -> str | None:
    """Where the sidecar of the storage last said that it listens; None where it said nothing."""
    try:
        if not (storage / URL_FILE).is_file():
            return None  # to open a pipe would wait for whoever made it
        with (storage / URL_FILE).open(encoding="ascii") as file:
            return file.read(_MAX_URL_CHARS).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def token_key(storage: Path, environ: Mapping[str, str], *, minted: Callable[[Minted], None] | None = None) -> TokenKey:
    """The key that signs tokens: from SIDECAR_JWT_SECRET where it is set, else the storage's, made on first use.

    minted: told of every token made with it. Raises ConfigError for a secret that is too short or cannot be read.
    """
    given = environ.get(SECRET_VARIABLE)
    if given is not None:
        return _key(given.encode(), SECRET_VARIABLE, minted)
    path = storage / SECRET_FILE
    try:
        return _key(bytes.fromhex(_secret_text(path)), str(path), minted)
    except ValueError:
        raise ConfigError(f"{path} is damaged: expected hexadecimal digits", field="storage") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read or made: {error.strerror}", field="storage") from None


def _key(secret: bytes, source: str, minted: Callable[[Minted], None] | None) -> TokenKey:
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{source} has {len(secret)} bytes, expected at least {MIN_SECRET_BYTES}", field=source)
    return TokenKey(secret, minted=minted)


def _secret_text(path: Path) -> str:
    if not path.exists():
        _make_secret(path)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        log.warning("signing secret was open to other users, closed path=%s", path)
    return path.read_text(encoding="ascii").strip()


def _make_secret(path: Path) -> None:
    """Whole or not at all, and never over one that another process has made in the same moment."""
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(new_secret().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except FileExistsError:
            log.info("signing secret was made by another process path=%s", path)
    finally:
        scratch.unlink()
