"""The fleet as this instance sees it: a snapshot in memory, read again every half second, so that no request waits for it.

Ages are taken by the database's clock, which all instances share. `FleetView.now` is replaced as a whole, never changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from app.db import Database
from app.fleet.detector import edge_health, region_health
from app.supervisor import wait_for_stop

log = structlog.get_logger()

REFRESH_S = 0.5

SELECT_REGIONS = (
    "select id, name, jurisdiction, latitude, longitude, admin_state, version from vx.regions order by id"
)
SELECT_EDGES = """
select id, region, name, incarnation, media_url, http_url, capacity_calls, admin_state, calls, load,
       extract(epoch from clock_timestamp() - seen_at)::float8 as silent_s,
       exists (select from vx.drains d where d.edge_id = edges.id and d.incarnation = edges.incarnation
                                         and d.ended_at is null) as stopping
  from vx.edges order by region, name
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionState:
    id: str
    jurisdiction: str
    admin_state: str
    health: str
    name: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeState:
    id: UUID
    region: str
    name: str
    incarnation: UUID
    media_url: str
    http_url: str
    capacity_calls: int
    calls: int
    health: str
    admin_state: str = "active"
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    regions: dict[str, RegionState] = field(default_factory=dict)
    edges: tuple[EdgeState, ...] = ()

    def edge(self, edge_id: UUID) -> EdgeState | None:
        return next((e for e in self.edges if e.id == edge_id), None)


class FleetView:
    def __init__(self, db: Database) -> None:
        self._db = db
        self.now = Fleet()

    def regions_of(self, edges: tuple[UUID, ...]) -> set[str]:
        """The regions of these edges, as far as they are known."""
        wanted = set(edges)
        return {e.region for e in self.now.edges if e.id in wanted}

    async def refresh(self) -> None:
        async with self._db.pool("admin").acquire() as connection:
            regions = await connection.fetch(SELECT_REGIONS)
            rows = await connection.fetch(SELECT_EDGES)
        edges = tuple(
            EdgeState(
                id=r["id"],
                region=r["region"],
                name=r["name"],
                incarnation=r["incarnation"],
                media_url=r["media_url"],
                http_url=r["http_url"],
                capacity_calls=r["capacity_calls"],
                calls=r["calls"],
                health=edge_health(r["silent_s"]),
                admin_state=r["admin_state"],
                draining=r["stopping"],
            )
            for r in rows
        )
        self._say_changes(edges)
        self.now = Fleet(
            regions={
                r["id"]: RegionState(
                    id=r["id"],
                    name=r["name"],
                    jurisdiction=r["jurisdiction"],
                    admin_state=r["admin_state"],
                    health=region_health(e.health for e in edges if e.region == r["id"]),
                    latitude=r["latitude"],
                    longitude=r["longitude"],
                    version=r["version"],
                )
                for r in regions
            },
            edges=edges,
        )

    def _say_changes(self, edges: tuple[EdgeState, ...]) -> None:
        before = {e.id: e.health for e in self.now.edges}
        for edge in edges:
            was = before.get(edge.id)
            if was is not None and was != edge.health:
                name = {"down": "edge.lost", "healthy": "edge.recovered"}.get(edge.health, "edge.suspect")
                log.info(name, region=edge.region, edge=edge.name, was=was)

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, REFRESH_S):
            await self.refresh()
