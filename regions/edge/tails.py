"""Reads a call's tail from the region's own Valkey. A convenience: a standby that finds none uses the snapshot."""

from __future__ import annotations

import asyncio

import msgspec
from redis.exceptions import RedisError

from regions.edge.valkey import RegionValkey
from regions.wire.keeping import Open, Unopened
from regions.wire.snapshot import TAIL_FIELDS, Tail, read_tail, tail_key

DEADLINE_S = 0.05


class TailReader:
    def __init__(self, valkey: RegionValkey, opened: Open) -> None:
        self._valkey = valkey
        self._opened = opened

    async def read(self, call: str) -> Tail | None:
        """None where there is none, or where it does not come in 50 ms."""
        client = self._valkey.client
        if client is None:
            return None
        try:
            async with asyncio.timeout(DEADLINE_S):
                head, turns = await client.hmget(tail_key(call), TAIL_FIELDS)
            if not isinstance(head, bytes) or not isinstance(turns, bytes):
                return None
            return read_tail(head, turns, self._opened)
        except (
            RedisError,
            OSError,
            TimeoutError,
            msgspec.MsgspecError,
            UnicodeError,
            RecursionError,
            Unopened,
        ):
            return None
