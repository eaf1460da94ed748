"""The storage directory: made, locked against a second server, and its signing secret."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..state.agent_registry import instance_of
from ..state.errors import ConfigError, StorageUnavailable
from ..state.identity import MIN_SECRET_BYTES, Minted, TokenKey, new_secret
from ..state.journal.fs import PidLock, RealFs, open_plain
from ..state.storage_manifest import (
    MANIFEST,
    StorageManifest,
    fingerprint,
    forget,
    note_contents,
    read_manifest,
    require_journals,
)

log = logging.getLogger(__name__)

SECRET_VARIABLE = "SIDECAR_JWT_SECRET"
SECRET_FILE = "secret"
LOCK_FILE = "LOCK"
URL_FILE = "URL"
_MAX_URL_CHARS = 300
_MAX_SECRET_CHARS = 64 << 10


def prepare(storage: Path) -> None:
    """Make the directory (mode 0700) if it is not there. Raises ConfigError if it cannot be written.

    Nothing in a directory that is there is changed: another sidecar may serve it.
    """
    try:
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"storage directory {storage} cannot be made: {error.strerror}", field="storage") from None
    if not storage.is_dir():
        raise ConfigError(f"storage {storage} is not a directory", field="storage")
    if not os.access(storage, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"storage directory {storage} cannot be written by this user", field="storage")


class LockedStorage:
    """A storage directory that this process holds, from the moment it was locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = RealFs().identity(path)

    def require_the_same(self) -> None:
        """Raises StorageUnavailable when the directory was removed or replaced, StorageDamaged when a journal was."""
        identity = RealFs().identity(self.path)
        if identity is None or self._identity is None or not identity.is_same_file(self._identity):
            raise StorageUnavailable(f"storage directory {self.path} was removed or replaced while it was in use")
        require_journals(self.path, read_manifest(self.path) or StorageManifest())


@contextmanager
def locked(storage: Path) -> Iterator[LockedStorage]:
    """Lock the storage for this process. Raises StorageInUse, naming the pid of the holder."""
    try:
        lock = PidLock(storage / LOCK_FILE)
    except OSError as error:
        raise ConfigError(f"storage directory {storage} cannot be locked: {error.strerror}", field="storage") from None
    try:
        yield LockedStorage(storage)
    finally:
        lock.release()


@contextmanager
def announced(storage: Path, url: str) -> Iterator[None]:
    """Write the sidecar's URL next to the storage's lock, for commands on the same machine.

    The file is whole or not there. One that a killed sidecar has left does no harm: that address must prove itself.
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
    """The URL in the storage's file; None if there is none."""
    try:
        with os.fdopen(open_plain(storage / URL_FILE), encoding="ascii") as file:
            return file.read(_MAX_URL_CHARS).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def require_whole(storage: Path) -> str | None:
    """The name of the storage's instance, None for a new one. Raises StorageDamaged when a journal is missing.

    Call it before anything in the storage is opened for writing.
    """
    manifest = read_manifest(storage) or StorageManifest()
    require_journals(storage, manifest)
    return manifest.instance or instance_of(storage / "registry")


def note_whole(storage: Path, *, instance: str) -> None:
    """Write the storage's contents into its manifest, so that the next start notices missing parts."""
    path = storage / SECRET_FILE
    try:
        secret = fingerprint(bytes.fromhex(path.read_text(encoding="ascii"))) if path.exists() else None
        note_contents(storage, instance=instance, secret=secret)
    except (OSError, ValueError) as error:
        log.warning("contents of the storage not noted file=%s: %s", storage / MANIFEST, error)


def token_key(storage: Path, environ: Mapping[str, str], *, minted: Callable[[Minted], None] | None = None) -> TokenKey:
    """The key that signs tokens: from SIDECAR_JWT_SECRET where it is set, else the storage's, made on first use.

    minted: called with every token made with it. Raises ConfigError for a secret that is too short or cannot be read.
    """
    given = environ.get(SECRET_VARIABLE)
    if given is not None:
        return _key(given.encode(), SECRET_VARIABLE, minted)
    path = storage / SECRET_FILE
    try:
        secret = bytes.fromhex(_secret_text(path))
        _require_the_same(path, secret)
        return _key(secret, str(path), minted)
    except ValueError:
        raise ConfigError(f"{path} is damaged: expected hexadecimal digits", field="storage") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read or made: {error.strerror}", field="storage") from None


def _require_the_same(path: Path, secret: bytes) -> None:
    """Refuse a secret that has changed: every older token would be refused, and nobody would know why."""
    manifest = read_manifest(path.parent)
    if manifest is not None and manifest.secret not in (None, fingerprint(secret)):
        raise ConfigError(
            f"{path} is damaged or was replaced: it is not the secret that {path.with_name(MANIFEST)} has a checksum"
            " of. Put the old one back, or remove it: then a new one is made, and older tokens are refused",
            field="storage",
        )


def _key(secret: bytes, source: str, minted: Callable[[Minted], None] | None) -> TokenKey:
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{source} has {len(secret)} bytes, expected at least {MIN_SECRET_BYTES}", field=source)
    return TokenKey(secret, minted=minted)


def _secret_text(path: Path) -> str:
    """What the file holds. In a cloned folder it may be a pipe, a device, or a link to any file of the user's.

    Raises ConfigError for anything but a file, OSError, UnicodeDecodeError.
    """
    if not os.path.lexists(path):
        forget(path.parent, secret=True)  # before there is a new one, which a kill would leave without its checksum
        _make_secret(path)
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ConfigError(
            f"{path} is not a regular file; to use a secret from elsewhere, set {SECRET_VARIABLE}", field="storage"
        )
    descriptor = open_plain(path)
    with os.fdopen(descriptor, encoding="ascii") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
            log.warning("signing secret was open to other users, closed path=%s", path)
        return file.read(_MAX_SECRET_CHARS).strip()


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
