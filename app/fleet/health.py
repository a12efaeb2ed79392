"""Where verdicts are kept: one row per edge and region, shared by all instances, and their events.

Decides nothing about health. A transition is written under the version that it was decided on: of several instances that see
the same thing one writes it, with its event, and the others read it a moment later. An age is the database's at first sight, and
by this instance's own clock from then on, so that a clock that jumps ends no probation. What a verdict sets in motion besides is in
`evacuations`, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec
import structlog

from app.db import Database
from app.fleet import explain
from app.fleet.desired import topic
from app.fleet.detector import GONE_S, Kept, Look, RegionTransition, Transition, ejects
from app.fleet.drain_store import DRAINS_TOPIC
from app.fleet.evacuations import Evacuations
from app.fleet.events import TOPIC
from app.fleet.observations import SELECT_REPORTS, report_of
from app.fleet.verdicts import State
from app.fleet.votes import Report
from app.hints import Hints
from app.ids import new_id
from app.telemetry import fleet_transitions_total
from regions.wire import ids

log = structlog.get_logger()

LOCK = 7423011

SELECT_HEALTH = """
select kind, subject, verdict, action, reason, flaps, stumbles, owed, version,
       extract(epoch from clock_timestamp() - since)::float8 as age_s
  from vx.health
"""
# Only where the version is the one that was decided on; the event only with it.
MOVE = """
with put as (
  insert into vx.health as h (kind, subject, verdict, action, reason, flaps, stumbles, owed, version)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
  on conflict (kind, subject) do update
     set verdict = excluded.verdict, action = excluded.action, reason = excluded.reason, flaps = excluded.flaps,
         stumbles = excluded.stumbles, owed = excluded.owed, version = excluded.version,
         since = case when h.verdict = excluded.verdict then h.since else clock_timestamp() end
   where h.version = excluded.version - 1
  returning version
), said as (
  insert into vx.fleet_events (key, id, type, region, edge_id, data)
  select $10, $11, $12, $13, $14, $15 from put where $12::text is not null
  on conflict (key) do nothing
)
select exists (select from put) as moved
"""
EJECT_LOCK = "select pg_advisory_xact_lock($1)"
EJECTED = f"""
select count(*) from vx.health
 where kind = 'edge' and (verdict = 'down' or action = 'evacuate') and subject <> $1
   and since > clock_timestamp() - interval '{GONE_S} seconds'
"""
EDGE_TYPES = {"suspect": "edge.suspect", "down": "edge.lost"}
REGION_TYPES = {"suspect": "region.suspect", "down": "region.down"}


# Callers that a drill has sent away say nothing about the edge that they left.
SELECT_DRILLED = (
    "select call_id from vx.drill_calls where chosen_at > clock_timestamp() - interval '10 minutes'"
)


class HealthStore:
    def __init__(self, db: Database, hints: Hints) -> None:
        self._db = db
        self._hints = hints
        self._evacuations = Evacuations(db)
        self._since_s: dict[tuple[str, str, int], float] = {}

    async def read(
        self, connection: Any, now_s: float
    ) -> tuple[dict[UUID, Kept], dict[str, Kept], list[Report]]:
        """States of edges, of regions, and the newest report of each observer. `now_s`: this instance's monotonic clock."""
        edges: dict[UUID, Kept] = {}
        regions: dict[str, Kept] = {}
        known: dict[tuple[str, str, int], float] = {}
        for row in await connection.fetch(SELECT_HEALTH):
            key = (row["kind"], row["subject"], row["version"])
            since_s = self._since_s.get(key, now_s - max(0.0, row["age_s"]))
            known[key] = since_s
            kept = Kept(state=_state(row), age_s=max(0.0, now_s - since_s))
            if row["kind"] == "edge":
                edges[UUID(row["subject"])] = kept
            else:
                regions[row["subject"]] = kept
        self._since_s = known
        reports = [r for row in await connection.fetch(SELECT_REPORTS) if (r := report_of(row)) is not None]
        drilled = {row["call_id"] for row in await connection.fetch(SELECT_DRILLED)}
        if drilled:
            reports = [replace(r, left=tuple(x for x in r.left if x.call not in drilled)) for r in reports]
        return edges, regions, reports

    async def write(self, look: Look, moved: Sequence[RegionTransition]) -> None:
        """Raises what the driver raises; what was not written is decided again."""
        for transition in look.transitions:
            await self._move_edge(look, transition)
        for region in moved:
            await self._move_region(look, region)

    async def _move_edge(self, look: Look, transition: Transition) -> None:
        before, after = transition.before, transition.after
        type_ = EDGE_TYPES.get(after.verdict, "edge.recovered")
        said = explain.evidence(look.judgements[transition.edge])
        data = {
            "from": before.verdict,
            "to": after.verdict,
            "action": after.action,
            "flaps": after.flaps,
            **said,
        }
        key = f"edge:{transition.edge}:{after.version}"
        if not await self._put_edge(look, transition, key, type_, data, said):
            return
        fleet_transitions_total.labels("edge", after.verdict).inc()
        log.info(
            type_, region=transition.region, edge=ids.encode(ids.EDGE, transition.edge), was=before.verdict,
            verdict=after.verdict, action=after.action, evidence=said,
        )  # fmt: skip

    async def _move_region(self, look: Look, moved: RegionTransition) -> None:
        before, after = moved.before, moved.after
        type_ = REGION_TYPES.get(after.verdict)
        if type_ is None and before.verdict in REGION_TYPES:
            type_ = "region.recovered"
        said = {
            ids.encode(ids.EDGE, j.edge): explain.evidence(j) | {"verdict": j.state.verdict}
            for j in look.judgements.values()
            if j.region == moved.region
        }
        data = {
            "from": before.verdict,
            "to": after.verdict,
            "action": after.action,
            "case": after.case,
            "edges": said,
        }
        key = f"region:{moved.region}:{after.version}"
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            won = await self._put(
                connection, "region", moved.region, after, key, type_, moved.region, None, data
            )
        self._hints.wake(TOPIC)
        if won:
            fleet_transitions_total.labels("region", after.verdict).inc()
            if type_ is not None:
                log.info(type_, region=moved.region, was=before.verdict, verdict=after.verdict)

    async def _put_edge(
        self, look: Look, transition: Transition, key: str, type_: str, data: dict[str, Any], said: dict[str, Any]
    ) -> bool:  # fmt: skip
        """False where another instance was there first, or where too many are ejected already."""
        edge, region, before, after = transition.edge, transition.region, transition.before, transition.after
        total = await self._evacuations.total(edge, before, after)
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            if ejects(before, after):
                await connection.execute(EJECT_LOCK, LOCK)
                if await connection.fetchval(EJECTED, str(edge)) >= look.ejected_max:
                    return False
            if not await self._put(connection, "edge", str(edge), after, key, type_, region, edge, data):
                return False
            off = await self._evacuations.follow(connection, edge, region, before, after, total, said)
        await self._evacuations.tell(off)
        for what in (TOPIC, DRAINS_TOPIC, topic(edge)):
            self._hints.wake(what)
        return True

    async def _put(
        self, connection: Any, kind: str, subject: str, after: State, key: str, type_: str | None, region: str,
        edge: UUID | None, data: dict[str, Any],
    ) -> bool:  # fmt: skip
        """False where another instance was there first."""
        return bool(
            await connection.fetchval(
                MOVE, kind, subject, after.verdict, after.action, after.case, after.flaps, after.stumbles, after.owed,
                after.version, key, new_id(self._db.cell), type_, region, edge, msgspec.json.encode(data).decode(),
            )
        )  # fmt: skip


def _state(row: Any) -> State:
    return State(
        verdict=row["verdict"], action=row["action"], case=row["reason"], flaps=row["flaps"], stumbles=row["stumbles"],
        owed=row["owed"], version=row["version"],
    )  # fmt: skip
