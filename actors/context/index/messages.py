"""Messages between the sidecar and its indexing process, one message in each frame."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ....state.typed import msgpack_decode
from ..excerpts import TextBlock
from ..safe_root import Stamp

MAX_RANKED = 3000  # no context has room for more


class Know(msgspec.Struct, tag=True, frozen=True):
    """The files that a project has now; the index finds out which of them have changed.

    head: the commit whose history counts, or None. history: the git directory to read it from, and the path of the
    project's root below the toplevel.
    """

    root: str
    files: list[str]
    head: str | None
    max_file_bytes: int
    history: tuple[str, str] | None = None


class Look(msgspec.Struct, tag=True, frozen=True):
    """These files of a known project may have changed."""

    root: str
    files: list[str]


class Rank(msgspec.Struct, tag=True, frozen=True):
    """Rank a project's files for a task. seeds: paths that earlier results name; dirty: files with changes that are not
    committed."""

    number: int
    root: str
    query: str
    seeds: list[str]
    dirty: list[str]


class Cut(msgspec.Struct, tag=True, frozen=True):
    """Cut these files into blocks, and say how well each block fits a task."""

    number: int
    root: str
    query: str
    files: list[str]


class Forget(msgspec.Struct, tag=True, frozen=True):
    """Forget a project."""

    root: str


class Ranking(msgspec.Struct, tag=True, frozen=True):
    """The files that fit a query.

    files: path, score and reason; best first. ready: whether every file had been read; if not, no file is ranked.
    """

    number: int
    ready: bool
    files: list[tuple[str, float, str]]


class FileBlocks(msgspec.Struct, frozen=True, array_like=True):
    """A file cut into blocks. stamp: the file's stamp when it was cut."""

    path: str
    stamp: Stamp
    blocks: list[TextBlock]


class Blocks(msgspec.Struct, tag=True, frozen=True):
    """The blocks of the files that a `Cut` named, as far as they could be read."""

    number: int
    files: list[FileBlocks]


ToIndexer = Know | Look | Rank | Cut | Forget
FromIndexer = Ranking | Blocks

encode = msgspec.msgpack.Encoder().encode
decode_question: Callable[[bytes], ToIndexer] = msgpack_decode(ToIndexer)
decode_answer: Callable[[bytes], FromIndexer] = msgpack_decode(FromIndexer)
