"""Whether a value that stands where a secret would is one: code is full of names, templates and placeholders. Pure."""

from __future__ import annotations

import binascii
from collections import Counter
from math import log2

_MOST_LOOKED_AT = 512  # characters
_PLACEHOLDERS = frozenset(
    (
        *("password", "passwd", "passphrase", "pass", "pwd", "pw", "secret", "token", "user", "username", "key"),
        *("userpass", "mypassword", "my-password", "yourpassword", "none", "null", "true", "false", "undefined"),
        *("string", "str", "optional", "bearer", "basic", "root", "admin", "postgres", "guest", "foobar", "redacted"),
    )
)
_TELLS = (
    "example",
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "dummy",
    "your-",
    "your_",
    "redacted",
    "insert",
)
_WORDS = ("password", "passwd", "passphrase")
_MARKUP = frozenset("{}<>()[]|^*\\ ")


def is_random(value: str) -> bool:
    """Whether it is too mixed to be a name or a word, as keys and tokens are. For values behind names like `token`."""
    value = value.strip("\"'`=")[:_MOST_LOOKED_AT]
    if len(value) < 14 or _is_placeholder(value) or _is_path_or_name(value):
        return False
    digits = sum(map(str.isdigit, value))
    if digits < 2 or digits == len(value):
        return False
    return entropy(value) >= (2.8 if _is_hex(value) else 3.3)


def is_password(value: str) -> bool:
    """Whether it is a password and no name: letters with digits or signs. For values behind names like `password`."""
    value = value[:_MOST_LOOKED_AT]
    if len(value) < 6 or _is_template(value) or _is_placeholder(value) or "://" in value:
        return False
    if any(word in value.lower() for word in _WORDS) and sum(map(str.isdigit, value)) < 2:
        return False
    if not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)):
        return any(char in "!@#%&+?" for char in value) and any(map(str.isalpha, value)) and "/" not in value
    return not _is_path_or_name(value) and entropy(value) >= 2.5


def is_secret_of_user(value: str) -> bool:
    """Whether it is a secret where nothing but a secret stands, as in a URL after `user:`. Templates are none."""
    value = value[:_MOST_LOOKED_AT]
    return len(value) > 3 and not _is_template(value) and not _is_placeholder(value)


def is_token_of_user(value: str) -> bool:
    """Whether the user of a URL is a token: longer than names are, or with digits in it."""
    if len(value) < 10 or not is_secret_of_user(value):
        return False
    return len(value) >= 20 or sum(map(str.isdigit, value)) >= 2


def is_of_header(value: str) -> bool:
    """Whether it is a token in an HTTP header, and not the name of a variable that holds one."""
    value = value[:_MOST_LOOKED_AT]
    return len(value) >= 8 and any(map(str.isdigit, value)) and is_secret_of_user(value) and not _is_path_or_name(value)


def is_basic(value: str) -> bool:
    """Whether it is a user and a password as HTTP's Basic scheme encodes them (RFC 7617)."""
    value = value[:_MOST_LOOKED_AT].rstrip("=")
    try:
        return b":" in binascii.a2b_base64(value[: len(value) // 4 * 4])
    except binascii.Error:
        return False


def entropy(value: str) -> float:
    """Bits for each character, by how often each stands in the value itself."""
    length = len(value)
    return -sum(times / length * log2(times / length) for times in Counter(value).values())


def _is_template(value: str) -> bool:
    """`${NAME}`, `$NAME`, `@NAME`, `%s`, `{name}`, `<name>`, `$(...)`; a password may have a `$` in it."""
    if "${" in value or "$(" in value or "{{" in value or (value[0] == "%" and len(value) < 4):
        return True
    if value[0] in "$@":
        name = value[1:]
        return name.isidentifier() and (name.isupper() or not any(map(str.isdigit, name)))
    return not _MARKUP.isdisjoint(value) and (value[0] in "{<([%" or value[-1] in "})>]")


def _is_placeholder(value: str) -> bool:
    lowered = value.lower()
    if lowered in _PLACEHOLDERS or len(set(lowered)) <= 2:  # xxxx, ****, ....
        return True
    return any(tell in lowered for tell in _TELLS)


def _is_path_or_name(value: str) -> bool:
    """`some.module.name`, `a-long-name-2`, `path/to/file`, `SOME_NAME_V2`, `camelCaseName`: parts that are words."""
    parts = _parts(value)
    words = sum(part.isalpha() or part.isdigit() for part in parts)
    return len(parts) > 1 and words >= len(parts) - 1 and max(map(len, parts)) < 20


def _parts(value: str) -> list[str]:
    for mark in "-./:":
        value = value.replace(mark, "_")
    return [part for part in value.split("_") if part]


def _is_hex(value: str) -> bool:
    return all(char in "0123456789abcdefABCDEF-" for char in value)
