"""The statements of usage and prices. Rows stay in here."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import msgspec

from app.db import Database
from app.usage.policy import KEYS, PRICES, SUMMED, Sums
from app.usage.shapes import GroupBy, PriceVersion

FOLD = "select vx.fold_usage($1)"
REFOLD = "select vx.refold_usage($1)"
PENDING = "select count(distinct call_id) from vx.usage_due where project_id = $1"
SELECT_PRICES = (
    "select valid_from, currency, prices, version from vx.prices where project_id = $1 order by valid_from"
)
LOCK_PRICES = "select pg_advisory_xact_lock(7423102, hashtext($1::text))"
PUT_PRICES = """
insert into vx.prices as p (project_id, valid_from, currency, prices) values ($1, $2, $3, $4)
on conflict (project_id, valid_from) do update
   set currency = excluded.currency, prices = excluded.prices, version = p.version + 1
"""
# From the log; of a call whose events are gone, as it was folded.
OF_CALL = """
with folded as (
  select o.* from vx.usage_owners o where o.call_id = $1 and o.call_id < (select k.calls_from from vx.kept k where k.log = 'events'))
select * from folded
union all
select u.* from vx.usage_of(array[$1::uuid]) u where not exists (select from folded)
order by epoch
"""
SUMS = ", ".join(f"sum({name}) as {name}" for name in SUMMED)
# By the group and the version of the prices; what is far of each side beside the sums.
SELECT = """
select {keys} p.valid_from as priced_from, {sums},
       coalesce(sum(caller_ms) filter (where transport = 'webrtc'), 0) as rtc_ms,
       coalesce(sum(caller_out_bytes) filter (where caller_to not in ('', region)), 0) as caller_far,
       coalesce(sum(agent_out_bytes) filter (where agent_to not in ('', region)), 0) as agent_far
  from vx.usage_days d left join lateral (
       select max(v.valid_from) as valid_from from vx.prices v where v.project_id = d.project_id and v.valid_from <= d.day) p on true
 where d.project_id = $1 and d.day >= $2 and d.day < $3
 group by {keys} p.valid_from
"""
SELECT_DAYS: dict[GroupBy, str] = {
    group_by: SELECT.format(keys="".join(f"{key}, " for key in keys), sums=SUMS)
    for group_by, keys in KEYS.items()
}


class UsageStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def fold(self, most: int) -> int:
        """How many reasons to fold a call were dealt with; 0 also where another instance is at it."""
        return int(await self._db.pool("worker").fetchval(FOLD, most))

    async def refold(self, connection: Any, project_id: UUID) -> int:
        return int(await connection.fetchval(REFOLD, project_id))

    async def sums(
        self, project_id: UUID, first: date, last: date, group_by: GroupBy
    ) -> tuple[list[Sums], int]:
        """And how many calls are not in them yet."""
        async with self._db.project_driver(project_id) as connection:
            rows = await connection.fetch(SELECT_DAYS[group_by], project_id, first, last)
            pending = await connection.fetchval(PENDING, project_id)
        return [_sums(row, KEYS[group_by]) for row in rows], pending

    async def of_call(self, project_id: UUID, call_id: UUID) -> list[Any]:
        """A row of ``vx.usage_owners`` for each owner."""
        async with self._db.project_driver(project_id) as connection:
            return [dict(row) for row in await connection.fetch(OF_CALL, call_id)]

    async def prices(self, project_id: UUID) -> list[PriceVersion]:
        """The oldest first."""
        async with self._db.project_driver(project_id) as connection:
            return [_version(row) for row in await connection.fetch(SELECT_PRICES, project_id)]

    async def prices_in(self, connection: Any, project_id: UUID) -> tuple[list[PriceVersion], int]:
        """The same for an operator, and how often they were changed; no one else changes them until the transaction is over."""
        await connection.execute(LOCK_PRICES, str(project_id))
        rows = await connection.fetch(SELECT_PRICES, project_id)
        return [_version(row) for row in rows], sum(row["version"] for row in rows)

    async def put_prices(self, connection: Any, project_id: UUID, version: PriceVersion) -> None:
        prices = msgspec.json.encode(version.prices).decode()
        await connection.execute(PUT_PRICES, project_id, version.valid_from, version.currency, prices)


def _version(row: Any) -> PriceVersion:
    return PriceVersion(
        valid_from=row["valid_from"], currency=row["currency"], prices=PRICES.decode(row["prices"])
    )


def _sums(row: Any, keys: tuple[str, ...]) -> Sums:
    return Sums(
        key=tuple(row[key] for key in keys),
        priced_from=row["priced_from"],
        counts={name: int(row[name]) for name in SUMMED},
        rtc_ms=int(row["rtc_ms"]),
        caller_far=int(row["caller_far"]),
        agent_far=int(row["agent_far"]),
    )
