"""Makes text of agents safe to print: no character in it steers a terminal, reorders text or hides. Pure.

Agents write what they like: escape sequences, C0 and C1 controls, overrides of the writing direction, characters
without width. A terminal acts on some of these, and a reader sees none of them. They become visible escapes such as
`\\x1b` and `\\u202e`, in JSON the escapes of JSON. Everything else stays as it is.
"""

from __future__ import annotations

from unicodedata import category

# Cc: C0, DEL and C1. Cf: direction overrides, joiners, byte order marks, tags. Cs: lone surrogates, which no encoding
# takes. Zl, Zp: separators of lines that are none in a terminal.
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Letters and marks that show as nothing, and code points that Unicode reserves for such.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2065\u3164\uffa0") | {
    chr(code) for code in range(0xFFF0, 0xFFF9)
}
_BLANKS = frozenset("\t\n\v\f\r\x85\u2028\u2029")
_BEGIN_FORMULAS = frozenset("=+-@＝＋－＠")


def is_steering(character: str) -> bool:
    """Whether a character steers a terminal or is invisible to a reader."""
    if character.isprintable():  # the category of each character would take four times as long
        return character in _INVISIBLE
    return category(character) in _STEERING or character in _INVISIBLE or 0xE0000 <= ord(character) <= 0xE0FFF


def _is_plain(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _INVISIBLE.isdisjoint(text))


def one_line(text: str) -> str:
    """The text in one line: line breaks become blanks, characters that steer become visible escapes."""
    if _is_plain(text):
        return text
    return "".join(" " if c in _BLANKS else _escaped(c) if is_steering(c) else c for c in text)


def lines(text: str) -> str:
    """The text with its line feeds and tabs; all other characters that steer become visible escapes."""
    return "\n".join("\t".join(map(one_field, line.split("\t"))) for line in text.split("\n"))


def one_field(text: str) -> str:
    """The text with all characters that steer as visible escapes, line breaks and tabs, too."""
    if _is_plain(text):
        return text
    return "".join(_escaped(c) if is_steering(c) else c for c in text)


def json_text(encoded: str, *, only_ascii: bool = False) -> str:
    """The same JSON, with JSON escapes for characters that steer. only_ascii: for all others beyond ASCII, too."""
    if encoded.isascii() and "\x7f" not in encoded:
        return encoded  # controls below U+0020 are escapes in it already, and line feeds are its own
    return "".join(
        _json_escape(c) if (only_ascii and not c.isascii()) or (c != "\n" and is_steering(c)) else c for c in encoded
    )


def cell(text: str) -> str:
    """Text for a cell of CSV that no spreadsheet takes for a formula. Line feeds and tabs inside it stay.

    Source: CSV injection (OWASP): a cell that would begin with one of these gets an apostrophe in front.
    """
    shown = lines(text)
    begins_formula = shown.lstrip()[:1] in _BEGIN_FORMULAS or shown[:1] in ("\t", "\n") or text[:1] == "\r"
    return f"'{shown}" if shown and begins_formula else shown


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


class LogText:
    """A log for a terminal, in parts as they come: `lines` of it, without the colours and with whole lines.

    Colours (SGR) and "erase to the end of the line", which many programs write, are taken out; a carriage return, with
    which a progress bar begins again, ends the line. A sequence may lie in two parts.
    """

    _MOST_HELD = 32  # characters of a sequence that has not ended; a longer one is not one of these

    def __init__(self) -> None:
        self._held = ""

    def add(self, part: str, *, is_last: bool = False) -> str:
        """The text to show after this part of the log. is_last: no more will come."""
        text = self._held + part
        self._held = ""
        shown: list[str] = []
        at = 0
        while at < len(text):
            begins = min((found for found in (text.find("\x1b", at), text.find("\r", at)) if found >= 0), default=-1)
            if begins < 0:
                shown.append(text[at:])
                break
            shown.append(text[at:begins])
            at = self._after(text, begins, shown, is_last=is_last)
        return lines("".join(shown))

    def _after(self, text: str, at: int, shown: list[str], *, is_last: bool) -> int:
        """Where to read on after the escape or carriage return at `at`."""
        end = at + 1
        if text[at] == "\r":
            if end == len(text) and not is_last:
                return self._hold(text, at)
            shown.append("" if text[end : end + 1] == "\n" else "\n")
            return end
        if text[end : end + 1] == "[":
            end += 1
            while text[end : end + 1] in tuple("0123456789;:"):
                end += 1
        if end == len(text) and not is_last and end - at <= self._MOST_HELD:
            return self._hold(text, at)
        if text[at + 1 : at + 2] == "[" and text[end : end + 1] in ("m", "K"):
            return end + 1
        shown.append(text[at])
        return at + 1

    def _hold(self, text: str, at: int) -> int:
        self._held = text[at:]
        return len(text)
