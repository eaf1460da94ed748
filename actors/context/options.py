"""`[context]` of the configuration; apart from the builder, so that reading a configuration does not load git."""

from __future__ import annotations

import msgspec


class ContextOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[context]` of the configuration.

    max_bytes: of a whole answer. max_file_bytes: of one file in it. cache_mb: contexts and files kept ready, of all
    projects together. exclude: `.gitignore` patterns of files that are never sent. watch: whether changes are watched
    for; without, every request asks git and the disk.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_file_bytes: int = 1024 * 1024
    cache_mb: int = 128
    exclude: tuple[str, ...] = ()
    watch: bool = True
