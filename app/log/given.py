"""Turns runs of an edge's events into the rows that ``vx.append`` takes: sealed, hashed, in the form the driver wants.

Decides nothing: the events were checked before, the verdict is the database's. It is the dearest work that an event causes on
an instance, so what is the same for many of them is done once. The hash is that of `CallKey.hash` over the event's id, its
type, its time and its data.
"""

from __future__ import annotations

import os
import struct
from typing import Final
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as DriverUUID

from app.vault import NONCE_BYTES, CallKey
from regions.wire import ids
from regions.wire.events import EVENT_TYPES
from regions.wire.uplink import CallEvents

Row = tuple[UUID, int, int, UUID, str, int, str | None, bytes | None, bytes, int | None, int | None]
"""One event in the order of ``vx.given_event``."""
EVENT_ID: Final = 3

_CONTENT = frozenset(t.name for t in EVENT_TYPES.values() if t.content)
_TIME_AND_LENGTH = struct.Struct("!QI")
_LENGTH = struct.Struct("!I")
_ID_LENGTH = _LENGTH.pack(16)
_TYPES = {name: _LENGTH.pack(len(name.encode())) + name.encode() + _LENGTH.pack(8) for name in EVENT_TYPES}
"""A type as it stands in what is hashed, between the id and the time."""


def rows_of(call: UUID, run: CallEvents, key: CallKey) -> list[Row]:
    """Raises `IdError` where an event's id is none."""
    call_id = DriverUUID(call.bytes)
    epoch, keyed, encrypt = run.epoch, key.keyed, key.aead.encrypt
    nonces = os.urandom(NONCE_BYTES * len(run.events))
    used = 0
    rows: list[Row] = []
    for event, event_id in zip(
        run.events, ids.decode_many(ids.EVENT, [e.id for e in run.events]), strict=True
    ):
        raw, type_, origin = bytes(event.data), event.type, event.origin
        hashed = keyed.copy()
        hashed.update(
            b"".join((_ID_LENGTH, event_id, _TYPES[type_], _TIME_AND_LENGTH.pack(event.at_ms, len(raw)), raw))
        )
        text = sealed = None
        if type_ in _CONTENT:
            nonce = nonces[used : used + NONCE_BYTES]
            used += NONCE_BYTES
            sealed = nonce + encrypt(nonce, raw, event_id)
        else:
            text = raw.decode()
        oe, o_n = (origin.epoch, origin.n) if origin is not None else (None, None)
        rows.append(
            (call_id, epoch, event.n, DriverUUID(event_id), type_, event.at_ms, text, sealed, hashed.digest(), oe, o_n)
        )  # fmt: skip
    return rows
