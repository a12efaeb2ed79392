"""The form of a key's secret. Pure: the random bytes are a parameter.

``vx_live_`` or ``vx_test_``, two characters of base62 for the cell, 32 of base62 for 24 random bytes (190 bits), six of
base62 for the CRC-32 of all before: a slip of the pen is told from a wrong key without asking anyone, and a leaked secret
is found by its form. Stored as SHA-256; shown once.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"vx_(live|test)_([0-9A-Za-z]{2})([0-9A-Za-z]{33})([0-9A-Za-z]{6})")
RANDOM_BYTES = 24


@dataclass(frozen=True, slots=True)
class ParsedSecret:
    mode: str
    cell: int
    hash: bytes


def base62(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make(mode: str, cell: int, random_bytes: bytes) -> str:
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a secret takes {RANDOM_BYTES} random bytes")
    body = f"vx_{mode}_{base62(cell, 2)}{base62(int.from_bytes(random_bytes, 'big'), 33)}"
    return body + base62(zlib.crc32(body.encode()), 6)


def parse(secret: str) -> ParsedSecret | None:
    """None for anything `make` has not made."""
    found = _FORM.fullmatch(secret)
    if found is None or base62(zlib.crc32(secret[:-6].encode()), 6) != found.group(4):
        return None
    first, second = found.group(2)[0], found.group(2)[1]
    return ParsedSecret(
        found.group(1), _ALPHABET.index(first) * 62 + _ALPHABET.index(second), hash_of(secret)
    )


def cell_of(secret: str) -> int | None:
    """The cell that a secret names, whatever else is wrong with it; None where it names none."""
    head, place = secret[:8], secret[8:10]
    if head not in ("vx_live_", "vx_test_") or len(place) != 2 or not (place.isascii() and place.isalnum()):
        return None
    return _ALPHABET.index(place[0]) * 62 + _ALPHABET.index(place[1])


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
