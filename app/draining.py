"""Drains and moves of one instance, put together: what routes, uplinks and the supervisor need of them."""

from __future__ import annotations

from dataclasses import dataclass

from app.audit.service import Audit
from app.calls.moves import Moves
from app.calls.service import Calls
from app.db import Database
from app.fleet.drain_service import Drains
from app.fleet.drain_store import DrainStore
from app.fleet.drain_worker import DrainWorker, FleetFacts
from app.fleet.gain_store import GainStore
from app.fleet.gain_worker import GainWorker
from app.fleet.orders import CutReports, Orders
from app.fleet.standby_store import StandbyStore
from app.fleet.standby_worker import StandbyWorker
from app.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """`operators`: their commands. `moves`: of single calls. `orders`: for uplinks. `worker`: the rounds. `standbys`: of calls
    that stay. `gains`: calls that have another region nearer."""

    operators: Drains
    moves: Moves
    orders: Orders
    worker: DrainWorker
    standbys: StandbyWorker
    gains: GainWorker

    @classmethod
    def of(
        cls,
        db: Database,
        calls: Calls,
        facts: FleetFacts | None = None,
        drills: CutReports | None = None,
        store: DrainStore | None = None,
        audit: Audit | None = None,
    ) -> Draining:
        """`store`: where it counts the calls of more than this cell."""
        store = store or DrainStore(db)
        operators = Drains(store, calls.fleet, calls.commands, calls.hints, calls.cell, facts, audit)
        moves = Moves(db, calls, store, calls.clock)
        worker = DrainWorker(
            store,
            calls.fleet,
            calls.hints,
            sought=moves.sought,
            granted=calls.tails.want,
            remind=operators.remind,
            stopped=operators.stopped,
            facts=facts,
        )
        standbys = StandbyWorker(
            StandbyStore(db), calls.fleet, calls.hints, sought=moves.sought, granted=calls.tails.want
        )
        gains = GainWorker(
            GainStore(db),
            store,
            calls.fleet,
            calls.placer.learning,
            calls.hints,
            calls.clock,
            sought=moves.sought,
            asks=moves.asks,
            claims=calls.placer.claimed.claims,
            granted=calls.tails.want,
        )
        orders = Orders(moves, operators, drills)
        return cls(
            operators=operators, moves=moves, orders=orders, worker=worker, standbys=standbys, gains=gains
        )

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("fleet.drains", self.worker.worker)
        supervisor.add("fleet.standbys", self.standbys.worker)
        supervisor.add("fleet.gains", self.gains.worker)
