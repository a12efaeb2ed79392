"""Keeps standbys worth something: a call whose standby was drained, cordoned, lost or used up gets others, and its caller a ticket.

Which is the plan's (`app.fleet.standbys`). Looks again as soon as the fleet has changed, and now and then besides, for a takeover
uses a standby up. Every instance does it: a call's new grants are given once, to whoever comes first. The ticket goes down the
uplink of the call's owner, which hands it to the caller over the connection that lives.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import groupby
from uuid import UUID

import structlog

from app.fleet.desired import topic
from app.fleet.drain_worker import SoughtBy
from app.fleet.standby_store import StandbyStore
from app.fleet.standbys import Guarded, Renewal, is_good, plan_standbys
from app.fleet.view import FleetView
from app.hints import Hints
from app.supervisor import wait_for_stop
from app.telemetry import standbys_renewed_total

log = structlog.get_logger()

LOOK_S = 0.5
CHANGED_FOR_S = 15.0
"""After a change of the fleet calls are looked at this long without a pause: their owners change, too."""
EVERY_S = 10.0


class StandbyWorker:
    """`granted`: told of each call that has new standbys."""

    def __init__(
        self,
        store: StandbyStore,
        fleet: FleetView,
        hints: Hints,
        *,
        sought: SoughtBy,
        granted: Callable[[UUID], None],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._hints = hints
        self._sought = sought
        self._granted = granted

    async def worker(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        known: frozenset[tuple[UUID, UUID]] | None = None
        changed_s = looked_s = loop.time()
        while not await wait_for_stop(stop, LOOK_S * (0.5 + random.random())):
            now_s = loop.time()
            good = frozenset(
                (e.id, e.incarnation) for e in self._fleet.now.edges if is_good(self._fleet.now, e)
            )
            if good != known:
                known, changed_s = good, now_s
            if now_s - changed_s < CHANGED_FOR_S or now_s - looked_s >= EVERY_S:
                looked_s = now_s
                await self.round()

    async def round(self) -> int:
        """How many calls have been given standbys."""
        fleet = self._fleet.now
        good = [e for e in fleet.edges if is_good(fleet, e)]
        if len(good) < 2:
            return 0
        calls = []
        for exposed in await self._store.exposed(fleet, good, random.getrandbits(62)):
            sought = self._sought(exposed.request, exposed.candidates)
            calls.append(
                Guarded(
                    call_id=exposed.call_id,
                    epoch=exposed.epoch,
                    granted=exposed.granted,
                    edge_id=exposed.edge_id,
                    standbys=exposed.standbys,
                    wishes=sought.wishes,
                    measured=sought.measured,
                    recorded=sought.recorded,
                )
            )
        renewed = 0
        planned = sorted(plan_standbys(fleet, calls, draw=random.random()), key=_owner)
        for owner, group in groupby(planned, key=_owner):
            done = await self._store.renew(owner, list(group))
            for call_id in done:
                self._granted(call_id)
            if done:
                self._hints.wake(topic(owner))
            renewed += len(done)
        if renewed:
            standbys_renewed_total.inc(renewed)
            log.info("fleet.standbys_renewed", calls=renewed, exposed=len(calls))
        return renewed


def _owner(renewal: Renewal) -> UUID:
    return renewal.call.edge_id
