"""What the log must know of a call before it can write to it: whose it is, its key, and which regions may have to serve it.

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
from app.erasure.redaction import Redactor, redactor_for
from app.vault import CallKey, Vault

CALLS_MAX = 50_000
FRESH_S = 30.0

SELECT_FACTS = """
select c.id, c.project_id, c.grant_edges, c.wrapped,
       (select p.settings -> 'redaction' from vx.projects p where p.id = c.project_id) as redaction
  from vx.calls c where c.id = any($1::uuid[])
"""

SELECT_TRACED_FACTS = SELECT_FACTS.replace(" as redaction", " as redaction, c.request ->> 'trace' as trace")

SELECT_ENDED = "select id, end_reason from vx.calls where id = any($1::uuid[]) and end_reason is not null"


@dataclass(frozen=True, slots=True)
class CallFacts:
    """`key`: None where the call was erased. `redactor`: None where nothing is struck out of what is said in it. `trace`: the
    traceparent of its create; empty where there is none, or nobody traces."""

    project_id: UUID
    edges: tuple[UUID, ...]
    key: CallKey | None
    redactor: Redactor | None
    read_s: float
    trace: str = ""


class FactsReader:
    def __init__(self, db: Database, vault: Vault, clock: Clock, *, traced: bool = False) -> None:
        """`traced`: the create's trace is read too."""
        self._db = db
        self._vault = vault
        self._clock = clock
        self._traced = traced
        self._select = SELECT_TRACED_FACTS if traced else SELECT_FACTS
        self._known: OrderedDict[UUID, CallFacts] = OrderedDict()

    async def of(self, calls: Iterable[UUID]) -> dict[UUID, CallFacts]:
        """Facts of the calls that exist; the others are left out. Raises `VaultError` where a key cannot be opened."""
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
            for row in await self._db.pool("worker").fetch(self._select, missing):
                key = await self._vault.of_call(row["project_id"], row["id"], row["wrapped"])
                redactor = redactor_for(row["redaction"], row["id"].int >> 80)
                trace = (row["trace"] or "") if self._traced else ""
                facts = CallFacts(row["project_id"], tuple(row["grant_edges"]), key, redactor, now_s, trace)
                found[row["id"]] = self._known[row["id"]] = facts
            while len(self._known) > CALLS_MAX:
                self._known.popitem(last=False)
        return found

    async def ended(self, calls: list[UUID]) -> dict[UUID, str]:
        """Why those of them are over that are; never from memory."""
        rows = await self._db.pool("worker").fetch(SELECT_ENDED, calls)
        return {row["id"]: row["end_reason"] for row in rows}

    def forget(self, call: UUID) -> None:
        self._known.pop(call, None)

    def forget_all(self) -> None:
        self._known.clear()
