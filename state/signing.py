"""Signs and verifies JSON Web Tokens with HS256. The PyJWT door.

`import jwt` imports a client for keys on the web, with urllib and ssl, and `cryptography` where it is installed. HS256
needs none of them. Measured from the start of `sidecar serve` until it listens, median of ten, in turn: 945 ms of CPU
time as it is, 1,125 ms with `import jwt` (1.19 times; 1.30 times on the clock of a busy machine). Agents wait for a
start, so this loads PyJWT's own modules without its package. Anything else in the process that imports `jwt` gets all
of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .errors import Unauthorized

_ALGORITHM = "HS256"


def _is_pyjwt(name: str) -> bool:
    return name == "jwt" or name.startswith("jwt.")


def _own_copy(*names: str) -> list[ModuleType]:
    """These modules of PyJWT, with neither its package's `__init__` nor `cryptography`."""
    found = find_spec("jwt")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("PyJWT is not installed", name="jwt")
    package = ModuleType("jwt")
    package.__path__ = found.submodule_search_locations
    others = {name: module for name, module in sys.modules.items() if _is_pyjwt(name) or name == "cryptography"}
    for name in others:
        del sys.modules[name]
    sys.modules.update({"jwt": package, "cryptography": None})  # type: ignore[dict-item]  # None: it cannot be imported
    try:
        return [import_module(f"jwt.{name}") for name in names]
    finally:
        for name in [name for name in sys.modules if _is_pyjwt(name)]:
            del sys.modules[name]
        del sys.modules["cryptography"]
        sys.modules.update(others)


_api, _exceptions = _own_copy("api_jwt", "exceptions")


def signed(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token with these claims."""
    text: str = _api.encode(dict(claims), secret, algorithm=_ALGORITHM)
    return text


def verified(text: str, secret: bytes, *, issuer: str, audience: str, required: Sequence[str]) -> dict[str, Any]:
    """The claims of a token that was signed with this secret, by this issuer for this audience.

    Its times are the caller's to judge. Raises Unauthorized for any other text, without quoting it.
    """
    try:
        claims: dict[str, Any] = _api.decode(
            text,
            secret,
            algorithms=[_ALGORITHM],
            audience=audience,
            issuer=issuer,
            options={"require": list(required), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except _exceptions.InvalidTokenError as error:
        raise Unauthorized("the token is not one of this sidecar's") from error
    return claims
