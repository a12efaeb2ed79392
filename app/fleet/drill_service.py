"""Operators' drills: begun, previewed, stopped, shown.

Whether one may begin is the policy's (`app.fleet.drill_policy`); it is decided one after the other with all commands to the fleet,
over all instances. Carrying it out is the worker's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import structlog

from app.audit.service import Audit
from app.errors import Conflict, FieldError, Invalid, NotFound
from app.fleet import drill_views as views
from app.fleet.drain_store import DrainStore
from app.fleet.drill_plan import Halt, total_of, wave_size
from app.fleet.drill_policy import refusal
from app.fleet.drill_shapes import Destination, DrillPreview, DrillRequest, DrillView
from app.fleet.drill_store import Drill, DrillStore
from app.fleet.drill_worker import TOPIC, DrillWorker
from app.fleet.policy import Target
from app.fleet.view import Fleet, FleetView
from app.hints import Hints
from app.ids import new_id, parse
from regions.wire import ids

log = structlog.get_logger()


class Drills:
    def __init__(
        self, store: DrillStore, commands: DrainStore, worker: DrillWorker, fleet: FleetView, hints: Hints, cell: int, audit: Audit
    ) -> None:  # fmt: skip
        """`commands`: whose lock all commands to the fleet take."""
        self._store = store
        self._commands = commands
        self._worker = worker
        self._fleet = fleet
        self._hints = hints
        self._cell = cell
        self._audit = audit
        self._one_at_a_time = asyncio.Lock()

    async def begin(self, request: DrillRequest) -> DrillView | DrillPreview:
        """The preview where it is asked for a dry run. Raises `NotFound`, `Invalid` or `Conflict`."""
        if (request.calls == "synthetic") != (request.label is not None):
            raise Invalid(
                "A drill of synthetic calls names them by their label; one of real calls names none.",
                errors=[
                    FieldError(pointer="/label", detail="give it with `calls: synthetic`, and only then")
                ],
                fix="`voxplane drill --synthetic 10` places such calls and names them.",
            )
        async with self._one_at_a_time, self._commands.commanding() as connection:
            await self._fleet.refresh()
            target = self._target(request, self._fleet.now)
            drill_id = new_id(self._cell)
            preview = await self._check(connection, drill_id, request, target)
            if request.dry_run:
                self._audit.unchanged("drill.started")
                return preview
            edge_id = target.edge.id if target.edge is not None else None
            await self._store.start(connection, drill_id, target.region, edge_id, request, preview.total)
            said = {"kind": request.kind, "target": request.target, "calls": preview.total}
            await self._audit.record(
                connection, "drill.started", ids.encode(ids.DRILL, drill_id), summary=said
            )
        log.info(
            "drill.begun", drill=str(drill_id), region=target.region, kind=request.kind, calls=preview.total
        )
        self._hints.wake(TOPIC)
        return await self._view(drill_id)

    async def stop(self, text: str) -> DrillView:
        """No more calls are cut; those that were are followed to their end. As good as nothing on one that has ended."""
        drill = await self._known(text)
        async with self._store.changing() as connection:
            halted = await self._store.halt(drill.id, Halt("cancelled", "operator"), connection)
            if halted:
                await self._audit.record(connection, "drill.stopped", ids.encode(ids.DRILL, drill.id))
            else:
                self._audit.unchanged("drill.stopped")
        if halted:
            log.info("drill.cancelled", drill=str(drill.id))
            self._hints.wake(TOPIC)
        return await self._view(drill.id)

    async def show(self, text: str) -> DrillView:
        return await self._view((await self._known(text)).id)

    async def all(self) -> list[DrillView]:
        """The newest first, without their calls."""
        return [views.drill_view(d, None) for d in await self._store.drills()]

    def _target(self, request: DrillRequest, fleet: Fleet) -> Target:
        if request.kind == "region.loss":
            if request.target not in fleet.regions:
                raise NotFound("There is no such region.", fix="GET /admin/v1/regions lists them.")
            return Target(fleet, request.target, None)
        edge_id = parse(ids.EDGE, request.target)
        edge = fleet.edge(edge_id) if edge_id is not None else None
        if edge is None:
            raise NotFound("There is no such edge.", fix="GET /admin/v1/edges lists them.")
        return Target(fleet, edge.region, edge)

    async def _check(
        self, connection: Any, drill_id: UUID, request: DrillRequest, target: Target
    ) -> DrillPreview:
        """What it would do, or a refusal."""
        edge_id = target.edge.id if target.edge is not None else None
        found, places = await self._worker.candidates_of(drill_id, request, target)
        running = await self._store.running(connection)
        refused = refusal(
            target,
            gone=self._worker.gone(),
            drill_running=ids.encode(ids.DRILL, running) if running is not None else "",
            drain_running=await self._store.drains(),
            calls=len(found),
            protected=len(places),
        )
        if refused is not None:
            raise refused
        total = total_of(len(found), request.share, request.max_calls, len(places))
        going = Counter([places[c.call_id] for c in found if c.call_id in places][:total])
        return DrillPreview(
            kind=request.kind,
            region=target.region,
            edge=ids.encode(ids.EDGE, edge_id) if edge_id is not None else None,
            on_target=len(found),
            unprotected=len(found) - len(places),
            total=total,
            waves=_waves(total),
            destinations=[
                Destination(edge=ids.encode(ids.EDGE, e), region=edge.region, calls=n)
                for e, n in going.most_common()
                if (edge := target.fleet.edge(e)) is not None
            ],
        )

    async def _known(self, text: str) -> Drill:
        drill_id = parse(ids.DRILL, text)
        drill = await self._store.drill(drill_id) if drill_id is not None else None
        if drill is None:
            raise NotFound("There is no such drill.", fix="GET /admin/v1/drills lists them.")
        return drill

    async def _view(self, drill_id: UUID) -> DrillView:
        drill = await self._store.drill(drill_id)
        if drill is None:
            raise Conflict("The drill was removed meanwhile.", fix="GET /admin/v1/drills lists them.")
        return views.drill_view(drill, await self._store.calls(drill_id))


def _waves(total: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(wave_size(total, len(sizes) + 1, sum(sizes)))
    return sizes
