"""JSON and plain values into types: the one door to msgspec's decoders.

msgspec looks at a struct's annotations when it first decodes into it, which runs Python code that another thread may
interrupt. Two threads that come to the same struct then end the process (msgspec 0.22, tests/test_first_decoding.py).
Here a type is looked at under a lock, once, when it is first needed; afterwards decoding needs none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, cached_property
from types import UnionType
from typing import Any, Generic, TypeVar, overload

import msgspec

T = TypeVar("T")

Decoder = msgspec.json.Decoder

_looking = threading.Lock()


@overload
def decoder(type_: type[T], *, strict: bool = True) -> Decoder[T]: ...


@overload
def decoder(type_: UnionType, *, strict: bool = True) -> Decoder[Any]: ...


def decoder(type_: Any, *, strict: bool = True) -> Decoder[Any]:
    """strict: whether `"1"` is refused where a number is asked for."""
    return _decoder(type_, strict)


class LateDecoder(Generic[T]):
    """A decoder that looks at its type when it is first used: an empty journal is read without."""

    def __init__(self, type_: type[T] | UnionType) -> None:
        self._type = type_

    @cached_property
    def decode(self) -> Callable[[bytes], T]:
        return decoder(self._type).decode


def decode(raw: bytes | str | msgspec.Raw, type_: type[T]) -> T:
    """Raises msgspec.DecodeError, of which ValidationError is one, and UnicodeDecodeError."""
    return decoder(type_).decode(raw)


def convert(value: object, type_: type[T], *, strict: bool = True) -> T:
    """Plain values, such as JSON has, as the type. Raises msgspec.ValidationError."""
    decoder(type_, strict=strict)
    return msgspec.convert(value, type_, strict=strict)


def msgpack_decode(type_: UnionType) -> Callable[[bytes], Any]:
    """A decoder of MessagePack into one of the types."""
    with _looking:
        return msgspec.msgpack.Decoder(type_).decode


@cache
def _decoder(type_: Any, strict: bool) -> Decoder[Any]:
    with _looking:
        return Decoder(type_, strict=strict)
