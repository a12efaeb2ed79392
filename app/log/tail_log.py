"""Reads from the log what a tail needs, where it cannot be folded from what this instance has just written.

Decides what is read: from the tail's own place where there is one, else the newest `EVENTS_MAX` events of the conversation.
Never reads above what is durable: up to a sequence number that was acknowledged, or below the horizon; and from no server that
has not seen the horizon.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from app.clock import ms_of
from app.db import Database
from app.log.horizon import Horizon
from app.log.rows import event_data
from app.log.tail_fold import SaidEvent, empty_tail, extended
from app.vault import CallKey
from regions.wire import ids
from regions.wire.conversation import BY_PROJECT, FOLDED_TYPES
from regions.wire.events import Source
from regions.wire.snapshot import Tail

EVENTS_MAX = 2_000
PAGE = 250

SELECT_DURABLE = (
    "select seq from vx.events where call_id = $1 and feed_xid < $2 and seq > $3 order by seq desc limit 1"
)
# the owner's newest number among events that nobody adopted: never above the true one
SELECT_OWNER = """
select epoch, origin_n as n from vx.events
 where call_id = $1 and seq <= $2 and origin_n is not null and origin_epoch = epoch
 order by origin_epoch desc, origin_n desc limit 1
"""
SELECT_SAID = """
select seq, id, type, source, at, data, content from vx.events
 where call_id = $1 and seq > $2 and seq < $3 and type = any($4::text[]) order by seq desc limit $5
"""


class TailLog:
    def __init__(self, db: Database, horizon: Horizon) -> None:
        self._db = db
        self._horizon = horizon

    async def horizon(self) -> int:
        return await self._horizon.read()

    async def read(
        self,
        call: UUID,
        key: CallKey | None,
        before: Tail | None,
        *,
        up_to_seq: int,
        horizon: int | None,
        now_ms: int,
    ) -> Tail | None:
        """The tail at `up_to_seq`, which was acknowledged, or, with a `horizon`, at the newest event below it if that is
        newer. `key`: the call's. None where there is nothing newer than `before`. Raises what the driver raises."""
        tail = before or empty_tail(ids.encode(ids.CALL, call))
        seq = up_to_seq
        seen = horizon if horizon is not None else await self._horizon.read()
        async with self._db.pool("worker").acquire() as connection:
            await self._horizon.check(connection, seen)
            if horizon is not None:
                seq = max(seq, await connection.fetchval(SELECT_DURABLE, call, horizon, tail.seq) or 0)
            if seq <= tail.seq:
                return None
            owner = await connection.fetchrow(SELECT_OWNER, call, seq)
            rows = await _said(connection, call, tail.seq, seq)
        events = [(r["seq"], _event(key, r), by_of(r)) for r in rows]
        epoch, n = (owner["epoch"], owner["n"]) if owner is not None else (0, 0)
        return extended(tail, events, seq=seq, epoch=epoch, n=n, at_ms=now_ms)


def _event(key: CallKey | None, row: Any) -> SaidEvent:
    data = event_data(key, row)
    raw = bytes(data) if isinstance(data, msgspec.Raw) else b""
    return SaidEvent(row["type"], raw, ms_of(row["at"]))


async def _said(connection: Any, call: UUID, after_seq: int, seq: int) -> list[Any]:
    """Page by page from the newest, so that the newest are what is kept where there are too many."""
    newest_first: list[Any] = []
    below = seq + 1
    while len(newest_first) < EVENTS_MAX:
        page = await connection.fetch(SELECT_SAID, call, after_seq, below, list(FOLDED_TYPES), PAGE)
        newest_first += page
        if len(page) < PAGE:
            break
        below = page[-1]["seq"]
    return newest_first[::-1]


def by_of(row: Any) -> str:
    return BY_PROJECT if row["source"] == Source.PROJECT.value else ""
