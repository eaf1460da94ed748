"""Makes names of the operating system printable: a path on Linux is bytes, and need not be UTF-8. Pure."""

from __future__ import annotations

import os
from pathlib import Path


def shown(path: Path | str) -> str:
    """The path with an escape such as `\\xff` for each byte that is not UTF-8; every other path as it is."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def writable(text: str) -> str:
    """The text with an escape for each lone surrogate, which names that are not UTF-8 bring into errors and logs."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
