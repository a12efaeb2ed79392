"""Drains and moves of one instance, put together: what routes, uplinks and the supervisor need of them."""

from __future__ import annotations

from dataclasses import dataclass

from app.calls.moves import Moves
from app.calls.service import Calls
from app.db import Database
from app.fleet.drain_service import Drains
from app.fleet.drain_store import DrainStore
from app.fleet.drain_worker import DrainWorker, FleetFacts
from app.fleet.orders import CutReports, Orders
from app.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """`operators`: their commands. `moves`: of single calls. `orders`: for uplinks. `worker`: the rounds."""

    operators: Drains
    moves: Moves
    orders: Orders
    worker: DrainWorker

    @classmethod
    def of(
        cls, db: Database, calls: Calls, facts: FleetFacts | None = None, drills: CutReports | None = None
    ) -> Draining:
        store = DrainStore(db)
        operators = Drains(store, calls.fleet, calls.commands, calls.hints, calls.cell)
        moves = Moves(db, calls, store, calls.clock)
        worker = DrainWorker(
            store,
            calls.fleet,
            calls.hints,
            wishes=moves.wishes,
            granted=calls.tails.want,
            stopped=operators.stopped,
            facts=facts,
        )
        return cls(operators=operators, moves=moves, orders=Orders(moves, operators, drills), worker=worker)

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("fleet.drains", self.worker.worker)
