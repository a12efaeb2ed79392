"""What an edge says of itself and its calls with each heartbeat, handed on once, though it is said again and again.

Decides what is new in it. What follows is its hearers': drains of an edge that stops (`orders`), calls that nobody may hold any
more (`contact`). A database that is away is no reason to hang up: the next heartbeat says the same.
"""

from __future__ import annotations

import time
from uuid import UUID

import structlog

from app.connection import DATABASE_ERRORS
from app.fleet.orders import Orders
from app.fleet.ports import LostContact
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.uplink import Heartbeat, Held

log = structlog.get_logger()

QUESTIONS_MAX = 1_000
LAPSED_EVERY_S = 30.0


class Closed(Exception):
    """Why this side ends the uplink."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fix = fix


class Notes:
    """Of one uplink."""

    def __init__(self, edge: EdgeIdentity, contact: LostContact, orders: Orders | None) -> None:
        self._edge = edge
        self._contact = contact
        self._orders = orders
        self._told_to_stop = False
        self._lapsed_s: dict[Held, float] = {}
        self._moves: set[Held] = set()

    async def beat(self, beat: Heartbeat) -> None:
        """Raises `Closed` where the uplink is to end."""
        if beat.stopped:
            await self._stopped()
        if beat.draining:
            await self._stopping(beat.drain_left_s)
        if beat.lapsed:
            await self._lapsed(beat.lapsed)
        await self._not_taken(beat.not_taken)

    async def _stopping(self, left_s: float) -> None:
        """Once; said again with every heartbeat."""
        if self._orders is None or self._told_to_stop:
            return
        try:
            await self._orders.stopping(self._edge.edge_id, self._edge.incarnation, left_s)
            self._told_to_stop = True
        except DATABASE_ERRORS as error:
            log.info("uplink.not_noted", edge=str(self._edge.edge_id), error=type(error).__name__)

    async def _stopped(self) -> None:
        if self._orders is not None:
            try:
                await self._orders.stopped(self._edge.edge_id, self._edge.incarnation)
            except DATABASE_ERRORS as error:
                log.info("uplink.not_noted", edge=str(self._edge.edge_id), error=type(error).__name__)
        raise Closed("stopped", "the edge has stopped", "register when it starts again")

    async def _lapsed(self, lapsed: list[Held]) -> None:
        """Once in a while for each: an edge says it again and again."""
        now_s = time.monotonic()
        self._lapsed_s = {h: s for h, s in self._lapsed_s.items() if now_s - s < LAPSED_EVERY_S}
        fresh = [h for h in lapsed[:QUESTIONS_MAX] if h not in self._lapsed_s]
        if not fresh:
            return
        calls = _named(fresh)
        try:
            await self._contact.lapsed(self._edge.edge_id, calls)
        except DATABASE_ERRORS as error:
            log.info("uplink.not_noted", edge=str(self._edge.edge_id), error=type(error).__name__)
            return
        self._lapsed_s |= dict.fromkeys(fresh, now_s)

    async def _not_taken(self, moves: list[Held]) -> None:
        """Once for each; it is said again for as long as the call stays."""
        said = set(moves)
        fresh = [h for h in said if h not in self._moves]
        self._moves &= said
        if not fresh or self._orders is None:
            return
        calls = _named(fresh)
        try:
            await self._orders.not_taken(self._edge.edge_id, calls)
        except DATABASE_ERRORS as error:
            log.info("uplink.not_noted", edge=str(self._edge.edge_id), error=type(error).__name__)
            return
        self._moves |= set(fresh)


def _named(held: list[Held]) -> list[tuple[UUID, int]]:
    try:
        return [(ids.decode(ids.CALL, h.call), h.epoch) for h in held]
    except ids.IdError:
        raise Closed("bad_frame", "a call's id is none", "mend the edge") from None
