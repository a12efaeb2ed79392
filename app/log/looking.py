"""A look at the durable horizon that a reader need not stand and wait for.

Where standbys are waited for, a look takes a round trip to them, and up to one more behind another's. What is known to be durable
without it (`app.log.acked`) is served meanwhile: decides which of the two comes first.
"""

from __future__ import annotations

import asyncio

from app.hints import Subscription
from app.log.acked import Acked
from app.log.horizon import Bound, Horizon
from app.log.positions import Position, check_reached


class Looking:
    """One reader's."""

    def __init__(self, horizon: Horizon, acked: Acked, wakes: Subscription) -> None:
        self._horizon = horizon
        self._acked = acked
        self._wakes = wakes
        self._task: asyncio.Task[Bound] | None = None
        self._missed = False
        self._falls = horizon.falls

    async def checked(self, after: Position) -> Position:
        """The same. Raises `BadRequest` where the database was set back, and has not come there again. (A look that began before
        the reader was there does not say so.)"""
        if self._falls != self._horizon.falls:
            check_reached(after.feed_xid, await self._horizon.read())
            self._falls = self._horizon.falls
        return after

    async def bound(self, noted: int | None) -> Bound | None:
        """None once more is noted than `noted`: the look goes on, and is waited for when this is called again. Without it nothing
        else is waited for. Raises what `Horizon.look` raises."""
        task = self._task = self._task or asyncio.create_task(self._horizon.look())
        while noted is not None and not task.done():
            if self._acked.noted != noted:
                return None
            if await self._wakes.woken_or(task) and self._acked.noted == noted:
                self._missed = True
        try:
            return await task
        finally:
            self._task = None

    def take_missed(self) -> bool:
        """Whether it was woken while it looked, for something that nobody has noted; said once."""
        missed, self._missed = self._missed, False
        return missed

    def leave(self) -> None:
        """What has been begun is of no use any more: it began before what is now known."""
        if self._task is not None:
            # its error, if it has one already, is nobody's
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._task.cancel()
            self._task = None
