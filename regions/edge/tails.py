"""Reads a call's tail from the region's own Valkey. A convenience: a standby that finds none uses the snapshot."""

from __future__ import annotations

import asyncio

import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from regions.wire.snapshot import Tail, tail_decoder, tail_key

DEADLINE_S = 0.05


class TailReader:
    def __init__(self, url: str) -> None:
        self._client = redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=0.5) if url else None

    async def read(self, call: str) -> Tail | None:
        """None where there is none, or where it does not come in 50 ms."""
        if self._client is None:
            return None
        try:
            async with asyncio.timeout(DEADLINE_S):
                found: bytes | str | None = await self._client.get(tail_key(call))
            return tail_decoder.decode(found) if found else None
        except (RedisError, OSError, TimeoutError, msgspec.MsgspecError):
            return None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
