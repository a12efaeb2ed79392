"""Round trips of a deployment with several cells: what edges witness is the fleet's, what a project claims lies in its own cell.

Decides which cell is written to and read. One that is away is left out of what is read, and read again when it is back: claims live
for ten minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from app.connection import DATABASE_ERRORS
from app.db import Database
from app.placement.claims import Claim
from app.placement.round_trips import RoundTrips
from regions.wire import ids

ANSWER_WITHIN_S = 2.0


class CellRoundTrips(RoundTrips):
    def __init__(self, home: Database, others: Sequence[Database]) -> None:
        super().__init__(home)
        self._others = {db.cell: RoundTrips(db) for db in others}

    async def put_claims(self, project_id: UUID, network: int, claims: list[Claim]) -> None:
        own = self._others.get(ids.cell_of(project_id))
        if own is None:
            await super().put_claims(project_id, network, claims)
        else:
            await own.put_claims(project_id, network, claims)

    async def new_claims(self, since: datetime) -> list[tuple[UUID, int, Claim]]:
        async def of(other: RoundTrips) -> list[tuple[UUID, int, Claim]]:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    return await other.new_claims(since)
            except DATABASE_ERRORS:
                return []

        found = await asyncio.gather(super().new_claims(since), *map(of, self._others.values()))
        return [claim for some in found for claim in some]

    async def forget(self, before_window: int) -> None:
        async def of(other: RoundTrips) -> None:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await other.forget(before_window)
            except DATABASE_ERRORS:
                return

        await asyncio.gather(super().forget(before_window), *map(of, self._others.values()))
