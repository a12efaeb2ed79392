"""Moves calls that have asked for it to a region that has been nearer for a while, once a window.

Whether and where is the pure core's (`app.placement.gain`). An instance knows what its own edges have witnessed, so each looks at the
calls whose ways it has heard of, and no instance leads: a call that two of them want to move is being moved when the second comes.
The move is one of the ordinary orders, at the end of a turn; if none comes in time the call stays where it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog

from app.clock import Clock
from app.connection import DATABASE_ERRORS
from app.fleet.desired import topic
from app.fleet.drain_store import DrainStore
from app.fleet.drain_worker import SoughtBy
from app.fleet.gain_store import GainStore, Watched
from app.fleet.plan import Ask, Leaving, Room
from app.fleet.view import FleetView
from app.hints import Hints
from app.placement.again import Sought
from app.placement.choice import Candidate, Measured, Placement, choose
from app.placement.claims import Claims
from app.placement.gain import WINDOW_S, WINDOWS, Gain, Rows, Way, look
from app.placement.learning import Learning
from app.placement.networks import Network
from app.placement.policy import policy_of
from app.placement.service import FRESH_S, backend_of, of_claims
from app.supervisor import wait_for_stop
from app.telemetry import gain_moves_total
from regions.wire import ids
from regions.wire.ticket import MovedFor

log = structlog.get_logger()

WITHIN_S = 30.0
"""So long the end of a turn is waited for; then the call stays."""
ABLE = frozenset({"chosen", "two_choices", "costlier"})
"""Reasons of regions that may take the call, are healthy and have room beside the reserve."""


class GainWorker:
    """`granted`: told of each call that has new standbys. `asks`: of a stored request its network and its backend's URL."""

    def __init__(
        self,
        store: GainStore,
        moves: DrainStore,
        fleet: FleetView,
        learning: Learning,
        hints: Hints,
        clock: Clock,
        *,
        sought: SoughtBy,
        asks: Callable[[bytes], tuple[str | None, str]],
        claims: Claims,
        granted: Callable[[UUID], None],
    ) -> None:
        self._store = store
        self._moves = moves
        self._fleet = fleet
        self._learning = learning
        self._lately = learning.listen()
        self._hints = hints
        self._clock = clock
        self._sought = sought
        self._asks = asks
        self._claims = claims
        self._granted = granted
        self._rows: dict[tuple[UUID, int], Rows] = {}

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, WINDOW_S):
            try:
                await self.round()
            except DATABASE_ERRORS as error:
                self._rows = {}
                log.info("gain.not_looked", error=type(error).__name__)

    async def round(self) -> int:
        """One window. How many calls have been asked to move."""
        heard = self._lately.take()
        rows: dict[tuple[UUID, int], Rows] = {}
        moved = 0
        regions = sorted({region for _, region in heard})
        if regions:
            async for call in self._store.watched(regions):
                key = (call.call_id, call.epoch)
                rows[key], gain = self._look(call, heard)
                if gain is not None:
                    moved += await self._move(call, gain)
        self._rows = {key: found for key, found in rows.items() if found}
        return moved

    def _look(self, call: Watched, heard: dict[tuple[int, str], float]) -> tuple[Rows, Gain | None]:
        text, url = self._asks(call.request)
        network = self._learning.network_of(text) if text is not None else None
        here_ms = heard.get((network.number, call.region)) if network is not None else None
        if network is None or here_ms is None:
            return {}, None
        ways = {w.region: w for w in self._ways(call, network, url, here_ms)}
        here = ways.pop(call.region, None)
        rows = self._rows.get((call.call_id, call.epoch), {})
        return look(rows, here.ms if here is not None else None, list(ways.values()), call.moved_ago_s)

    def _ways(self, call: Watched, network: Network, url: str, here_ms: float) -> list[Way]:
        """As a placement of this very call would see them now, where it is by what was witnessed."""
        fleet, now = self._fleet.now, self._clock.now()
        sought = self._sought(call.request, call.candidates)
        claims = of_claims(self._claims.recall(call.project_id, network.number, now), now)
        fresh = {r: m for r, m in {**sought.measured, **claims}.items() if m.age_s <= FRESH_S}
        fresh[call.region] = Measured(rtt_ms=here_ms)
        known = self._learning.known(network, {r: m.rtt_ms for r, m in fresh.items()})
        backend = backend_of(url)
        placed = choose(
            fleet,
            fresh,
            sought.wishes,
            draw=call.call_id.int % 997 / 997,
            priors=self._learning.priors(known),
            backend_ms={} if backend is None else self._learning.backend_ms(backend.host),
            policy=policy_of(fleet.regions),
        )
        if not isinstance(placed, Placement) or placed.panic:
            return []
        legs = [c.backend_ms for c in placed.candidates if c.backend_ms is not None]
        leg_ms = sum(legs) / len(legs) if legs else 0.0
        return [_way(c, leg_ms) for c in placed.candidates]

    async def _move(self, call: Watched, gain: Gain) -> int:
        """1 where it is asked now: another instance may have been quicker, or the room there is gone."""
        reserved, _ = await self._moves.reserved()
        sought: Sought = self._sought(call.request, call.candidates)
        leaving = Leaving(
            call_id=call.call_id,
            epoch=call.epoch,
            edge_id=call.edge_id,
            wishes=sought.wishes,
            measured=sought.measured,
            recorded=sought.recorded,
        )
        room = Room(self._fleet.now, frozenset({call.edge_id}), reserved)
        edges = room.take(leaving, draw=random.random(), pin=gain.region)
        if isinstance(edges, str):
            return 0
        why = MovedFor(
            by="gain",
            from_region=call.region,
            to_region=gain.region,
            before_ms=round(gain.before_ms, 1),
            after_ms=round(gain.after_ms, 1),
            windows=WINDOWS,
        )
        force_at = self._clock.now() + timedelta(seconds=WITHIN_S)
        asked = await self._moves.move(None, call.edge_id, force_at, [Ask(leaving, edges)], reserved, why)
        if not asked:
            return 0
        self._granted(call.call_id)
        self._hints.wake(topic(call.edge_id))
        gain_moves_total.inc()
        log.info(
            "call.to_move", call=ids.encode(ids.CALL, call.call_id), region=gain.region, by="gain",
            before_ms=why.before_ms, after_ms=why.after_ms,
        )  # fmt: skip
        return 1


def _way(candidate: Candidate, leg_ms: float) -> Way:
    leg = candidate.backend_ms if candidate.backend_ms is not None else leg_ms
    return Way(
        candidate.region,
        candidate.rtt_ms + leg,
        candidate.source,
        candidate.confidence,
        open=candidate.reason in ABLE,
    )
