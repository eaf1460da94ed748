"""Reads files of one project during one build, each as it is on the disk at that moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from .emit import Fragment, excerpt_fragment, fragment
from .file_text import WITHOUT_OUTPUTS, Text, Unsent, bytes_to_read, read_text
from .fragments import FragmentCache
from .kinds import language_of
from .safe_root import NotReadable, Root, Stamp
from .secrets.names import is_secret_path

_RACY_NS = 50_000_000  # a file changed this short before it was read may have changed again unseen (git's rule)


class FileReader:
    """Never gives the content of a file with secrets, nor anything outside the root."""

    def __init__(self, root: Root, name: str, fragments: FragmentCache, max_file_bytes: int) -> None:
        self._root = root
        self._name = name
        self._fragments = fragments
        self.max_file_bytes = max_file_bytes

    def stamp(self, path: str) -> Stamp | Unsent:
        try:
            return self._root.stamp(path)
        except NotReadable as error:
            return Unsent(str(error))

    def states(self, paths: Iterable[str]) -> Iterator[Stamp | str]:
        """See `Root.states`."""
        return self._root.states(paths)

    def text(self, path: str, *, named: bool = False) -> tuple[Text, Stamp] | Unsent:
        """The text of a file, of at most its first `max_file_bytes`; of a notebook, the cells without their outputs.

        named: the agent asked for this very file; then it is sent as it is, long lines and all.
        """
        if is_secret_path(path):
            return Unsent("secret")
        try:
            data, stamp = self._root.read(path, bytes_to_read(path, self.max_file_bytes))
        except NotReadable as error:
            return Unsent(str(error))
        found = read_text(data, path=path, named=named, max_bytes=self.max_file_bytes)
        if isinstance(found, Unsent):
            return found
        if stamp.size > len(data):
            found = found._replace(checksum="")  # it would be that of a part
        return found, stamp

    def _is_cut(self, text: Text, stamp: Stamp) -> bool:
        return stamp.size > self.max_file_bytes and text.without != WITHOUT_OUTPUTS

    def fragment(self, path: str, *, named: bool = False) -> tuple[Fragment, Stamp] | Unsent:
        """The file ready to send; a kept piece is used only if the file's stamp is still the same."""
        key = (self._name, path, "named" if named else "")
        if key in self._fragments:
            before = self.stamp(path)
            if isinstance(before, Unsent):
                return before
            if (kept := self._fragments.get(key, before)) is not None:
                return kept, before
        found = self.text(path, named=named)
        if isinstance(found, Unsent):
            return found
        text, stamp = found
        cut = self._is_cut(text, stamp)
        made = fragment(path, language_of(path), stamp, text, max_bytes=self.max_file_bytes, cut=cut)
        if time.time_ns() - stamp.mtime_ns > _RACY_NS:
            self._fragments.put(key, stamp, made)
        return made, stamp

    def excerpt(self, path: str, spans: list[tuple[int, int]], cut_at: Stamp) -> tuple[Fragment, Stamp] | Unsent:
        """Some lines of a file that was cut in the state `cut_at`."""
        found = self.text(path)
        if isinstance(found, Unsent):
            return found
        text, stamp = found
        if stamp != cut_at:
            return Unsent("changed while it was read")
        return excerpt_fragment(path, language_of(path), stamp, text, spans), stamp

    def start_of(self, path: str, max_bytes: int) -> tuple[Fragment, Stamp] | Unsent:
        """The start of a file in an entry of at most `max_bytes`."""
        found = self.text(path)
        if isinstance(found, Unsent):
            return found
        text, stamp = found
        language, cut = language_of(path), self._is_cut(text, stamp)
        around = fragment(path, language, stamp, text._replace(text=""), max_bytes=2, cut=True)
        return fragment(path, language, stamp, text, max_bytes=max_bytes - len(around.data), cut=cut), stamp
