"""The fleet as this instance sees it: a snapshot in memory, read again four times a second, so that no request waits for it.

Decides nothing: the `Detector` judges what was read, `HealthStore` keeps the verdicts for all instances. Without a store they are
this instance's own. `FleetView.now` is replaced as a whole, never changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import structlog

from app.connection import DATABASE_ERRORS
from app.db import Database
from app.fleet.detector import (
    Detector,
    EdgeRow,
    Judgement,
    Kept,
    Look,
    RegionTransition,
    region_transitions,
)
from app.fleet.reserve import kept
from app.fleet.verdicts import ORDER, region_verdict
from app.fleet.votes import Report
from app.supervisor import wait_for_stop
from app.telemetry import (
    detector_abstains,
    edges_by_verdict,
    heartbeat_phi,
    region_calls,
    region_capacity,
    region_health,
    stand_at_zero,
)

log = structlog.get_logger()

REFRESH_S = 0.25

SELECT_REGIONS = (
    "select id, name, jurisdiction, latitude, longitude, admin_state, weight, proximity, price_ms, version "
    "from vx.regions order by id"
)
SELECT_EDGES = """
select id, region, name, incarnation, media_url, http_url, webrtc, software, capacity_calls, admin_state, calls, load, seen_at,
       extract(epoch from clock_timestamp() - seen_at)::float8 as silent_s,
       exists (select from vx.drains d where d.edge_id = edges.id and d.incarnation = edges.incarnation
                                         and d.ended_at is null) as stopping,
       stopped is not distinct from incarnation as stopped, revoked_at,
       key_since, key_asked_at, key_before_until, key_misuses, key_misused_at
  from vx.edges order by region, name
"""
COUNTED_S = 3.0
"""A call that has moved is counted for so long beside what its new edge says of itself."""
# Moves that are under way or just done, by the edge that takes them; and, under no edge, the calls that have yet to leave.
SELECT_COMING = f"""
select to_edge, count(*)::integer as calls from vx.moves
 where outcome is null or outcome = 'moved' and done_at > clock_timestamp() - make_interval(secs => {COUNTED_S})
 group by to_edge
union all
select null, sum(greatest(0, d.total - (select count(*) from vx.moves m where m.drain_id = d.id)
                            - (select count(*) from jsonb_array_elements(d.stuck) s where s->>'why' <> 'full')))::integer
  from vx.drains d where d.ended_at is null and d.drained_at is null
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
    weight: float = 1.0
    proximity: str = ""
    price_ms: float = 0.0
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeKeyState:
    """`since`: when the edge's key became that. `asked_at`: an operator waits for another one since then. `before_until`: until when
    one before it holds. `misuses`: tokens that came signed with one that holds no more, the last of them at `misused_at`."""

    since: datetime | None = None
    asked_at: datetime | None = None
    before_until: datetime | None = None
    misuses: int = 0
    misused_at: datetime | None = None


NO_KEY = EdgeKeyState()


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeState:
    """`weight`: the share of its capacity that it may fill (probation). `action`: what the detector asks for: ``none``,
    ``quarantine`` (no new calls), ``evacuate`` (move the calls that run). `refusing`: nobody listens there, as all vantages say.
    `silent`: its heartbeat is overdue, so that no command may reach it. `stopped`: it has said so; the detector does not judge it.
    `revoked_at`: it is out for good. `software`: its release, as it says; empty where it does not.
    `coming`: places that new calls leave free, for calls that live and are to come here (`app.fleet.reserve`).
    `returns_in_s`: the earliest that it may take new calls, if it is in order from now on; None where nobody knows."""

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
    weight: float = 1.0
    action: str = "none"
    refusing: bool = False
    silent: bool = False
    stopped: bool = False
    coming: int = 0
    returns_in_s: float | None = None
    revoked_at: datetime | None = None
    webrtc: bool = False
    software: str = ""
    key: EdgeKeyState = NO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    regions: dict[str, RegionState] = field(default_factory=dict)
    edges: tuple[EdgeState, ...] = ()

    def edge(self, edge_id: UUID) -> EdgeState | None:
        return next((e for e in self.edges if e.id == edge_id), None)


class Verdicts(Protocol):
    """Where verdicts are shared. Both raise what the driver raises; what was not written is decided again."""

    async def read(
        self, connection: Any, now_s: float
    ) -> tuple[dict[UUID, Kept], dict[str, Kept], list[Report]]: ...
    async def write(self, look: Look, moved: list[RegionTransition]) -> None: ...


class FleetView:
    """`look`: the newest, with the reasons for everything."""

    def __init__(self, db: Database, verdicts: Verdicts | None = None) -> None:
        self._db = db
        self._verdicts = verdicts
        self._detector = Detector()
        self._own: dict[UUID, tuple[Kept, float]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._sure_since_s: float | None = None
        self.now = Fleet()
        self.look = Look()

    def regions_of(self, edges: tuple[UUID, ...]) -> set[str]:
        """The regions of these edges, as far as they are known."""
        wanted = set(edges)
        return {e.region for e in self.now.edges if e.id in wanted}

    def is_revoked(self, edge_id: UUID) -> bool:
        edge = self.now.edge(edge_id)
        return edge is not None and edge.revoked_at is not None

    def sure_s(self) -> float:
        """For how long this instance has judged every edge by what it has seen itself; 0 while it has not, as in the first seconds of
        its life."""
        since_s = self._sure_since_s
        return 0.0 if since_s is None else max(asyncio.get_running_loop().time() - since_s, 1e-3)

    async def refresh(self) -> None:
        async with self._one_at_a_time:
            await self._refresh()

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        kept = self._kept(began_s)
        kept_regions: dict[str, Kept] = {}
        reports: list[Report] = []
        async with self._db.pool("admin").acquire() as connection:
            regions = await connection.fetch(SELECT_REGIONS)
            rows = await connection.fetch(SELECT_EDGES)
            coming = {r["to_edge"]: r["calls"] or 0 for r in await connection.fetch(SELECT_COMING)}
            if self._verdicts is not None:
                kept, kept_regions, reports = await self._verdicts.read(connection, loop.time())
        now_s = loop.time()
        judged = [_edge_row(r) for r in rows if not r["stopped"]]
        look = self._detector.look(now_s, judged, kept, reports, read_s=now_s - began_s)
        edges = tuple(_edge_state(r, look.judgements.get(r["id"])) for r in rows)
        self.look = look
        if not look.proven:
            self._sure_since_s = None
        elif self._sure_since_s is None:
            self._sure_since_s = now_s
        known = {r["id"]: _region_state(r, edges) for r in regions}
        self.now = Fleet(regions=known, edges=_reserving(known, edges, coming))
        self._show()
        await self._settle(look, region_transitions(look, kept, kept_regions), now_s)

    def _kept(self, now_s: float) -> dict[UUID, Kept]:
        return {i: Kept(state=k.state, age_s=now_s - since_s) for i, (k, since_s) in self._own.items()}

    async def _settle(self, look: Look, moved: list[RegionTransition], now_s: float) -> None:
        if self._verdicts is None:
            for transition in look.transitions:
                self._own[transition.edge] = (Kept(state=transition.after), now_s)
        elif look.transitions or moved:
            try:
                await self._verdicts.write(look, moved)
            except DATABASE_ERRORS as error:
                log.info("health.not_written", error=type(error).__name__)

    def _show(self) -> None:
        """Metrics."""
        detector_abstains.set(bool(self.look.abstains))
        for region in self.now.regions.values():
            for verdict in ORDER:
                region_health.labels(region.id, verdict).set(region.health == verdict)
            stand_at_zero(region.id)
            phis = [j.signals.phi for j in self.look.judgements.values() if j.region == region.id]
            heartbeat_phi.labels(region.id).set(max(phis, default=0.0))
            edges = [e for e in self.now.edges if e.region == region.id and not e.stopped and not e.silent]
            region_calls.labels(region.id).set(sum(e.calls for e in edges))
            region_capacity.labels(region.id).set(sum(e.capacity_calls for e in edges))
        for verdict in ORDER:
            edges_by_verdict.labels(verdict).set(
                sum(e.health == verdict and not e.stopped for e in self.now.edges)
            )

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, REFRESH_S):
            await self.refresh()


def _edge_row(row: Any) -> EdgeRow:
    return EdgeRow(
        id=row["id"], region=row["region"], seen_at=row["seen_at"], db_silent_s=row["silent_s"], calls=row["calls"]
    )  # fmt: skip


def _edge_state(row: Any, judged: Judgement | None) -> EdgeState:
    """`judged` None: it has stopped."""
    return EdgeState(
        id=row["id"],
        region=row["region"],
        name=row["name"].partition("~")[0],
        incarnation=row["incarnation"],
        media_url=row["media_url"],
        http_url=row["http_url"],
        webrtc=row["webrtc"],
        software=row["software"],
        capacity_calls=row["capacity_calls"],
        calls=row["calls"],
        health=judged.health if judged is not None else "down",
        admin_state=row["admin_state"],
        draining=row["stopping"],
        weight=judged.weight if judged is not None else 0.0,
        action=judged.action if judged is not None else "none",
        refusing=judged is not None and judged.refusing,
        silent=judged is None or judged.signals.late,
        stopped=judged is None,
        returns_in_s=judged.returns_in_s if judged is not None else None,
        revoked_at=row["revoked_at"],
        key=EdgeKeyState(
            since=row["key_since"],
            asked_at=row["key_asked_at"],
            before_until=row["key_before_until"],
            misuses=row["key_misuses"],
            misused_at=row["key_misused_at"],
        ),
    )


def _reserving(
    regions: dict[str, RegionState], edges: tuple[EdgeState, ...], coming: dict[UUID | None, int]
) -> tuple[EdgeState, ...]:
    """`coming`: by edge, those on their way; under None those that have yet to leave somewhere."""
    if not any(coming.values()):
        return edges
    staying = [
        e
        for e in edges
        if e.health in ("healthy", "probation")
        and (e.admin_state, regions[e.region].admin_state, e.draining, e.action)
        == ("active", "active", False, "none")
    ]
    free = {e.id: max(0, e.capacity_calls - e.calls - coming.get(e.id, 0)) for e in staying}
    shares = kept(coming.get(None, 0), free, sum(e.capacity_calls for e in staying))
    return tuple(replace(e, coming=coming.get(e.id, 0) + shares.get(e.id, 0)) for e in edges)


def _region_state(row: Any, edges: tuple[EdgeState, ...]) -> RegionState:
    return RegionState(
        id=row["id"],
        name=row["name"],
        jurisdiction=row["jurisdiction"],
        admin_state=row["admin_state"],
        health=region_verdict([e.health for e in edges if e.region == row["id"]]),
        latitude=row["latitude"],
        longitude=row["longitude"],
        weight=row["weight"],
        proximity=row["proximity"],
        price_ms=row["price_ms"],
        version=row["version"],
    )
