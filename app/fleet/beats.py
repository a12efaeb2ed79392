"""The heartbeats of the edges whose uplinks this instance holds, written together: one statement, whatever their number."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import structlog

from app.fleet.store import Beat, FleetStore
from app.supervisor import wait_for_stop
from regions.wire.uplink import HEARTBEAT_S

log = structlog.get_logger()


@dataclass(slots=True)
class Beats:
    """The heartbeats of all uplinks of this instance, written together once a second."""

    store: FleetStore
    newest: dict[tuple[UUID, int], Beat] = field(default_factory=dict)
    superseded: dict[tuple[UUID, int], asyncio.Event] = field(default_factory=dict)

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, HEARTBEAT_S / 2):
            if not self.newest:
                continue
            beats = list(self.newest.values())
            self.newest.clear()
            alive = await self._write(beats)
            for beat in beats:
                gone = self.superseded.get((beat.edge_id, beat.generation))
                if beat.edge_id not in alive and gone is not None:
                    gone.set()

    async def _write(self, beats: list[Beat]) -> set[UUID]:
        """The edges whose generation holds. What the database refuses of one edge is not held against the others."""
        try:
            return await self.store.heartbeats(beats)
        except (asyncpg.DataError, OverflowError, ValueError) as error:
            if len(beats) == 1:
                log.warning("uplink.beat_refused", edge=str(beats[0].edge_id), error=type(error).__name__)
                return set()
        middle = len(beats) // 2
        return await self._write(beats[:middle]) | await self._write(beats[middle:])
