"""Carries a drill on, round by round. Any instance does; a round belongs to whoever claims it, and killing one changes nothing.

What to do is the plan's (`app.fleet.drill_plan`); a round reads the log, settles what is known, decides, and does it. What was
asked of an edge is in the database before it is told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Protocol
from uuid import UUID

import structlog

from app.fleet.desired import topic
from app.fleet.drain_worker import FleetFacts
from app.fleet.drill_plan import Actions, Bounds, Candidate, Halt, Standing, decide, destinations
from app.fleet.drill_policy import unfit
from app.fleet.drill_report import UNTOUCHED, result_of
from app.fleet.drill_shapes import DrillRequest
from app.fleet.drill_store import Drill, DrillStore
from app.fleet.policy import Target
from app.fleet.view import FleetView
from app.hints import Hints
from app.ids import parse
from app.log.append import Appender
from app.supervisor import wait_for_stop
from regions.wire import ids
from regions.wire.events import Source
from regions.wire.uplink import Cut

log = structlog.get_logger()

TOPIC = "drills"
POLL_S = 1.0
ROUND_S = 0.3
NOTED_MAX = 200
"""In one round, which has to be over before its claim is."""


class HasEdge(Protocol):
    @property
    def call_id(self) -> UUID: ...
    @property
    def edge_id(self) -> UUID: ...


class DrillWorker:
    def __init__(
        self, store: DrillStore, fleet: FleetView, hints: Hints, appender: Appender, facts: FleetFacts
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._hints = hints
        self._appender = appender
        self._facts = facts

    async def worker(self, stop: asyncio.Event) -> None:
        woken = self._hints.subscribe(TOPIC)
        try:
            while not stop.is_set():
                if not await self.round():
                    await woken.wait(POLL_S * (0.5 + random.random()))
                else:
                    await wait_for_stop(stop, ROUND_S / 3)
        finally:
            woken.close()

    async def wanted(self, calls: list[UUID]) -> set[UUID]:
        """Those that are to be cut by a drill that goes on. See `app.fleet.orders.CutReports`."""
        return await self._store.wanted(calls)

    async def told(self, edge_id: UUID, cut: list[Cut]) -> None:
        """An edge's word. See `app.fleet.orders.CutReports`."""
        known = [(c, call_id) for c in cut if (call_id := parse(ids.CALL, c.call)) is not None]
        await self._store.told(edge_id, [c for c, _ in known], [i for _, i in known])
        self._hints.wake(TOPIC)

    async def round(self) -> bool:
        """One round; False where no drill was due."""
        drill = await self._store.claim()
        if drill is None:
            return False
        if drill.wave == 0:
            await self._say(drill, "started", {"calls": drill.total, "request": drill.request.calls})
        await self._settle(drill)
        target = self.target_of(drill)
        if target is None:
            await self._end(drill, Halt("stopped", "target_down"))
            return True
        sure_s = self._fleet.sure_s()
        candidates, places = await self.candidates_of(drill.id, drill.request, target)
        actions = decide(
            Standing(
                total=drill.total, wave=drill.wave, late=drill.late,
                halted=Halt(drill.halt, drill.reason) if drill.halt is not None else None,
            ),
            await self._store.followed(drill.id),
            _bounds(drill),
            unfit=unfit(target, gone=self.gone(), drain_running=await self._store.drains(), sure=sure_s > 0),
            available=len(places),
            sure_ms=sure_s * 1000,
        )  # fmt: skip
        await self._act(drill, actions, [c for c in candidates if c.call_id in places])
        if actions.finish is None:
            await self._store.release(
                drill.id, 0.0 if actions.wave else ROUND_S * (0.75 + random.random() / 2)
            )
        return True

    def target_of(self, drill: Drill) -> Target | None:
        fleet = self._fleet.now
        edge = fleet.edge(drill.edge_id) if drill.edge_id is not None else None
        if drill.region not in fleet.regions or (drill.edge_id is not None and edge is None):
            return None
        return Target(fleet, drill.region, edge)

    def gone(self) -> frozenset[UUID]:
        """Edges that have been down for so long that they are no part of the fleet."""
        return frozenset(e for e, j in self._fleet.look.judgements.items() if j.gone)

    async def candidates_of(
        self, drill_id: UUID, request: DrillRequest, target: Target
    ) -> tuple[list[Candidate], dict[UUID, UUID]]:
        """The calls that are there and were not chosen yet, in the drill's own order; and where those go that have somewhere."""
        lost = [e.id for e in target.edges]
        label = request.label if request.calls == "synthetic" else None
        found = await self._store.candidates(lost, label, drill_id, drill_id.int & 0x7FFFFFFFFFFFFFFF)
        edges = {e.id: e for e in target.fleet.edges}
        return found, destinations(found, edges, lost=frozenset(lost))

    # ---------------------------------------------------------------------------------------------- acting

    async def _settle(self, drill: Drill) -> None:
        """Says in each call's own log that a drill cut it, and writes down what became of it."""
        open_calls = await self._store.open_calls(drill.id)
        noted: list[UUID] = []
        for call in open_calls:
            if not call.noted and len(noted) < NOTED_MAX:
                data = {
                    "drill_id": ids.encode(ids.DRILL, drill.id), "kind": drill.request.kind, "how": drill.request.how,
                    "from_region": call.region, "from_epoch": call.epoch,
                }  # fmt: skip
                await self._appender.control(
                    call.project_id, call.call_id, type="call.drilled", data=data, source=Source.CONTROL,
                    source_key=f"drill:{drill.id}",
                )  # fmt: skip
                noted.append(call.call_id)
        if noted:
            await self._store.noted(drill.id, noted)
        said = {c.call_id for c in open_calls if c.noted}.union(noted)
        results = {
            c.call_id: r for c in open_calls if c.call_id in said and (r := result_of(c.seen)) is not None
        }
        if results:
            await self._store.settle(drill.id, results)
        for call in open_calls:
            if (result := results.get(call.call_id)) is not None:
                log.info(
                    "drill.settled", drill=str(drill.id), call=ids.encode(ids.CALL, call.call_id), outcome=result.outcome,
                    rto_ms=result.rto_ms, lost=result.lost_events, to_region=result.to_region,
                )  # fmt: skip

    async def _act(self, drill: Drill, actions: Actions, possible: Sequence[Candidate]) -> None:
        if actions.give_up:
            await self._store.settle(drill.id, dict.fromkeys(actions.give_up, UNTOUCHED))
        if actions.halt is not None:
            await self._halt(drill, actions.halt)
        if actions.wave:
            chosen = possible[: actions.wave]
            await self._store.next_wave(drill.id, drill.wave + 1, chosen)
            await self._ask(drill, chosen)
            log.info("drill.wave", drill=str(drill.id), wave=drill.wave + 1, calls=len(chosen))
        if actions.ask:
            again = set(actions.ask)
            rows = await self._store.calls(drill.id)
            await self._ask(drill, [r for r in rows if r.call_id in again])
        if actions.finish is not None:
            await self._end(drill, actions.finish)

    async def _ask(self, drill: Drill, calls: Sequence[HasEdge]) -> None:
        ordered = sorted(calls, key=lambda c: c.edge_id)
        for edge_id, group in groupby(ordered, key=lambda c: c.edge_id):
            await self._store.ask(drill.id, edge_id, [c.call_id for c in group], drill.request.how)
            self._hints.wake(topic(edge_id))

    async def _halt(self, drill: Drill, halt: Halt) -> None:
        if await self._store.halt(drill.id, halt):
            await self._say_stopped(drill, halt)

    async def _say_stopped(self, drill: Drill, halt: Halt) -> None:
        if halt.verdict in ("stopped", "cancelled"):
            data = {"verdict": halt.verdict, "reason": halt.reason, "wave": drill.wave}
            await self._say(drill, "stopped", data)

    async def _end(self, drill: Drill, halt: Halt) -> None:
        """Each event is written once: whoever comes after an instance that died in here writes what is missing."""
        await self._say_stopped(drill, halt)
        outcomes: dict[str, int] = {}
        rto_ms = 0.0
        for row in await self._store.calls(drill.id):
            outcome = row.result.outcome if row.result is not None else "open"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            rto_ms = max(rto_ms, (row.result.rto_ms if row.result is not None else None) or 0.0)
        await self._say(
            drill, "finished",
            {"verdict": halt.verdict, "reason": halt.reason, "calls": outcomes, "rto_max_ms": rto_ms},
        )  # fmt: skip
        await self._store.finish(drill.id, halt)

    async def _say(self, drill: Drill, what: str, data: Mapping[str, object]) -> None:
        said = {"drill_id": ids.encode(ids.DRILL, drill.id), "kind": drill.request.kind, **data}
        await self._facts.write(
            f"drill:{drill.id}:{what}", f"drill.{what}", drill.region, drill.edge_id, said
        )
        log.info(f"drill.{what}", region=drill.region, **said)


def _bounds(drill: Drill) -> Bounds:
    wanted = drill.request.bounds
    return Bounds(
        max_rto_ms=wanted.max_rto_ms,
        max_lost_events=wanted.max_lost_events,
        max_failed_calls=wanted.max_failed_calls,
    )
