"""One at a time, by key: whoever wants to write what only one may write waits here, and not in the database.

Decides who is next in this instance and how many may wait. A wait for a lock in the database holds a connection that all projects
share; this holds none, so what one project wants all at once keeps no other waiting (I10). Between instances the database's own
lock still decides, with one of each at most in line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from app.errors import QuotaExceeded


class InLine:
    def __init__(self, *, waiting_max: int, within_s: float) -> None:
        self._waiting_max = waiting_max
        self._within_s = within_s
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._here: dict[Hashable, int] = {}

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Raises `QuotaExceeded` where too many wait already, or it takes too long until it is one's turn."""
        here = self._here.get(key, 0)
        if here > self._waiting_max:
            raise _too_many()
        self._here[key] = here + 1
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            try:
                async with asyncio.timeout(self._within_s):
                    await lock.acquire()
            except TimeoutError:
                raise _too_many() from None
            try:
                yield
            finally:
                lock.release()
        finally:
            self._here[key] -= 1
            if not self._here[key]:
                del self._here[key], self._locks[key]


def _too_many() -> QuotaExceeded:
    return QuotaExceeded("Too many of these are asked for at once.", retry_after_s=1)
