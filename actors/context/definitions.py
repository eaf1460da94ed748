"""Where a file defines things: names for ranking, lines for cutting excerpts. Pure.

Expressions instead of parsers: one pass at tens of MB/s for every language, and no grammar to download (the packs
of grammars there are fetch them from the network at run time).
"""

from __future__ import annotations

from typing import NamedTuple

from ...state.linear import Linear

_MODIFIERS = (
    r"(?:(?:export|default|declare|pub(?:\([^)\n]*\))?|public|private|protected|internal|static|final|abstract|async"
    r"|unsafe|const|extern(?:[ \t]+\"[^\"\n]*\")?|override|virtual|open|sealed|data|inline|partial|suspend)[ \t]+)*"
)
_KEYWORDS = (
    r"(?:def|class|func|fn|function\*?|fun|struct|enum|union|trait|interface|protocol|extension|record|object|module|mod"
    r"|namespace|macro_rules!|sub|defmodule|defp?|resource|data|message|service|rpc)"
)
_KEYED = (
    rf"[ \t]*{_MODIFIERS}{_KEYWORDS}[ \t]+(?:\([^)\n]*\)[ \t]*)?[\"'&]?([A-Za-z_$][\w$]*)"
    rf"|(?:export[ \t]+)?(?:declare[ \t]+)?(?:const|let|var|type|static|pub type|pub const)[ \t]+([A-Za-z_$][\w$]*)"
    rf"|impl(?:<[^>\n]*>)?[ \t]+(?:[^\n{{]*?[ \t]for[ \t]+)?([A-Za-z_]\w*)"
)
_METHODS = (
    r"|[ \t]{0,8}(?:[\w<>\[\],.*&:~]+[ \t]+)+[*&]?([A-Za-z_~][\w:~]*)[ \t]*\([^;\n]*\)?[^;\n]*\{?[ \t]*$"
    r"|#[ \t]*define[ \t]+([A-Za-z_]\w*)"
)
_HEADINGS = r"(#{1,6}[ \t]+[^\n]+)$|([^\n]{3,100})\n(?:={3,}|-{3,}|~{3,})$"
_TABLES = r"\[+([^\]\n]+)\]+|([A-Za-z_][\w.-]*):"

# Each begins with the end of the line before, a literal that the search jumps to; `^` would be tried at every letter.
_OF_CODE = Linear(rf"(?m)\n(?:{_KEYED})".encode())
_OF_BRACES = Linear(rf"(?m)\n(?:{_KEYED}{_METHODS})".encode())
_OF_PROSE = Linear(rf"(?m)\n(?:{_HEADINGS})".encode())
_OF_DATA = Linear(rf"(?m)\n(?:{_TABLES})".encode())
_BRACES = frozenset(("c", "cpp", "java", "csharp", "dart", "objective-c", "groovy", "solidity"))
_PROSE = frozenset(("markdown", "restructuredtext", "asciidoc", "text"))
_DATA = frozenset(("yaml", "toml", "ini"))
_NOT_NAMES = frozenset(["if", "for", "while", "switch", "return", "else", "catch", "new", "throw", "do", "case"])


class Definition(NamedTuple):
    """name: what is defined. line: where, from 0. indent: of that line, in characters."""

    name: str
    line: int
    indent: int


def names_defined(text: str, language: str) -> set[str]:
    """The names alone, for which nothing has to be counted."""
    # One of the groups of a match has the name, the others are empty.
    found = {b"".join(match.groups[1:]) for match in _pattern_of(language).all_in(_encoded(text))}
    return {name.decode("utf-8", "replace").strip() for name in found} - _NOT_NAMES


def _encoded(text: str) -> bytes:
    """Bytes, since RE2 would make them, and count characters, at each match."""
    return b"\n" + text.encode("utf-8", "replace")


def _pattern_of(language: str) -> Linear[bytes]:
    if language in _PROSE:
        return _OF_PROSE
    if language in _DATA:
        return _OF_DATA
    return _OF_BRACES if language in _BRACES else _OF_CODE


def definitions_of(text: str, language: str) -> tuple[Definition, ...]:
    """Everything the text defines, in order; headings for prose, tables and top keys for data."""
    found = []
    line = position = 0
    data = _encoded(text)
    for groups, start, _ in _pattern_of(language).all_in(data):
        line += data.count(b"\n", position, start)
        position = start
        name = b"".join(groups[1:]).decode("utf-8", "replace")
        if name not in _NOT_NAMES:
            matched = groups[0][1:]
            found.append(Definition(name.strip(), line, len(matched) - len(matched.lstrip(b" \t"))))
    return tuple(found)
