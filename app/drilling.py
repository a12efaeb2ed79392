"""Drills of one instance, put together: what routes, uplinks and the supervisor need of them."""

from __future__ import annotations

from dataclasses import dataclass

from app.audit.service import Audit
from app.calls.service import Calls
from app.db import Database
from app.fleet.drain_store import DrainStore
from app.fleet.drain_worker import FleetFacts
from app.fleet.drill_service import Drills
from app.fleet.drill_store import DrillStore
from app.fleet.drill_worker import DrillWorker
from app.log.append import Appender
from app.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilling:
    """`operators`: their commands. `worker`: the rounds, and what edges say."""

    operators: Drills
    worker: DrillWorker

    @classmethod
    def of(cls, db: Database, calls: Calls, appender: Appender, facts: FleetFacts, audit: Audit) -> Drilling:
        store = DrillStore(db)
        worker = DrillWorker(store, calls.fleet, calls.hints, appender, facts)
        operators = Drills(store, DrainStore(db), worker, calls.fleet, calls.hints, calls.cell, audit)
        return cls(operators=operators, worker=worker)

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("fleet.drills", self.worker.worker)
