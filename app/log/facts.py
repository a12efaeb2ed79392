"""What the log must know of a call before it can write to it: whose it is, and which regions may have to serve it.

Kept in memory: a call never changes its project. The edges it was granted to grow with a new ticket, so they are read
again after a while; nothing wrong comes of an old answer but a tail that arrives later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from app.clock import Clock
from app.db import Database

CALLS_MAX = 50_000
FRESH_S = 30.0

SELECT_FACTS = "select id, project_id, grant_edges from vx.calls where id = any($1::uuid[])"


@dataclass(frozen=True, slots=True)
class CallFacts:
    project_id: UUID
    edges: tuple[UUID, ...]
    read_s: float


class FactsReader:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._known: OrderedDict[UUID, CallFacts] = OrderedDict()

    async def of(self, calls: Iterable[UUID]) -> dict[UUID, CallFacts]:
        """Facts of the calls that exist; the others are left out."""
        now_s = self._clock.monotonic_s()
        found: dict[UUID, CallFacts] = {}
        missing: list[UUID] = []
        for call in calls:
            facts = self._known.get(call)
            if facts is None or now_s - facts.read_s > FRESH_S:
                missing.append(call)
            else:
                found[call] = facts
        if missing:
            for row in await self._db.pool("worker").fetch(SELECT_FACTS, missing):
                facts = CallFacts(row["project_id"], tuple(row["grant_edges"]), now_s)
                found[row["id"]] = self._known[row["id"]] = facts
            while len(self._known) > CALLS_MAX:
                self._known.popitem(last=False)
        return found

    def forget(self, call: UUID) -> None:
        self._known.pop(call, None)
