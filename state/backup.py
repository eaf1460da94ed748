"""Backs up a storage directory into one file, while a server writes to it, and restores it.

A journal only grows at its end, so a copy taken now is what a kill -9 would leave now, and opening it is ordinary
recovery. The journals are copied one after the other, in an order that lets recovery mend the differences: see
`_ORDER`. The file is a gzipped tar with a checksum of every file in it. It does not contain the signing secret or the
logs of agents.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO, Literal

import msgspec

from .agent_registry import AgentRegistry
from .errors import InvalidRequest, StorageDamaged, StorageTooNew, StorageUnavailable
from .journal.files import LOCK, segment_path, segments, snapshot_path, snapshots
from .journal.fs import PRIVATE_DIRECTORY, PRIVATE_FILE, RealFs
from .journal.inspection import journals_in, size_of
from .journal.recovery import find
from .progress import Progress, ignore
from .storage_manifest import forget
from .typed import decode

VERSION = 1
_MANIFEST = "sidecar-backup.json"
_READ_BYTES = 1 << 20
_NAME = re.compile(r"(?:[a-z]+/){1,2}(?:seg|snap)-[0-9]{16}\.jsonl")
_ATTEMPTS = 5  # a compaction may meanwhile delete files that we were about to copy

# Places in the log before the log, so that none points past its end; agents and results before or after their events,
# whichever still has the event in an outbox if it is missing from the copy of the log.
_REGISTRY = "registry"
_ORDER = ("events/mailboxes", _REGISTRY, "", "events/log", "results")


class _Version(msgspec.Struct, frozen=True):
    """The fields that a manifest of every version has."""

    version: int


class CopiedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a backup. size: in bytes. sha256: of its content, in hexadecimal digits."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a backup. It is the last member of the archive: one without it was not finished."""

    created_at: datetime
    files: tuple[CopiedFile, ...]
    format: Literal["sidecar-backup"] = "sidecar-backup"
    version: int = VERSION


def back_up(storage: Path, target: Path, *, now: datetime, progress: Progress = ignore) -> Manifest:
    """Copy every journal of `storage` into the new file `target`, readable by its owner alone.

    progress: called with the bytes copied so far and in all. Raises InvalidRequest when `target` exists or
    there is nothing to copy, StorageUnavailable when it cannot be made.
    """
    if target.exists():
        raise InvalidRequest(f"{target} is there already", field="file", expected="a new file")
    journals = sorted(journals_in(storage), key=lambda directory: _place(directory.relative_to(storage)))
    if not journals:
        raise InvalidRequest(f"{storage} holds no journals", field="storage", expected="a storage directory")
    unfinished = target.with_name(target.name + ".tmp")
    copied_bytes = _Copied(sum(size_of(journal) for journal in journals), progress)
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
                files = [
                    copied for journal in journals for copied in _copy_journal(archive, storage, journal, copied_bytes)
                ]
                manifest = Manifest(created_at=now, files=tuple(files))
                _add(archive, _MANIFEST, io.BytesIO(data := msgspec.json.encode(manifest)), len(data), copied_bytes)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
        RealFs().sync_directory(target.parent)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StorageUnavailable(f"{target} cannot be written: {error.strerror or error}") from error
    return manifest


def _place(relative: Path) -> int:
    name = relative.as_posix()
    return _ORDER.index(name) if name in _ORDER else _ORDER.index("")


class _Copied:
    """Bytes copied so far. The journals may grow meanwhile, and what has grown is copied too."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0

    def add(self, size: int) -> None:
        self._done += size
        self._progress(min(self._done, self._total), self._total)


def _copy_journal(archive: tarfile.TarFile, storage: Path, directory: Path, copied: _Copied) -> list[CopiedFile]:
    for attempt in range(1, _ATTEMPTS + 1):
        names = RealFs().names(directory)
        taken = snapshots(names)[-1:]
        at = taken[0] if taken else 0
        paths = [snapshot_path(directory, at)] if taken else []
        paths += [segment_path(directory, first) for first in segments(names) if first > at]
        try:
            # All are opened before any is read: what is open stays readable when a compaction removes it.
            opened = [path.open("rb") for path in paths]
        except FileNotFoundError:
            if attempt == _ATTEMPTS:
                raise
            continue
        return [
            _copy_file(archive, path.relative_to(storage).as_posix(), file, copied)
            for path, file in zip(paths, opened, strict=True)
        ]
    return []


def _copy_file(archive: tarfile.TarFile, name: str, file: BinaryIO, copied: _Copied) -> CopiedFile:
    """As much of it as there is now."""
    with file:
        size = os.fstat(file.fileno()).st_size
        checksum = _add(archive, name, file, size, copied)
    return CopiedFile(name=name, size=size, sha256=checksum)


def _add(archive: tarfile.TarFile, name: str, file: BinaryIO, size: int, copied: _Copied) -> str:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = PRIVATE_FILE
    hashed = _Hashed(file, copied)
    archive.addfile(member, hashed)
    return hashed.digest.hexdigest()


class _Hashed:
    def __init__(self, file: BinaryIO, copied: _Copied) -> None:
        self._file = file
        self._copied = copied
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self._copied.add(len(data))
        return data


def restore(source: Path, storage: Path, *, copied_at: datetime | None = None, progress: Progress = ignore) -> Manifest:
    """Put the journals of a backup into `storage`, which must not hold any; all is checked before any is in place.

    copied_at: None, or the time from which it is a storage of its own: see AgentRegistry.become_copy.
    progress: called with the bytes unpacked so far and in all. Raises InvalidRequest, StorageInUse, StorageTooNew,
    StorageUnavailable, StorageDamaged for a backup not whole.
    """
    fs = RealFs()
    try:
        fs.make_directory(storage)
        lock = fs.lock(storage / LOCK)
        try:
            return _restore(fs, source, storage, copied_at, progress)
        finally:
            lock.release()
    except OSError as error:
        raise StorageUnavailable(f"{source} cannot be restored: {error.strerror or error}", file=str(source)) from error


def _restore(fs: RealFs, source: Path, storage: Path, copied_at: datetime | None, progress: Progress) -> Manifest:
    if journals_in(storage):
        raise InvalidRequest(
            f"{storage} holds journals already: move it away first", field="storage", expected="an empty directory"
        )
    forget(storage, contents=True)  # entries about older journals, and the name that came from them
    scratch = Path(tempfile.mkdtemp(prefix="restoring-", dir=storage))
    try:
        manifest = _unpack(fs, source, scratch, progress)
        for journal in journals_in(scratch):
            find(fs, journal)
        if copied_at is not None and (scratch / _REGISTRY).is_dir():
            registry = AgentRegistry(scratch / _REGISTRY)
            registry.become_copy(now=copied_at)
            registry.close()
        for entry in sorted(scratch.iterdir()):
            entry.rename(storage / entry.name)
        fs.sync_directory(storage)
    finally:
        shutil.rmtree(scratch)
    return manifest


def _unpack(fs: RealFs, source: Path, scratch: Path, progress: Progress) -> Manifest:
    found: list[CopiedFile] = []
    manifest: Manifest | None = None
    try:
        total = source.stat().st_size
        with (
            source.open("rb") as packed,
            gzip.GzipFile(fileobj=packed) as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is None:
                    raise StorageDamaged(f"{source}: {member.name!r} is not a file", file=str(source))
                if member.name == _MANIFEST:
                    manifest = _read_manifest(file.read(), source)
                else:
                    found.append(_unpack_file(fs, scratch, member.name, file, lambda: progress(packed.tell(), total)))
            while stream.read(_READ_BYTES):  # on to the checksum at its end, which tarfile does not look at
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, msgspec.MsgspecError) as error:
        raise StorageDamaged(f"{source} is not a whole backup: {error}", file=str(source)) from error
    if manifest is None or manifest.files != tuple(found):
        raise StorageDamaged(f"{source} is not a whole backup: its files are not those it names", file=str(source))
    return manifest


def _read_manifest(data: bytes, source: Path) -> Manifest:
    version = decode(data, _Version).version
    if version > VERSION:
        raise StorageTooNew(f"{source} has format version {version}, this sidecar reads {VERSION}", version=version)
    return decode(data, Manifest)


def _unpack_file(
    fs: RealFs, scratch: Path, name: str, file: IO[bytes], has_come_further: Callable[[], object]
) -> CopiedFile:
    if _NAME.fullmatch(name) is None:  # a path from a file that anybody may have made
        raise StorageDamaged(f"the backup lists a file that belongs to no journal: {name!r}", file=name)
    path = scratch / name
    path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    out = fs.create(path)
    try:
        while data := file.read(_READ_BYTES):
            out.write(data)
            digest.update(data)
            size += len(data)
            has_come_further()
        out.sync()
    finally:
        out.close()
    fs.sync_directory(path.parent)
    return CopiedFile(name=name, size=size, sha256=digest.hexdigest())
