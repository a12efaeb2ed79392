"""Gives each hang-up that goes down one uplink the time that is left for it. The arithmetic stands in `app.fleet.hang_ups`."""

from __future__ import annotations

import time
from typing import Protocol
from uuid import UUID

from app.fleet.hang_ups import KIND, EdgeTime, timed
from regions.wire.uplink import Command


class Ages(Protocol):
    async def ages(self, edge_id: UUID, versions: list[int]) -> dict[int, float]:
        """For how many seconds each of these commands has been written down. Raises what the driver raises."""
        ...


class InTime:
    def __init__(self, edge_id: UUID, store: Ages) -> None:
        self._edge_id = edge_id
        self._store = store
        self._edge = EdgeTime()

    def heard(self, at_ms: int) -> None:
        """A heartbeat of the edge, which says what its clock showed."""
        self._edge.heard(at_ms, time.monotonic())

    async def complete(
        self, commands: list[tuple[Command, UUID | None]]
    ) -> list[tuple[Command, UUID | None]]:
        """The same commands, ready to be sent. Raises what the driver raises."""
        versions = [command.version for command, _ in commands if command.kind == KIND]
        if not versions:
            return commands
        # asked first, so that what the edge's clock shows when the age is found is this or more
        edge_ms = self._edge.at_least_ms(time.monotonic())
        ages = await self._store.ages(self._edge_id, versions)
        return [
            (timed(c, age_s=ages.get(c.version), edge_ms=edge_ms) if c.kind == KIND else c, call)
            for c, call in commands
        ]
