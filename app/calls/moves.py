"""Planned moves of calls: one that a project asks for, and the tickets of all that are asked for.

Where a call goes is the plan's (`app.fleet.plan`), when it goes its edge's. A move is asked for once: while one is under way the
same wish is answered with it, and another one is refused.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import msgspec
import structlog

from app.calls.machine import FINAL
from app.calls.service import Calls, grants_between
from app.calls.shapes import CallerRequest, CandidateView, CreateCall
from app.calls.store import StoredCall, StoredRequest
from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import Conflict, FieldError, Invalid
from app.fleet.desired import topic
from app.fleet.drain_shapes import MoveRequest, MoveView
from app.fleet.drain_store import DRAINS_TOPIC, DrainStore
from app.fleet.orders import MoveOrder
from app.fleet.plan import Ask, Leaving, Room
from app.fleet.view import EdgeState, Fleet
from app.placement.again import Sought, recorded
from app.placement.choice import Wishes
from app.placement.service import measurements, wishes_of
from app.projects.auth import Principal
from regions.wire import ids
from regions.wire.ticket import MovedFor

log = structlog.get_logger()

SELECT_MODES = "select id, mode from vx.projects where id = any($1::uuid[])"
PLACES_TRIED = 3
NO_REASON: Mapping[UUID, MovedFor | None] = {}
_request = msgspec.json.Decoder(StoredRequest)
_candidates = msgspec.json.Decoder(list[CandidateView])


class Moves:
    def __init__(self, db: Database, calls: Calls, store: DrainStore, clock: Clock) -> None:
        self._db = db
        self._calls = calls
        self._store = store
        self._clock = clock

    def sought(self, request: bytes, candidates: bytes) -> Sought:
        """By a call as it was stored, as it counts now."""
        return self._sought(_request.decode(request), _candidates.decode(candidates), self._calls.fleet.now)

    def _sought(self, request: StoredRequest, candidates: list[CandidateView], fleet: Fleet) -> Sought:
        caller = CallerRequest(kind=request.caller.kind)
        body = CreateCall(
            caller=caller, agent=request.agent, latencies=request.latencies, regions=request.regions
        )
        try:
            wishes = wishes_of(body, fleet)
        except Invalid:
            # a region that it named is gone: what it allowed still holds
            asked = request.regions
            wishes = Wishes(
                allow=frozenset(asked.allow),
                jurisdictions=frozenset(asked.jurisdictions),
                webrtc=caller.kind == "webrtc",
                alone=caller.kind == "twilio",
            )
        return Sought(wishes, measurements(body, self._clock.now()), recorded(candidates))

    def asks(self, request: bytes) -> tuple[str | None, str]:
        """The network of a stored request's caller, where it is kept, and its backend's URL."""
        found = _request.decode(request)
        return found.network, found.agent.url

    async def move(self, principal: Principal, call_id: UUID | None, wanted: MoveRequest) -> MoveView:
        """Asks the call's edge to let it go. Raises `NotFound`, `Conflict` or `Invalid`."""
        call = await self._calls.get(principal, call_id)
        fleet = self._calls.fleet.now
        if wanted.region is not None and wanted.region not in fleet.regions:
            raise Invalid(
                "There is no such region.",
                errors=[FieldError(pointer="/region", detail="unknown")],
                fix="GET /v1/regions lists them.",
            )
        if call.state in FINAL:
            raise Conflict("The call has ended.", code="call_ended", fix="Create a new call.")
        if call.answered_at is None or call.edge_id is None:
            raise Conflict(
                "Nobody has attached to the call yet.", code="not_attached",
                fix="Move it when it is in progress; until then its ticket names standbys.",
            )  # fmt: skip
        await self._store.settle()
        under_way = await self._under_way(call.id, wanted)
        if under_way is not None:
            self._calls.audit.unchanged("call.move_asked")
            return under_way
        force_at = self._clock.now() + timedelta(seconds=wanted.within_s)
        leaving = Leaving(call_id=call.id, epoch=call.epoch, edge_id=call.edge_id)
        # somebody else may just have been given the place that was found: another one is looked for
        for attempt in range(PLACES_TRIED):
            reserved, _ = await self._store.reserved()
            edges = self._place(call, wanted, reserved)
            if attempt == 0:
                said = {"region": edges[0].region, "within_s": wanted.within_s}
                name = ids.encode(ids.CALL, call.id)
                await self._calls.audit.read(call.project_id, "call.move_asked", name, said)
            granted = await self._store.move(None, call.edge_id, force_at, [Ask(leaving, edges)], reserved)
            if call.id in granted:
                break
            under_way = await self._under_way(call.id, wanted)
            if under_way is not None:
                return under_way
        else:
            raise Conflict(
                "The call has just moved or ended.", code="moved_on", fix="Read it and decide again."
            )
        self._calls.tails.want(call.id)
        self._calls.hints.wake(topic(call.edge_id))
        self._calls.hints.wake(DRAINS_TOPIC)
        log.info("call.to_move", call=ids.encode(ids.CALL, call.id), region=edges[0].region)
        return MoveView(
            call_id=ids.encode(ids.CALL, call.id),
            region=edges[0].region,
            edge=ids.encode(ids.EDGE, edges[0].id),
            epoch=granted[call.id],
            deadline=rfc3339(force_at),
        )

    def _place(
        self, call: StoredCall, wanted: MoveRequest, reserved: dict[UUID, int]
    ) -> tuple[EdgeState, ...]:
        fleet = self._calls.fleet.now
        sought = self._sought(call.request, call.placement.candidates, fleet)
        assert call.edge_id is not None
        leaving = Leaving(
            call_id=call.id,
            epoch=call.epoch,
            edge_id=call.edge_id,
            wishes=sought.wishes,
            measured=sought.measured,
            recorded=sought.recorded,
        )
        room = Room(fleet, frozenset({call.edge_id}), reserved)
        found = room.take(leaving, draw=random.random(), pin=wanted.region)
        if isinstance(found, str):
            here = fleet.edge(call.edge_id)
            detail = (
                f"No other edge{f' of {wanted.region}' if wanted.region else ''} may take the call: {found}."
            )
            if here is not None and here.region == wanted.region:
                detail = f"The call is in {wanted.region} already, and no other edge there may take it."
            raise Conflict(
                detail,
                code="nowhere_to_go",
                fix="Leave `region` out, uncordon or start another edge, or let the call be.",
            )
        return found

    async def _under_way(self, call_id: UUID, wanted: MoveRequest) -> MoveView | None:
        """The move that runs, where it goes where it is wanted; raises `Conflict` where it does not."""
        running = await self._store.open_move(call_id)
        if running is None:
            return None
        epoch, edge_id, force_at = running
        edge = self._calls.fleet.now.edge(edge_id)
        region = edge.region if edge is not None else ""
        if wanted.region not in (None, region):
            raise Conflict(
                f"The call is being moved to {region} already.", code="move_under_way",
                fix="Wait for call.moved, then move it on.",
            )  # fmt: skip
        return MoveView(
            call_id=ids.encode(ids.CALL, call_id),
            region=region,
            edge=ids.encode(ids.EDGE, edge_id),
            epoch=epoch,
            deadline=rfc3339(force_at),
        )

    async def for_moves(self, moves: list[tuple[UUID, int]]) -> dict[UUID, MoveOrder]:
        """See `app.fleet.orders.Tickets`."""
        open_moves = await self._store.granted(moves)
        tickets = await self._tickets(
            {c: (m.epoch, m.grants) for c, m in open_moves.items()}, {c: m.why for c, m in open_moves.items()}
        )
        return {
            c: MoveOrder(ticket, open_moves[c].within_ms, forced=open_moves[c].why is None)
            for c, ticket in tickets.items()
        }

    async def not_taken(self, edge_id: UUID, moves: list[tuple[UUID, int]]) -> None:
        """See `app.fleet.orders.Tickets`."""
        if await self._store.not_taken(edge_id, moves):
            self._calls.hints.wake(DRAINS_TOPIC)

    async def for_standbys(self, renewals: list[tuple[UUID, int, int]]) -> dict[UUID, str]:
        """See `app.fleet.orders.Tickets`. The newest of a call's counts."""
        newest = {call_id: (epoch, grants) for call_id, epoch, grants in sorted(renewals)}
        return await self._tickets(newest)

    async def _tickets(
        self, wanted: dict[UUID, tuple[int, int]], why: Mapping[UUID, MovedFor | None] = NO_REASON
    ) -> dict[UUID, str]:
        """Call → the ticket of its grants from an epoch on, so many of them; of calls that run, with edges that still hold."""
        calls = await self._calls.store.get_many(list(wanted))
        rows = await self._db.pool("admin").fetch(SELECT_MODES, list({c.project_id for c in calls}))
        tests = {r["id"] for r in rows if r["mode"] == "test"}
        made: dict[UUID, str] = {}
        for call in calls:
            grants = grants_between(call, *wanted[call.id], self._calls.fleet.now)
            if grants and call.ended_at is None:
                made[call.id] = await self._calls.ticket(
                    call, grants, test=call.project_id in tests, moved_for=why.get(call.id)
                )
        return made
