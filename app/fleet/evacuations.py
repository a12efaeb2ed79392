"""Evacuations that follow from a verdict: begun when the detector asks for one, ended when it does not any more.

Decides nothing about health. Begins and ends in the transaction that writes the verdict, so that of several instances one does it,
once per version; `admin_state` stays the operator's. An operator's drain of the same edge goes before: where one runs nothing is
begun, and what an operator has changed or an edge has taken over is not ended here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from app.db import Database
from app.fleet.drain_store import COUNT_CALLS, END, Asked
from app.fleet.events import WRITE
from app.fleet.store import ADD_COMMAND
from app.fleet.verdicts import State
from app.ids import new_id

BEGIN = """
insert into vx.drains (id, region, edge_id, verdict, kind, force_at, total)
select $1, e.region, e.id, $3, 'evacuate', clock_timestamp(), $4 from vx.edges e where e.id = $2
on conflict do nothing returning id
"""
SELECT_OWN = """
select id from vx.drains
 where edge_id = $1 and ended_at is null and verdict is not null and incarnation is null for update
"""
# What the operator has said of the edge and its region stands.
TAKES_FIRST = """
select e.admin_state = 'active' and r.admin_state = 'active' from vx.edges e join vx.regions r on r.id = e.region where e.id = $1
"""


@dataclass(frozen=True, slots=True)
class Evacuations:
    db: Database

    async def total(self, edge: UUID, before: State, after: State) -> int:
        """The calls of an edge that is to be evacuated. Asked before the transaction: it is another role that may count them."""
        if not _begins(before, after):
            return 0
        return await self.db.pool("worker").fetchval(COUNT_CALLS, [edge])  # type: ignore[no-any-return]

    async def follow(
        self, connection: Any, edge: UUID, region: str, before: State, after: State, total: int, said: dict[str, Any]
    ) -> list[Asked]:  # fmt: skip
        """In the transaction of the verdict. `said`: the evidence. The moves that are off, whose edges are to be told."""
        if _begins(before, after):
            await self._begin(connection, edge, region, after, total, said)
        elif before.action == "evacuate" != after.action:
            return await self._end(connection, edge, after)
        return []

    async def tell(self, off: list[Asked]) -> None:
        """Each in a statement of its own: with two edges in one, this and the heartbeats could wait for each other."""
        for call_id, edge, epoch in off:
            await self.db.pool("admin").fetchval(ADD_COMMAND, edge, "move", call_id, _body(epoch=str(epoch)))

    async def _begin(
        self, connection: Any, edge: UUID, region: str, after: State, total: int, said: dict[str, Any]
    ) -> None:
        begun = await connection.fetchval(BEGIN, new_id(self.db.cell), edge, after.version, total)
        if begun is None:
            return
        await connection.fetchval(ADD_COMMAND, edge, "drain", None, _body())
        data = {"by": "detector", "kind": "evacuate", "calls": total, **said}
        await connection.execute(
            WRITE, f"evacuating:{edge}:{after.version}", new_id(self.db.cell), "edge.evacuating", region, edge,
            msgspec.json.encode(data).decode(),
        )  # fmt: skip

    async def _end(self, connection: Any, edge: UUID, after: State) -> list[Asked]:
        own = await connection.fetchval(SELECT_OWN, edge)
        if own is None:
            return []
        outcome = "recovered" if after.verdict in ("healthy", "probation") else "canceled"
        off = await connection.fetch(END, own, outcome)
        if await connection.fetchval(TAKES_FIRST, edge):
            await connection.fetchval(ADD_COMMAND, edge, "undrain", None, _body())
        return [(r["call_id"], r["from_edge"], r["epoch"]) for r in off]


def _begins(before: State, after: State) -> bool:
    return after.action == "evacuate" != before.action


def _body(**values: str) -> str:
    return msgspec.json.encode(values).decode()
