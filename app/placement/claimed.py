"""Carries what projects claim from one instance to the others, through the database of the cell in which the project lives.

Decides nothing of what it is worth (`app.placement.claims`): it is written once, when it is said, and read every few seconds, with
some overlap, because a row is seen only when its transaction has ended. It is read page by page, each beginning after the last row of
the one before, so that a burst which is larger than a page is read to its end.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from app.clock import Clock
from app.connection import DATABASE_ERRORS
from app.db import Database
from app.placement.claims import Claim, Claims, newest
from app.placement.networks import Network
from app.placement.round_trips import FORGOTTEN_AT_ONCE, in_pages
from app.supervisor import wait_for_stop

log = structlog.get_logger()

EVERY_S = 2.0
OVERLAP_S = 10.0
FORGET_EVERY_S = 60.0
PAGE = 2_000
NOBODY = UUID(int=0)

PUT_CLAIMS = """
insert into vx.probes (project_id, network, region, rtt_ms, jitter_ms, loss, at)
select $1::uuid, $2::bigint, *
  from unnest($3::text[], $4::real[], $5::real[], $6::real[], $7::timestamptz[]) as c(r, a, b, d, e) order by r
on conflict (project_id, network, region) do update
   set rtt_ms = excluded.rtt_ms, jitter_ms = excluded.jitter_ms, loss = excluded.loss, at = excluded.at, said_at = clock_timestamp()
 where probes.at <= excluded.at
"""
NEW_CLAIMS = f"""
select project_id, network, region, rtt_ms, jitter_ms, loss, at, said_at from vx.probes
 where (said_at, project_id, network, region) > ($1, $2, $3, $4) and said_at < $5
 order by said_at, project_id, network, region limit {PAGE}
"""
FORGET = f"""
delete from vx.probes where ctid = any(array(
  select ctid from vx.probes where said_at < clock_timestamp() - interval '10 minutes' limit {FORGOTTEN_AT_ONCE}))
"""
NOW = "select clock_timestamp()"


class Claimed:
    """`claims`: what is known here."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.claims = Claims()

    async def say(self, project_id: UUID, network: Network, claims: list[Claim]) -> None:
        """For this project's calls: here at once, on the other instances within seconds. Raises what the driver raises."""
        claims = newest(claims, self._clock.now())
        self.claims.learn(project_id, network.number, claims)
        if not claims:
            return
        async with self._db.project_driver(project_id) as connection:
            await connection.execute(
                PUT_CLAIMS,
                project_id,
                network.number,
                [c.region for c in claims],
                [c.rtt_ms for c in claims],
                [c.jitter_ms for c in claims],
                [c.loss for c in claims],
                [c.at for c in claims],
            )

    async def worker(self, stop: asyncio.Event) -> None:
        since, round_ = datetime.fromtimestamp(0, tz=UTC), 0
        while not await wait_for_stop(stop, EVERY_S):
            try:
                since = await self.read(since)
                round_ += 1
                if round_ % int(FORGET_EVERY_S / EVERY_S) == 0:
                    await self.forget()
            except DATABASE_ERRORS as error:
                log.info("placement.claims_not_read", error=type(error).__name__)

    async def read(self, since: datetime) -> datetime:
        """Learns what others were told since then; gives the time for the next reading, by the database's clock."""
        pool = self._db.pool("worker")
        now: datetime = await pool.fetchval(NOW)
        after: tuple[datetime, UUID, int, str] = (since, NOBODY, -1, "")
        while rows := await pool.fetch(NEW_CLAIMS, *after, now):
            for row in rows:
                self.claims.learn(row[0], row[1], [Claim(*row[2:7])])
            after = (rows[-1]["said_at"], rows[-1]["project_id"], rows[-1]["network"], rows[-1]["region"])
            await asyncio.sleep(0)
        return now - timedelta(seconds=OVERLAP_S)

    async def forget(self) -> None:
        """What is older than it is believed."""
        await in_pages(self._db.pool("worker"), FORGET)
