"""Opaque cursors: where a reader stands. Pure. A cursor names what it belongs to and carries a checksum against slips."""

from __future__ import annotations

import base64
import binascii
import zlib

import msgspec

from app.errors import BadRequest

CURSOR_CHARS_MAX = 512
FIX = "Send the cursor exactly as it was returned, or leave it out to start again."


def encode(kind: str, *values: str | int) -> str:
    body = msgspec.json.encode([kind, *values])
    return base64.urlsafe_b64encode(zlib.crc32(body).to_bytes(4, "big") + body).rstrip(b"=").decode()


def decode(kind: str, text: str) -> list[str | int]:
    """The values; raises `BadRequest` ``bad_cursor`` for anything `encode(kind, …)` has not made."""
    try:
        if len(text) > CURSOR_CHARS_MAX or not text.isascii():
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if zlib.crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
            raise ValueError
        found, *values = msgspec.json.decode(raw[4:], type=list[str | int])
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=FIX) from None
    if found != kind:
        raise BadRequest("The cursor belongs to another list.", code="bad_cursor", fix=FIX)
    return values
