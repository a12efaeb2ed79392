"""Ids in the form that Twilio's have: two letters and 32 hex digits. Pure.

A project's is the bytes of its id. A call's is the bytes of its id with a *socket number* in the place of the six bits that are
the same in every UUIDv7 (RFC 9562: four of the version, two of the variant). So each socket of a call is given a sid of its own,
and whoever hangs up by a sid has said on which socket it was.

    socket number = (epoch & 7) << 3 | (sockets that this owner opened before & 7)
"""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

from regions.wire.ids import CALL, PROJECT, IdError, decode

_CALL_SID = re.compile(r"CA([0-9a-f]{32})")
_VERSION, _VERSION_AT = 0x7, 76
_VARIANT, _VARIANT_AT = 0b10, 62
_FIXED = 0xF << _VERSION_AT | 0b11 << _VARIANT_AT


class SidOfCall(NamedTuple):
    """`socket`: the number of the one that the sid was given to."""

    call: UUID
    socket: int


def sid(prefix: str, seed: bytes) -> str:
    """Of 16 bytes."""
    return prefix + seed[:16].hex()


def socket_number(epoch: int, opened: int) -> int:
    """`opened`: how many sockets this owner has opened before."""
    return (epoch & 7) << 3 | opened & 7


def of_epoch(socket: int, epoch: int) -> bool:
    """Whether the owner of that epoch may have opened the socket."""
    return socket >> 3 == epoch & 7


def account_sid(project: str) -> str:
    """A project as an account."""
    return sid("AC", _bytes(PROJECT, project))


def call_sid(call: str, socket: int) -> str:
    """A call, as one of its sockets names it."""
    try:
        value = decode(CALL, call).int
    except IdError:
        return sid("CA", call.encode()[-16:])
    value = value & ~_FIXED | (socket >> 2) << _VERSION_AT | (socket & 3) << _VARIANT_AT
    return sid("CA", value.to_bytes(16, "big"))


def read_call_sid(text: str) -> SidOfCall | None:
    """None for anything that `call_sid` has not written for an id of ours."""
    found = _CALL_SID.fullmatch(text)
    if found is None:
        return None
    value = int(found.group(1), 16)
    socket = (value >> _VERSION_AT & 0xF) << 2 | value >> _VARIANT_AT & 0b11
    return SidOfCall(UUID(int=value & ~_FIXED | _VERSION << _VERSION_AT | _VARIANT << _VARIANT_AT), socket)


def _bytes(prefix: str, text: str) -> bytes:
    try:
        return decode(prefix, text).bytes
    except IdError:
        return text.encode()[-16:]
