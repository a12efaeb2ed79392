"""Takes calls out of one region's Valkey: their tails, and what edges have spooled of them.

A tail leaves a tombstone, newer than any, so that nothing that was under way brings it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeAlias
from uuid import UUID

import redis.asyncio as redis

from regions.wire import ids
from regions.wire import spool as names
from regions.wire.snapshot import tail_key

Client: TypeAlias = Any
"""`redis.asyncio.Redis` that gives bytes."""

TOMBSTONE_SEQ = 1 << 52
KEPT_S = 26 * 3600
"""Longer than a ticket is good for."""
DEADLINE_S = 5.0
AT_ONCE = 500


async def purge(url: str, calls: list[UUID], edges: Iterable[UUID]) -> None:
    """`edges`: of the region. Twice does no harm. Raises what the driver raises."""
    client: Client = redis.from_url(url, socket_timeout=DEADLINE_S, socket_connect_timeout=1.0)
    texts = [ids.encode(ids.CALL, call) for call in calls]
    try:
        for i in range(0, len(texts), AT_ONCE):
            async with asyncio.timeout(DEADLINE_S), client.pipeline(transaction=False) as pipe:
                for call in texts[i : i + AT_ONCE]:
                    pipe.delete(tail_key(call))
                    pipe.hset(tail_key(call), mapping={"seq": TOMBSTONE_SEQ, "said_seq": TOMBSTONE_SEQ})
                    pipe.expire(tail_key(call), KEPT_S)
                await pipe.execute()
        gone = set(texts)
        for edge in edges:
            async with asyncio.timeout(DEADLINE_S):
                await _purge_spool(client, ids.encode(ids.EDGE, edge), gone)
    finally:
        await client.aclose()


async def _purge_spool(client: Client, edge: str, calls: set[str]) -> None:
    for raw in await client.smembers(names.incarnations_key(edge)):
        incarnation = raw.decode(errors="replace")
        key = names.calls_key(edge, incarnation)
        for run in await client.smembers(key):
            name = run.decode(errors="replace")
            if name.partition("/")[0] in calls:
                await client.delete(names.events_key(edge, incarnation, name))
                await client.srem(key, name)
