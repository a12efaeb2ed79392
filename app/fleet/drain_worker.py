"""Carries drains out, round by round. Any number of instances do this side by side; a round belongs to whoever claims it.

What to do is the plan's (`app.fleet.plan`); a round reads, plans, asks and writes down what is stuck. An instance that dies in one
loses nothing: what it has asked is in the database, and the next one looks again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import Any, Protocol
from uuid import UUID

import structlog

from app.fleet.desired import topic
from app.fleet.drain_store import DRAINS_TOPIC, Asked, Candidate, Drain, DrainStore
from app.fleet.plan import Ask, DrainPlan, Leaving, Pace, plan_drain
from app.fleet.view import EdgeState, FleetView
from app.hints import Hints
from app.placement.again import Sought
from app.supervisor import wait_for_stop
from regions.wire import ids

log = structlog.get_logger()

POLL_S = 1.0
ROUND_S = 0.4
DRAINED_S = 1.5
SoughtBy = Callable[[bytes, bytes], Sought]
"""A call's stored request and the candidates of its first placement, as they count now."""


class FleetFacts(Protocol):
    async def write(
        self, key: str, type_: str, region: str, edge_id: UUID | None, data: dict[str, Any]
    ) -> None:
        """One event of the fleet, once per `key`. Raises what the driver raises."""
        ...


class DrainWorker:
    def __init__(
        self,
        store: DrainStore,
        fleet: FleetView,
        hints: Hints,
        *,
        sought: SoughtBy,
        granted: Callable[[UUID], None],
        remind: Callable[[list[Asked]], Awaitable[None]],
        facts: FleetFacts | None = None,
        stopped: Callable[[Drain], Awaitable[None]],
        pace: Pace | None = None,
    ) -> None:
        """`granted`: told of each call that has new standbys. `remind`: tells edges of moves whose deadline has changed. `stopped`:
        the edge of this drain has stopped, or lives anew."""
        self._store = store
        self._fleet = fleet
        self._hints = hints
        self._sought = sought
        self._granted = granted
        self._remind = remind
        self._facts = facts
        self._stopped = stopped
        self._pace = pace or Pace()

    async def worker(self, stop: asyncio.Event) -> None:
        woken = self._hints.subscribe(DRAINS_TOPIC)
        try:
            while not stop.is_set():
                if not await self.round():
                    await woken.wait(POLL_S * (0.5 + random.random()))
                else:
                    await wait_for_stop(stop, ROUND_S / 4)
        finally:
            woken.close()

    async def round(self) -> bool:
        """One round of one drain; False where none was due."""
        drain = await self._store.claim()
        if drain is None:
            return False
        await self._store.settle()
        await self._remind(await self._store.hurry(drain.id))
        edges = self._edges(drain)
        stopped = _has_stopped(drain, edges)
        ids_ = [e.id for e in edges]
        asked, live = await self._store.open(ids_)
        # whom no command reaches is asked nothing: its callers leave by themselves
        heard = [
            e.id
            for e in edges
            if not stopped and not e.revoked_at and not (e.silent and drain.by == "detector")
        ]
        plan, reserved = DrainPlan(), dict[UUID, int]()
        if live > asked and heard:
            reserved, hurried = await self._store.reserved()
            plan = await self._plan(drain, heard, asked, reserved, hurried)
        moved = await self._ask(drain, [*plan.ask, *plan.force], reserved)
        drained = live == 0
        if drained and drain.drained_at is None:
            # what has ended since the first: whoever sees that it is done sees what became of all
            await self._store.settle()
        pause_s = (DRAINED_S if drained else ROUND_S) * (0.75 + random.random() / 2)
        took_s = await self._store.release(drain.id, pause_s, plan.stuck, drained=drained)
        if moved or plan.stuck:
            log.info(
                "fleet.draining",
                region=drain.region,
                edge=_edge_id(drain),
                kind=drain.kind,
                left=live,
                under_way=asked + moved,
                asked=moved,
                stuck=len(plan.stuck),
            )
        if took_s is not None:
            await self._say_drained(drain, edges, round(took_s, 3))
        if stopped:
            await self._stopped(drain)
        return True

    def _edges(self, drain: Drain) -> list[EdgeState]:
        return [
            e for e in self._fleet.now.edges if e.region == drain.region and drain.edge_id in (None, e.id)
        ]

    async def _plan(
        self,
        drain: Drain,
        edges: list[UUID],
        asked: int,
        reserved: dict[UUID, int],
        hurried: dict[UUID, int],
    ) -> DrainPlan:
        seed = random.getrandbits(62)
        candidates = await self._store.leaving(edges, drain.id, seed)
        return plan_drain(
            self._fleet.now,
            [self._leaving(c) for c in candidates],
            leaving=frozenset(edges),
            reserved=reserved,
            hurried=hurried,
            under_way=asked,
            late=drain.late or drain.kind == "evacuate",
            pace=self._pace,
            seed=seed,
        )

    def _leaving(self, candidate: Candidate) -> Leaving:
        sought = self._sought(candidate.request, candidate.candidates)
        return Leaving(
            call_id=candidate.call_id,
            epoch=candidate.epoch,
            edge_id=candidate.edge_id,
            wishes=sought.wishes,
            measured=sought.measured,
            recorded=sought.recorded,
            failures=candidate.failures,
        )

    async def _ask(self, drain: Drain, asks: list[Ask], reserved: dict[UUID, int]) -> int:
        """How many are asked now: others may have been quicker, with a call or with a place. `reserved`: as the plan saw it."""
        moved = 0
        given = Counter(reserved)
        by_edge = sorted(asks, key=lambda a: a.call.edge_id)
        for from_edge, group in groupby(by_edge, key=lambda a: a.call.edge_id):
            ours = list(group)
            done = await self._store.move(drain.id, from_edge, drain.force_at, ours, given)
            given.update(a.edges[0].id for a in ours if a.call.call_id in done)
            for call_id in done:
                self._granted(call_id)
            if done:
                self._hints.wake(topic(from_edge))
            moved += len(done)
        return moved

    async def _say_drained(self, drain: Drain, edges: list[EdgeState], took_s: float) -> None:
        for edge in edges:
            data = {
                "name": edge.name,
                "by": drain.by,
                "kind": drain.kind,
                "calls": drain.total,
                "took_s": took_s,
            }
            log.info("edge.drained", region=edge.region, edge=edge.name, took_s=took_s, kind=drain.kind)
            if self._facts is not None:
                await self._facts.write(
                    f"drained:{drain.id}:{edge.id}", "edge.drained", edge.region, edge.id, data
                )


def _has_stopped(drain: Drain, edges: list[EdgeState]) -> bool:
    """A drain that an edge has asked for ends with it."""
    if drain.incarnation is None:
        return False
    return not any(e.incarnation == drain.incarnation and e.health != "down" for e in edges)


def _edge_id(drain: Drain) -> str:
    return ids.encode(ids.EDGE, drain.edge_id) if drain.edge_id is not None else ""
