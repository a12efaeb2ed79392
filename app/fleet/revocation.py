"""An operator takes the fleet's trust back: from one edge, or from all that a region has.

Decides what ends with it, and in which order: the edge's life in the database, and with it its uplink, its tokens and its word on
any call; the region's enrolment tokens that nobody has used yet; its user in the region's Valkey; the fleet's keys that it knew. Then
its calls are evacuated: an edge that obeys stops at once and its callers go to their standbys, as they do when it dies.
What its name was takes a fresh enrolment, with another key. A revoked edge never comes back: its row stays, for its calls' sake.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from app.audit.service import Audit
from app.clock import rfc3339
from app.db import Database
from app.errors import Conflict, NotFound
from app.fleet.desired import topic
from app.fleet.drain_service import Drains
from app.fleet.drain_shapes import DrainView
from app.fleet.edge_access import EdgeAccess
from app.fleet.events import FleetEvents
from app.fleet.shapes import RevokedEdge, RevokeView
from app.fleet.view import FleetView
from app.hints import Hints
from app.ids import parse
from regions.wire import ids

log = structlog.get_logger()

ACTION = "edge.revoked"
REVOKED_LEAD_S = 5.0
"""So long the fleet's new key is told before it is used: hints carry it, and no more time is given to who knows the one before."""
REVOKED_OVERLAP_S = 900.0
"""So long the one before still opens: the callers of the edge go to their standbys with what was sealed under it."""

# The name is free again; no edge is called so (`app.fleet.registration`).
# Its life ends as at a restart, which nobody has made: grants of before are nobody's, and the next heartbeat is superseded.
REVOKE = """
update vx.edges e
   set revoked_at = clock_timestamp(), incarnation = n.life, stopped = n.life, generation = e.generation + 1, calls = 0,
       name = e.name || '~' || e.id, admin_state = 'cordoned', version = e.version + 1
  from (select id, gen_random_uuid() as life from vx.edges
         where region = $1 and ($2::uuid is null or id = $2) and revoked_at is null order by id for no key update) n
 where e.id = n.id
returning e.id, split_part(e.name, '~', 1) as name, e.revoked_at
"""
VOID_ENROLMENTS = "update vx.regions set enrol_version = enrol_version + 1 where id = $1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """`rotate`: gives the fleet a key that the revoked do not know; None where that is left to the operator."""

    db: Database
    view: FleetView
    events: FleetEvents
    hints: Hints
    access: EdgeAccess
    drains: Drains
    audit: Audit
    rotate: Callable[[], Awaitable[None]] | None = None

    async def edge(self, text: str, reason: str) -> RevokeView:
        """Twice is as good as once. Raises `NotFound`."""
        await self.view.refresh()
        edge_id = parse(ids.EDGE, text)
        edge = self.view.now.edge(edge_id) if edge_id is not None else None
        if edge is None:
            raise NotFound("There is no such edge.", fix="GET /admin/v1/edges lists them.")
        return await self._revoke(edge.region, edge.id, reason)

    async def region(self, region: str, reason: str) -> RevokeView:
        """Every edge of it. Raises `NotFound`."""
        await self.view.refresh()
        if region not in self.view.now.regions:
            raise NotFound("There is no such region.", fix="GET /admin/v1/regions lists them.")
        return await self._revoke(region, None, reason)

    async def _revoke(self, region: str, edge_id: UUID | None, reason: str) -> RevokeView:
        async with self.db.pool("admin").acquire() as connection, connection.transaction():
            rows = await connection.fetch(REVOKE, region, edge_id)
            if rows or edge_id is None:
                await connection.execute(VOID_ENROLMENTS, region)
            if not rows:
                self.audit.unchanged(ACTION)
            for row in rows:
                said = {"region": region, "name": row["name"], "reason": reason}
                await self.audit.record(connection, ACTION, ids.encode(ids.EDGE, row["id"]), summary=said)
        await self.view.refresh()
        for row in rows:
            self.hints.wake(topic(row["id"]))
            await self._say(region, row, reason)
        evacuation, why_not = await self._evacuate(region, edge_id) if rows or edge_id is None else (None, "")
        for row in rows:
            await self.access.revoke(region, row["id"])
        rotated = bool(rows) and self.rotate is not None
        if rotated and self.rotate is not None:
            await self.rotate()
        return RevokeView(
            region=region,
            edges=[
                RevokedEdge(
                    id=ids.encode(ids.EDGE, row["id"]),
                    name=row["name"],
                    revoked_at=rfc3339(row["revoked_at"]),
                )
                for row in rows
            ],
            evacuation=evacuation,
            not_evacuated=why_not,
            keys_rotated=rotated,
        )

    async def _say(self, region: str, row: Any, reason: str) -> None:
        edge_id: UUID = row["id"]
        log.warning("edge.revoked", region=region, edge=row["name"])
        data = {"name": row["name"], "reason": reason}
        await self.events.write(f"revoked:{edge_id}", "edge.revoked", region, edge_id, data)

    async def _evacuate(self, region: str, edge_id: UUID | None) -> tuple[DrainView | None, str]:
        """It is cut off whether or not its calls have somewhere to go."""
        try:
            if edge_id is None:
                return await self.drains.region("evacuate", region, 0), ""
            return await self.drains.edge("evacuate", ids.encode(ids.EDGE, edge_id), 0), ""
        except Conflict as refused:
            return None, refused.detail
