"""A pool of the driver's that counts how long its connections are waited for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from app.connection import Connection
from app.telemetry import pool_wait_seconds


class Pool(asyncpg.Pool):  # type: ignore[misc]  # untyped driver
    """`waited`: told of every wait, in seconds. Every way to a connection leads through `_acquire`."""

    waited: Callable[[float], None]

    async def _acquire(self, timeout: float | None) -> Any:
        began_s = time.perf_counter()
        try:
            return await super()._acquire(timeout)
        finally:
            self.waited(time.perf_counter() - began_s)


async def open_pool(role: str, size: int, connect: Callable[..., Awaitable[Connection]]) -> Pool:
    pool = Pool(
        min_size=0,
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300,
        connection_class=Connection,
        connect=connect,
        record_class=asyncpg.Record,
        setup=None,
        init=None,
        reset=None,
        loop=None,
    )
    pool.waited = pool_wait_seconds.labels(role).observe
    await pool
    return pool
