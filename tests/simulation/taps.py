"""Production code under the seed's time and chance, tapped, at the simulator's pace, and with a mutation where one is wanted.

Decides nothing of what production does: a tap writes into the `Ledger` and goes on. Everything is put back at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import structlog

from app.calls.moves import Moves
from app.fleet import drain_worker, view
from app.fleet import uplink as api_uplink
from app.fleet.view import FleetView
from app.log import feeds
from app.log import spool as app_spool
from app.placement import service as placement
from app.webhooks import delivery
from regions.edge import outbox
from regions.edge import spool as edge_spool
from regions.edge.outbox import Outbox
from regions.edge.session import Session
from regions.media import pacer
from regions.wire import ids
from tests.simulation.clocks import standing_in
from tests.simulation.mutations import MUTATIONS
from tests.simulation.nodes import DATABASE_ERRORS
from tests.simulation.world import World
from voxplane import caller as client_caller

TURN_NS = 80_000_000
PACE: tuple[tuple[Any, str, Any], ...] = (
    (pacer, "PERIOD_NS", TURN_NS),
    (pacer, "PHASE_NS", TURN_NS // pacer.PHASES),
    (client_caller, "TICK_S", 0.05),
    (view, "REFRESH_S", 1.0),
    (api_uplink, "POLL_S", 2.0),
    (drain_worker, "POLL_S", 2.0),
    (delivery, "POLL_S", 1.0),
    (feeds, "POLL_S", 2.0),
    (app_spool, "EVERY_S", 1.5),
    (edge_spool, "EVERY_S", 0.4),
)
"""Slower than in production, where it only looks again: a seed is to say more in less time."""


@contextmanager
def production(world: World, mutation: str) -> Iterator[None]:
    """Production code under the seed's time and chance, with taps, at the simulator's pace."""
    ledger, loop = world.ledger, world.loop
    add, fill, acknowledge = Outbox.add, Outbox.fill, Outbox.acknowledge
    attach, take = Session.attach, Session.take
    refresh, place = FleetView._refresh, placement.Placer.place
    plan_drain, place_move = drain_worker.plan_drain, Moves._place

    def owner() -> str:
        edge = world.edges[loop.current.machine.region]
        return edge.owner

    def added(self: Outbox, **fields: Any) -> Any:
        event = add(self, **fields)
        ledger.wrote(self.call, self.epoch, owner(), event)
        return event

    def filled(self: Outbox, **fields: Any) -> None:
        fill(self, **fields)
        if not self.closed:
            ledger.wrote(self.call, self.epoch, owner(), self.unacked[-1])

    def acknowledged(self: Outbox, durable_n: int) -> bool:
        above = self.acked_n
        news = acknowledge(self, durable_n)
        if news:
            ledger.acknowledged(self.call, self.epoch, owner(), above, self.acked_n)
        return news

    def attached(self: Session, *args: Any) -> None:
        ledger.renews(ids.decode(ids.CALL, self.call), self.epoch)
        attach(self, *args)
        world.fleet.owns(loop.current.machine.region)

    def taken(self: Session, *args: Any) -> None:
        ledger.renews(ids.decode(ids.CALL, self.call), self.epoch)
        ledger.say(owner(), f"takes {ledger.name_of(ids.decode(ids.CALL, self.call))} at e{self.epoch}")
        world.fleet.takes(self, args[3].from_epoch, args[4])
        take(self, *args)
        world.fleet.owns(loop.current.machine.region)

    async def refreshed(self: FleetView) -> None:
        held = world.fleet.held()
        await refresh(self)
        world.fleet.saw(self.now, held & world.fleet.held())

    def placed(self: Any, project: Any, body: Any, fleet: Any, *args: Any, **more: Any) -> Any:
        found = place(self, project, body, fleet, *args, **more)
        world.fleet.placed(fleet, found.edges)
        return found

    def planned(fleet: Any, calls: Any, **more: Any) -> Any:
        found = plan_drain(fleet, calls, **more)
        world.fleet.planned(fleet, more["reserved"], [*found.ask, *found.force])
        return found

    def move_placed(self: Any, call: Any, wanted: Any, reserved: Any) -> Any:
        found = place_move(self, call, wanted, reserved)
        world.fleet.placed(self._calls.fleet.now, found)
        return found

    patches = [
        mock.patch.object(Outbox, "add", added),
        mock.patch.object(Outbox, "fill", filled),
        mock.patch.object(Outbox, "acknowledge", acknowledged),
        mock.patch.object(outbox, "EVENTS_MAX", world.plan.outbox_max),
        mock.patch.object(Session, "attach", attached),
        mock.patch.object(Session, "take", taken),
        mock.patch.object(FleetView, "_refresh", refreshed),
        mock.patch.object(placement.Placer, "place", placed),
        mock.patch.object(drain_worker, "plan_drain", planned),
        mock.patch.object(Moves, "_place", move_placed),
        *(mock.patch.object(*pace) for pace in PACE),
    ]
    if mutation:
        patches += [mock.patch.object(*patch) for patch in MUTATIONS[mutation].patches]
    kept = structlog.get_config()
    with ExitStack() as stack:
        structlog.configure(wrapper_class=_logs(world), cache_logger_on_first_use=False)
        stack.callback(structlog.configure, **kept)
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(standing_in(loop, world.plan.seed, world.valkeys.from_url))
        yield


def _logs(world: World) -> type:
    """A logger that writes lines into the trace, if there is one, and knows which errors nobody expects."""
    ledger, loop = world.ledger, world.loop

    class Logger:
        def __init__(self, *_: Any, **__: Any) -> None:
            return

        def new(self, **_: Any) -> Logger:
            return self

        bind = unbind = try_unbind = new

        def info(self, event: str, **fields: Any) -> None:
            if ledger.trace is not None:
                said = " ".join(f"{k}={v}" for k, v in fields.items() if k != "exc_info")
                ledger.say(loop.current.name, f"logs {event} {said}")

        debug = warning = info

        def error(self, event: str, **fields: Any) -> None:
            self.info(event, **fields)
            error = fields.get("exc_info")
            if isinstance(error, BaseException) and not isinstance(error, DATABASE_ERRORS):
                world.unexpected(loop.current.name, error)

    return Logger
