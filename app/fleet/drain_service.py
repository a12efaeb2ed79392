"""Operators' commands to regions and edges: cordon, drain, evacuate, uncordon; and what an edge that is told to stop asks for.

Whether a command may be carried out is the policy's (`app.fleet.policy`). Commands are decided one after the other over all
instances, each on what the one before has left.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import structlog

from app.audit.service import Audit
from app.clock import rfc3339
from app.errors import NotFound
from app.fleet.desired import Commands
from app.fleet.drain_shapes import DrainView, StuckView
from app.fleet.drain_store import DRAINS_TOPIC, Asked, Drain, DrainStore
from app.fleet.drain_worker import FleetFacts
from app.fleet.policy import Target, refusal, takes_first
from app.fleet.view import EdgeState, FleetView
from app.hints import Hints
from app.ids import new_id, parse
from regions.wire import ids

log = structlog.get_logger()

DONE = {"cordon": "cordoned", "uncordon": "uncordoned", "drain": "drained", "evacuate": "evacuated"}
FORCED_SHARE = 0.75
"""An edge that stops hands over by closing at its deadline: what can be moved is moved before."""


class Drains:
    def __init__(
        self,
        store: DrainStore,
        fleet: FleetView,
        commands: Commands,
        hints: Hints,
        cell: int,
        facts: FleetFacts | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._facts = facts
        self._audit = audit
        self._store = store
        self._fleet = fleet
        self._commands = commands
        self._hints = hints
        self._cell = cell
        self._one_at_a_time = asyncio.Lock()
        """A command waits for the others here, not with a connection in its hands: it needs a second one for the fleet."""

    async def region(self, verb: str, region: str, within_s: float) -> DrainView | None:
        """`verb`: ``cordon``, ``drain``, ``evacuate``, ``uncordon``. The drain, where there is one. Raises `NotFound`, `Conflict`."""
        return await self._command(verb, region, None, within_s)

    async def edge(self, verb: str, edge: str, within_s: float) -> DrainView | None:
        edge_id = await self._known(edge)
        return await self._command(verb, edge_id.region, edge_id.id, within_s)

    async def of_region(self, region: str) -> DrainView:
        """The newest drain of the region. Raises `NotFound`."""
        return await self._newest(region, None)

    async def of_edge(self, edge: str) -> DrainView:
        known = await self._known(edge)
        return await self._newest(known.region, known.id)

    async def all(self, limit: int) -> list[DrainView]:
        """Those that run first, the newest of each first."""
        return [await self._view(drain) for drain in await self._store.all(limit)]

    async def evacuation(self, edge_id: UUID) -> DrainView | None:
        """What runs there by the detector's word, or in its place."""
        edge = self._fleet.now.edge(edge_id)
        drain = await self._store.newest(edge.region, edge_id) if edge is not None else None
        return await self._view(drain) if drain is not None and drain.ended_at is None else None

    async def _known(self, text: str) -> EdgeState:
        await self._fleet.refresh()
        edge_id = parse(ids.EDGE, text)
        edge = self._fleet.now.edge(edge_id) if edge_id is not None else None
        if edge is None:
            raise NotFound("There is no such edge.", fix="GET /admin/v1/edges lists them.")
        return edge

    async def _command(
        self, verb: str, region: str, edge_id: UUID | None, within_s: float
    ) -> DrainView | None:
        async with self._one_at_a_time, self._store.commanding() as connection:
            await self._fleet.refresh()
            fleet = self._fleet.now
            if region not in fleet.regions:
                raise NotFound("There is no such region.", fix="GET /admin/v1/regions lists them.")
            target = Target(fleet, region, fleet.edge(edge_id) if edge_id is not None else None)
            running = await self._store.running(connection, region, edge_id)
            own = running if running is not None and running.by != "detector" else None
            refused = refusal(verb, target, own.kind if own is not None else None)
            if refused is not None:
                raise refused
            off: list[Asked] = []
            if verb in ("drain", "evacuate"):
                await self._begin(connection, verb, target, running, 0.0 if verb == "evacuate" else within_s)
            elif running is not None and (verb == "uncordon" or own is not None):
                off = await self._store.end(connection, running.id, "canceled")
            state = {"cordon": "cordoned", "uncordon": "active"}.get(verb, "draining")
            await self._store.set_state(connection, region, edge_id, state)
            await self._note(connection, verb, target, within_s)
        await self._fleet.refresh()
        log.info("fleet.commanded", verb=verb, region=region, edge=str(edge_id or ""))
        await self._tell(target)
        if verb in ("drain", "evacuate") and running is not None:
            off = await self._store.under_way(running.id)
        await self.remind(off)
        self._hints.wake(DRAINS_TOPIC)
        if verb in ("drain", "evacuate") or running is not None:
            return await self._newest(region, edge_id)
        return None

    async def _begin(
        self, connection: Any, kind: str, target: Target, running: Drain | None, within_s: float
    ) -> None:
        if running is not None:
            await self._store.change(connection, running.id, kind, within_s)
            return
        total = await self._store.count_calls([e.id for e in target.edges])
        edge_id = target.edge.id if target.edge is not None else None
        await self._store.start(
            connection, new_id(self._cell), target.region, edge_id, None, kind, within_s, total
        )

    async def _note(self, connection: Any, verb: str, target: Target, within_s: float) -> None:
        if self._audit is None:
            return
        kind, name = "region", target.region
        if target.edge is not None:
            kind, name = "edge", ids.encode(ids.EDGE, target.edge.id)
        said = {"region": target.region} | ({"within_s": within_s} if verb == "drain" else {})
        await self._audit.record(connection, f"{kind}.{DONE[verb]}", name, summary=said)

    async def _tell(self, target: Target) -> None:
        """Whether who comes for the first time is to be served, as it is now: an edge that has registered meanwhile reads the
        same (`Registration`), so that one of the two sees what the other has done."""
        fleet = self._fleet.now
        wanted = target.edge.id if target.edge is not None else None
        for edge in fleet.edges:
            if edge.region == target.region and wanted in (None, edge.id):
                await self._commands.drain(edge.id, on=not takes_first(fleet, edge))

    async def remind(self, moves: list[Asked]) -> None:
        """Their edges learn of the new deadline, or that the move is off: which of the two is looked up when it is sent."""
        for call_id, from_edge, epoch in moves:
            await self._commands.move(call_id, from_edge, epoch)

    # ----------------------------------------------------------------------------------- an edge that stops

    async def stopping(self, edge_id: UUID, incarnation: UUID, left_s: float) -> None:
        """The edge was told to stop in `left_s`: its calls are moved off first. Raises what the driver raises."""
        edge = self._fleet.now.edge(edge_id)
        if edge is None:
            return
        within_s = left_s * FORCED_SHARE
        total = await self._store.count_calls([edge_id])
        async with self._one_at_a_time, self._store.commanding() as connection:
            running = await self._store.running(connection, edge.region, edge_id)
            if running is not None:
                await self._store.stopping(connection, edge_id, incarnation, within_s)
            else:
                await self._store.start(
                    connection,
                    new_id(self._cell),
                    edge.region,
                    edge_id,
                    incarnation,
                    "drain",
                    within_s,
                    total,
                )
        if running is not None:
            await self.remind(await self._store.under_way(running.id))
        log.info("edge.stopping", region=edge.region, edge=edge.name, calls=total, left_s=round(left_s, 1))
        self._hints.wake(DRAINS_TOPIC)

    async def has_stopped(self, edge_id: UUID, incarnation: UUID) -> None:
        """Its last word: nobody waits for its heartbeats any more. Raises what the driver raises."""
        region = await self._store.stopped(edge_id, incarnation)
        if region is None:
            return
        log.info("edge.stopped", region=region, edge=str(edge_id))
        if self._facts is not None:
            data = {"incarnation": str(incarnation)}
            await self._facts.write(f"stopped:{edge_id}:{incarnation}", "edge.stopped", region, edge_id, data)
        self._hints.wake(DRAINS_TOPIC)

    async def stopped(self, drain: Drain) -> None:
        async with self._one_at_a_time, self._store.commanding() as connection:
            await self._store.end(connection, drain.id, "stopped")

    # ------------------------------------------------------------------------------------------------ progress

    async def _newest(self, region: str, edge_id: UUID | None) -> DrainView:
        drain = await self._store.newest(region, edge_id)
        if drain is None:
            if edge_id is None and region not in self._fleet.now.regions:
                raise NotFound("There is no such region.", fix="GET /admin/v1/regions lists them.")
            raise NotFound("It was never drained.", fix="POST …/drain begins a drain.")
        return await self._view(drain)

    async def _view(self, drain: Drain) -> DrainView:
        region, edge_id = drain.region, drain.edge_id
        edges = [e.id for e in self._fleet.now.edges if e.region == region and edge_id in (None, e.id)]
        asked, live = await self._store.open(edges)
        done = await self._store.progress(drain.id)
        return DrainView(
            region=region,
            edge=ids.encode(ids.EDGE, edge_id) if edge_id is not None else None,
            kind=drain.kind,
            by=drain.by,
            state=drain.outcome or ("drained" if drain.drained_at is not None and live == 0 else "running"),
            total=drain.total,
            moved=done.get("moved", 0),
            ended=done.get("ended", 0),
            failed=done.get("failed", 0),
            left=live,
            under_way=asked,
            stuck=[StuckView(call_id=ids.encode(ids.CALL, s.call_id), why=s.why) for s in drain.stuck[:100]]
            if drain.ended_at is None
            else [],
            started_at=rfc3339(drain.started_at),
            deadline=rfc3339(drain.force_at),
            drained_at=rfc3339(drain.drained_at) if drain.drained_at else None,
            ended_at=rfc3339(drain.ended_at) if drain.ended_at else None,
        )
