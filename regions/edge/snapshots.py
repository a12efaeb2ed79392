"""Seals and opens what a caller carries from one owner to the next. The sealing itself stands in `wire.ticket`."""

from __future__ import annotations

import os

import msgspec

from regions.wire.media import SNAPSHOT_BYTES_MAX
from regions.wire.snapshot import CallSnapshot, Unacked, bounded, snapshot_decoder
from regions.wire.ticket import TicketError, seal, unb64, unseal

KEY_ID = "snap"
PLAIN_BYTES_MAX = SNAPSHOT_BYTES_MAX * 3 // 4 - 64


def seal_snapshot(snapshot: CallSnapshot, key: bytes) -> str:
    """At most 64 KiB. What does not fit is left out: the newest unacknowledged events beyond half of the room (what is kept
    has no holes), then the places of words, then the oldest turns."""
    plain = msgspec.json.encode(snapshot)
    if len(plain) > PLAIN_BYTES_MAX:
        plain = msgspec.json.encode(_cut(snapshot))
    return seal(plain, key_id=KEY_ID, key=key, nonce=os.urandom(12), bound_to=snapshot.call)


def _cut(snapshot: CallSnapshot) -> CallSnapshot:
    unacked: list[Unacked] = []
    room = PLAIN_BYTES_MAX // 2
    for event in snapshot.unacked:
        room -= len(msgspec.json.encode(event)) + 1
        if room < 0:
            break
        unacked.append(event)
    cut = msgspec.structs.replace(snapshot, unacked=unacked, turns=[])
    if len(msgspec.json.encode(cut.playing_words)) > PLAIN_BYTES_MAX // 8:
        cut.playing_words = []
    spare = PLAIN_BYTES_MAX - len(msgspec.json.encode(cut))
    cut.turns = bounded(snapshot.turns, spare)
    return cut


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
