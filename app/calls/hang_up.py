"""Ends a call because its backend asks for it over REST, which backends also do because their socket has died.

Decides whom to believe: 1. the call runs; 2. the socket that the backend names may be one of the present owner's; 3. that owner
finds it to be the very one that it has with the backend, and is told in time (`app.fleet.hang_ups`). So a call that is being
taken over, or whose backend was dialled again, is ended by nobody but the backend that it has now.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from app.buckets import Buckets
from app.calls.machine import FINAL, CallState
from app.calls.store import CallStore, StoredCall
from app.clock import Clock
from app.errors import QuotaExceeded
from app.fleet.desired import Commands
from app.hints import Hints
from regions.wire.sids import of_epoch

WAIT_S = 2.0
GATHER_S = 0.02
POLL_S = 0.25
RUNNING = frozenset({CallState.IN_PROGRESS, CallState.RECONNECTING})


@dataclass(slots=True)
class HangUps:
    store: CallStore
    commands: Commands
    hints: Hints
    clock: Clock
    asked: Buckets = field(default_factory=lambda: Buckets(burst=8, per_s=1))

    async def hang_up(self, call: StoredCall, socket: int) -> StoredCall | None:
        """The call as it ended, within `WAIT_S`; None where it goes on, or had ended before. Raises `QuotaExceeded`."""
        if call.state not in RUNNING or call.edge_id is None or not of_epoch(socket, call.epoch):
            return None
        if not self.asked.take(call.id, self.clock.monotonic_s()):
            raise QuotaExceeded("This call is hung up too often.", retry_after_s=1)
        woken = self.hints.subscribe(f"feed:{call.project_id}")
        try:
            until_s = self.clock.monotonic_s() + WAIT_S
            await self.commands.hang_up(call.id, call.edge_id, call.epoch, socket)
            while (left_s := until_s - self.clock.monotonic_s()) > 0:
                if await woken.wait(min(left_s, POLL_S)):
                    await asyncio.sleep(GATHER_S)  # a busy project wakes all the time
                now = await self.store.get(call.project_id, call.id)
                if now is None or now.state in FINAL:
                    return now
            return None
        finally:
            woken.close()
