"""What people said, as it lies in a region's Valkey: sealed under a fleet key, which edges and instances hold and Valkey does not.

Decides the form: the key's id, a zero byte, 12 bytes of nonce, then AES-256-GCM. A value is bound to the place it stands in,
so what is moved to another place opens nowhere. Which key is the newest, and which still open, is decided by whoever asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_ID_BYTES_MAX = 64

Seal: TypeAlias = Callable[[bytes, str], bytes]
"""The plain bytes and their place; the sealed bytes."""
Open: TypeAlias = Callable[[bytes, str], bytes]
"""The other way round. Raises `Unopened`."""


class Unopened(Exception):
    """Not sealed for this place, changed since, or sealed under a key that is not held here."""


def key_of(sealed: bytes) -> str | None:
    """The id of the key it was sealed under; None: it is not sealed."""
    key_id, zero, _ = sealed.partition(b"\0")
    return key_id.decode() if zero and len(key_id) <= KEY_ID_BYTES_MAX and key_id.isascii() else None


def sealing(newest: Callable[[], tuple[str, bytes]]) -> Seal:
    def seal(plain: bytes, place: str) -> bytes:
        key_id, key = newest()
        nonce = os.urandom(NONCE_BYTES)
        return key_id.encode() + b"\0" + nonce + AESGCM(key).encrypt(nonce, plain, place.encode())

    return seal


def opening(keys: Callable[[], Mapping[str, bytes]]) -> Open:
    def open_(sealed: bytes, place: str) -> bytes:
        key = keys().get(key_of(sealed) or "")
        if key is None:
            raise Unopened
        _, _, body = sealed.partition(b"\0")
        try:
            return AESGCM(key).decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise Unopened from None

    return open_
