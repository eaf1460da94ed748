"""The manifest of a storage directory: its journals, its instance, and a checksum of its signing secret.

A missing journal cannot report itself. So the start compares the directory with the manifest before it opens anything.
An entry is written after the thing it names is on the disk: a kill in between leaves a manifest that names too little,
never too much. Storages of versions before 0.2 have none, and get one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from .errors import StorageDamaged
from .journal.files import LOCK, segments, snapshots
from .journal.fs import PRIVATE_FILE, RealFs, open_plain
from .journal.inspection import journals_in
from .journal.lines import OWN, Line, encode, parse
from .typed import decode

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST"
_MAX_BYTES = 16 << 20
_REGISTRY = "registry"
ADVICE = "restore a backup, or run `sidecar doctor --repair` to go on without it"


class StorageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """journals: paths below the storage. secret: fingerprint of the secret file; None while there is none.

    instance: by which the agents of this storage know it; None until it has a name.
    """

    journals: tuple[str, ...] = ()
    secret: str | None = None
    instance: str | None = None


def read_manifest(storage: Path) -> StorageManifest | None:
    """Read the manifest; None if there is none, or it is damaged, which is logged. Raises OSError."""
    path = storage / MANIFEST
    try:
        line = _line_in(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if line is None:
        log.warning("manifest is damaged, the next start writes it again file=%s", path)
        return None
    return decode(line.record, StorageManifest)


def _line_in(path: Path) -> Line | None:
    with os.fdopen(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return parse(file.read(min(size, _MAX_BYTES)))  # which takes as much memory as it may read


def is_damaged(storage: Path) -> bool:
    path = storage / MANIFEST
    try:
        return os.path.lexists(path) and _line_in(path) is None
    except OSError:  # a pipe, a link
        return True


def write_manifest(storage: Path, manifest: StorageManifest) -> None:
    """Write the manifest durably, whole or not at all; nothing if it is the same. Raises OSError."""
    data = encode(OWN, 0, 0, msgspec.json.encode(manifest))
    path = storage / MANIFEST
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")  # a command may write one at the same time
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    RealFs().sync_directory(storage)


def missing_journals(storage: Path, manifest: StorageManifest) -> tuple[str, ...]:
    """Journals that the manifest names and of which no file with records is there."""
    return tuple(name for name in manifest.journals if not _has_records(storage / name))


def _has_records(directory: Path) -> bool:
    try:
        names = RealFs().names(directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool(segments(names) or snapshots(names))


def require_journals(storage: Path, manifest: StorageManifest) -> None:
    """Raises StorageDamaged that names every journal that is missing."""
    missing = missing_journals(storage, manifest)
    if missing:
        which = "journal is missing" if len(missing) == 1 else "journals are missing"
        raise StorageDamaged(
            f"{storage}: {len(missing)} {which} that {MANIFEST} names: "
            f"{', '.join(str(storage / name) for name in missing)}; {ADVICE}",
            missing=missing,
        )


def note_contents(storage: Path, *, instance: str | None, secret: str | None) -> None:
    """Name everything in the storage now. None: keep the old entry. Raises OSError."""
    before = read_manifest(storage) or StorageManifest()
    journals = tuple(directory.relative_to(storage).as_posix() for directory in journals_in(storage))
    write_manifest(
        storage,
        StorageManifest(journals=journals, secret=secret or before.secret, instance=instance or before.instance),
    )


def go_on_without(storage: Path) -> tuple[str, ...]:
    """Remove the entries of missing journals; return those journals. Raises StorageInUse, OSError."""
    manifest = read_manifest(storage)
    missing = missing_journals(storage, manifest) if manifest is not None else ()
    if manifest is not None and missing:
        lock = RealFs().lock(storage / LOCK)
        try:
            kept = tuple(name for name in manifest.journals if name not in missing)
            # With the registry went the name that it gave.
            instance = manifest.instance if _REGISTRY in kept else None
            write_manifest(storage, msgspec.structs.replace(manifest, journals=kept, instance=instance))
        finally:
            lock.release()
    return missing


def forget(storage: Path, *, secret: bool = False, contents: bool = False) -> None:
    """Remove entries that will be replaced: the secret, or the journals and the instance. Raises OSError."""
    before = read_manifest(storage)
    if before is not None:
        after = StorageManifest(secret=before.secret) if contents else before
        write_manifest(storage, msgspec.structs.replace(after, secret=None) if secret else after)


def fingerprint(secret: bytes) -> str:
    """A checksum that tells one secret from another, and nothing about either: they have 256 random bits."""
    return hashlib.sha256(b"sidecar-secret:" + secret).hexdigest()
