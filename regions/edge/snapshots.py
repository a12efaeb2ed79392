"""Seals and opens what a caller carries from one owner to the next. The sealing itself stands in `wire.ticket`."""

from __future__ import annotations

import os

import msgspec

from regions.wire.media import SNAPSHOT_BYTES_MAX
from regions.wire.snapshot import CallSnapshot, bounded, snapshot_decoder
from regions.wire.ticket import TicketError, seal, unb64, unseal

KEY_ID = "snap"
PLAIN_BYTES_MAX = SNAPSHOT_BYTES_MAX * 3 // 4 - 64


def seal_snapshot(snapshot: CallSnapshot, key: bytes) -> str:
    """At most 64 KiB: the oldest turns are left out until it fits."""
    plain = msgspec.json.encode(snapshot)
    turns = snapshot.turns
    while len(plain) > PLAIN_BYTES_MAX and turns:
        spare = PLAIN_BYTES_MAX - (len(plain) - len(msgspec.json.encode(turns)))
        kept = bounded(turns, max(spare, 0))
        turns = kept if len(kept) < len(turns) else turns[1:]
        plain = msgspec.json.encode(msgspec.structs.replace(snapshot, turns=turns))
    return seal(plain, key_id=KEY_ID, key=key, nonce=os.urandom(12), bound_to=snapshot.call)


def open_snapshot(sealed: str | None, *, call: str, key: bytes) -> CallSnapshot | None:
    """None where there is none, or where it is not one of this call's."""
    if not sealed or len(sealed) > SNAPSHOT_BYTES_MAX:
        return None
    try:
        plain = unseal(sealed, keys={KEY_ID: key}, bound_to=call)
        snapshot = snapshot_decoder.decode(plain)
    except (TicketError, msgspec.MsgspecError):
        return None
    return snapshot if snapshot.call == call else None


def snapshot_key(text: str) -> bytes:
    return unb64(text)
