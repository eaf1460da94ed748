"""Unique names. Not secret: anyone who knows many of them can guess the next."""

from __future__ import annotations

import random

_random = random.Random()  # seeded by the system, and unlike it answers in this thread without a call to the kernel


def unique_hex(digits: int) -> str:
    """So many random hexadecimal digits."""
    return f"{_random.getrandbits(4 * digits):x}".zfill(digits)
