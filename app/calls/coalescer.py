"""Brings a project's concurrent creates together: what waits while one batch commits goes into the next.

Decides who shares a round trip: a statement of one create costs the database four to five times what a create costs in a
statement of sixteen. One create alone is sent at once. Where more came together the time before, as many are waited for again,
for some milliseconds; while a batch is under way, another one follows it when it is large, or has waited for a moment. Two
creates with the same idempotency key never meet in a batch: the second waits outside until the first has its answer, then asks
the database, which knows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.calls.store import CallStore, Created, NewCall
from app.clock import Clock
from app.errors import QuotaExceeded
from app.log.acked import End

BATCH_MAX = 64
IN_FLIGHT_MAX = 2
LARGE = 16
GATHER_S = 0.001
GATHER_EACH_S = 0.0005
"""About what an instance needs to read and place one create: those that come together take so long to get here."""
WAIT_S = 0.008
LANES_MAX = 1_000
WAITING_MAX = 2_000
Made = Callable[[UUID, list[End]], None]
"""Told once of each batch where the calls that it has made begin, whoever still waits for them. Never blocks, never raises."""


@dataclass(slots=True)
class _Lane:
    """One project's creates on this instance."""

    waiting: deque[tuple[NewCall, asyncio.Future[Created]]] = field(default_factory=deque)
    in_flight: int = 0
    together: int = 1
    """How many came together the time before."""
    timer: asyncio.TimerHandle | None = None
    keys: dict[str, asyncio.Future[Created]] = field(default_factory=dict)


class Coalescer:
    def __init__(self, store: CallStore, clock: Clock, route: str, made: Made | None = None) -> None:
        self._store = store
        self._made = made
        self._clock = clock
        self._route = route
        self._lanes: dict[UUID, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, project_id: UUID, call: NewCall) -> Created:
        """The outcome for this key. Raises what the driver raises: the outcome is then unknown; the same key may be sent again."""
        lane = self._lanes.setdefault(project_id, _Lane())
        while (other := lane.keys.get(call.key)) is not None:
            await asyncio.wait([other])
        if len(lane.waiting) >= WAITING_MAX:
            raise QuotaExceeded(
                "Too many creates are waiting.", code="temporary-reduced-capacity", retry_after_s=1
            )
        future: asyncio.Future[Created] = asyncio.get_running_loop().create_future()
        lane.keys[call.key] = future
        lane.waiting.append((call, future))
        # at the end of this turn of the loop, so that what has come at the same moment goes together
        asyncio.get_running_loop().call_soon(self._pump, project_id, lane)
        try:
            return await asyncio.shield(future)
        finally:
            if future.done():
                self._leave(project_id, lane, call.key, future)
            else:
                future.add_done_callback(lambda f: self._leave(project_id, lane, call.key, f))

    def _leave(self, project_id: UUID, lane: _Lane, key: str, future: asyncio.Future[Created]) -> None:
        if lane.keys.get(key) is future:
            del lane.keys[key]
        if not future.cancelled():
            future.exception()
        idle = not lane.keys and not lane.waiting and not lane.in_flight
        if idle and len(self._lanes) > LANES_MAX:
            self._lanes.pop(project_id, None)

    def _pump(self, project_id: UUID, lane: _Lane, *, waited: bool = False) -> None:
        # where quotas are counted, the next batch would only wait for this one, with a connection in its hands
        while lane.waiting and lane.in_flight < (1 if lane.waiting[0][0].limits else IN_FLIGHT_MAX):
            wait_s = 0.0 if waited else _wait_s(lane)
            if wait_s:
                if lane.timer is None:
                    loop = asyncio.get_running_loop()
                    lane.timer = loop.call_later(wait_s, self._waited, project_id, lane)
                return
            batch = [lane.waiting.popleft() for _ in range(min(len(lane.waiting), BATCH_MAX))]
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            lane.in_flight += 1
            lane.together = len(batch)
            task = asyncio.create_task(self._send(project_id, lane, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _waited(self, project_id: UUID, lane: _Lane) -> None:
        lane.timer = None
        self._pump(project_id, lane, waited=True)

    async def _send(
        self, project_id: UUID, lane: _Lane, batch: list[tuple[NewCall, asyncio.Future[Created]]]
    ) -> None:
        now: datetime = self._clock.now()
        try:
            answers = await self._store.create(project_id, self._route, now, [call for call, _ in batch])
            made = []
            for call, future in batch:
                answer = answers[call.key]
                if answer.feed_xid:
                    made.append(End(call.call_id, 1, answer.feed_xid, call.event_id))
                if not future.done():
                    future.set_result(answer)
            if made and self._made is not None:
                self._made(project_id, made)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  each waiting create gets it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            lane.in_flight -= 1
            self._pump(project_id, lane)


def _wait_s(lane: _Lane) -> float:
    """For how long what waits is not sent yet."""
    if len(lane.waiting) >= LARGE:
        return 0.0
    if lane.in_flight:
        return WAIT_S
    if len(lane.waiting) >= lane.together:
        return 0.0
    return min(GATHER_S + GATHER_EACH_S * lane.together, WAIT_S)
