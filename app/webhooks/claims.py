"""Claims deliveries that are due. Decides how many of whose: what an endpoint does not take is in nobody else's way.

First in, first out per (endpoint, call): only deliveries with none before them are taken; a parked one does not hold the others
up, and those that overtake it say so. What is sent again is a line of its own. Endpoints are served side by side, a few
deliveries each at a time, so that a million that wait for one cost the others nothing. How many are under way to an endpoint grows
with its answers; one that lets us wait gets one at a time, which takes no room from the others. One that has a rate or a concurrency
of its own is asked for in the database, where all instances count.

A call that names jurisdictions is spoken of from there alone: a worker takes its deliveries where one of them is its own.

A claim is short and renewed, so that a worker that dies is followed within seconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.ids import new_id
from app.log.rows import EVENT_COLUMNS, WRAPPED
from app.webhooks.sender import Answer

CLAIM_S = 5
KEEP_EVERY_S = 1.0
BATCH = 64
WINDOW_FIRST = 8
WINDOW_MAX = 64
"""How many may be under way to an endpoint: it grows with every answer, and is one after it has let us wait."""
LINGER_MAX = 2_048
HELD_S = 0.1
"""So long an endpoint is left alone that has as much as it wants."""
KEPT_MAX = 10_000
POSTPONE_S = 0.25

CLAIM = "select * from vx.claim_deliveries($1, $2, $3, $4, $5, $6, $7)"

EVENTS_OF = f"""
select {", ".join("e." + c.strip() for c in EVENT_COLUMNS.split(","))}, {WRAPPED},
       case when $3 then (select c.request ->> 'trace' from vx.calls c where c.id = e.call_id) end as trace
  from unnest($1::uuid[], $2::int[]) k(call_id, seq) join vx.events e on e.call_id = k.call_id and e.seq = k.seq
"""
ENDPOINTS = """
select w.id, w.url, w.scope, w.secrets, w.signatures, w.headers, w.format, w.local_targets, w.project_id,
       w.enabled and w.deleted_at is null as open, w.verified_at is not null as verified,
       w.rate_per_s is not null or w.concurrency is not null as limited, p.mode, p.settings
  from vx.webhooks w join vx.projects p on p.id = w.project_id where w.id = any($1::uuid[])
"""
ALLOW = "select a.webhook_id, a.allowed from vx.allow($1, $2) a"
RELEASE_EXPIRED = """
update vx.deliveries set state = case when parked then 'parked' else 'pending' end, claimed_by = null, next_at = clock_timestamp()
 where state = 'in_flight' and claimed_until < clock_timestamp()
"""
RENEW = f"""
update vx.deliveries set claimed_until = clock_timestamp() + interval '{CLAIM_S} seconds'
 where state = 'in_flight' and claimed_by = $1 and claimed_until < clock_timestamp() + interval '{CLAIM_S - KEEP_EVERY_S} seconds'
"""
GIVE_BACK = """
update vx.deliveries d
   set state = case when d.parked then 'parked' else 'pending' end, claimed_by = null, next_at = clock_timestamp(),
       attempts = d.attempts - 1, first_at = case when d.attempts - d.base > 1 then d.first_at end
 where d.state = 'in_flight' and d.claimed_by = $1
   and not exists (select from unnest($2::uuid[], $3::uuid[], $4::int[]) k(call_id, webhook_id, seq)
                    where k.call_id = d.call_id and k.webhook_id = d.webhook_id and k.seq = d.seq)
"""
POSTPONE = f"""
update vx.deliveries d
   set state = case when d.parked then 'parked' else 'pending' end, claimed_by = null, attempts = d.attempts - 1,
       first_at = case when d.attempts - d.base > 1 then d.first_at end,
       next_at = clock_timestamp() + interval '{POSTPONE_S} seconds'
  from unnest($2::uuid[], $3::uuid[], $4::int[]) k(call_id, webhook_id, seq)
 where d.call_id = k.call_id and d.webhook_id = k.webhook_id and d.seq = k.seq and d.state = 'in_flight' and d.claimed_by = $1
"""


class Claims:
    """Of one worker. `id` is its name in the database. `jurisdictions`: where it runs; what a call allows to be sent from elsewhere
    alone is left to others. `traced`: with each event comes its call's `trace`."""

    def __init__(
        self, db: Database, clock: Clock, jurisdictions: Sequence[str] = (), *, traced: bool = False
    ) -> None:
        self._db = db
        self._clock = clock
        self._jurisdictions = list(jurisdictions)
        self._traced = traced
        self.id = new_id(db.cell)
        self._in_flight: Counter[UUID] = Counter()
        self._window: dict[UUID, int] = {}
        self._held_until_s: dict[UUID, float] = {}
        self.lingering: set[asyncio.Task[None]] = set()
        """Those whose endpoint lets us wait: they take no room from the others, and are bounded by themselves."""

    async def take(self, room: int) -> list[tuple[Any, Any, Any]]:
        """(claim, event, endpoint) of what is to be sent now, committed. Raises what the driver raises: then nothing may be."""
        # the server that acknowledged the claim is asked for the events: another one might show what was lost
        async with self._db.pool("worker").acquire() as connection:
            claims = await connection.fetch(
                CLAIM, self.id, min(BATCH, room), *self._rooms(), WINDOW_FIRST, self._jurisdictions, CLAIM_S
            )
            if not claims:
                return []
            found = await connection.fetch(ENDPOINTS, list({c["webhook_id"] for c in claims}))
            endpoints = {row["id"]: row for row in found}
            claims = await self._within_limits(connection, claims, endpoints)
            rows = await connection.fetch(
                EVENTS_OF, [c["call_id"] for c in claims], [c["seq"] for c in claims], self._traced
            )
        events = {(row["call_id"], row["seq"]): row for row in rows}
        for claim in claims:
            self._in_flight[claim["webhook_id"]] += 1
        return [(c, events[(c["call_id"], c["seq"])], endpoints[c["webhook_id"]]) for c in claims]

    def lingers(self, webhook_id: UUID, task: asyncio.Task[None]) -> None:
        """One that was taken gets no answer."""
        self.lingering.add(task)
        self._window[webhook_id] = 1

    def done(self, webhook_id: UUID, task: asyncio.Task[None], answer: Answer | None) -> bool:
        """One that was taken is over. `answer` None: nothing is known of it. True: its endpoint had no room for more until now."""
        in_time = task not in self.lingering
        self.lingering.discard(task)
        full = self._in_flight[webhook_id] >= self._window.get(webhook_id, WINDOW_FIRST)
        self._in_flight[webhook_id] -= 1
        if self._in_flight[webhook_id] <= 0:
            del self._in_flight[webhook_id]
        if answer is not None and answer.status is not None and in_time:
            window = self._window.get(webhook_id, WINDOW_FIRST)
            self._window[webhook_id] = min(WINDOW_MAX, window + 1)
        if len(self._window) > KEPT_MAX:
            self._window = {w: n for w, n in self._window.items() if n < WINDOW_FIRST or w in self._in_flight}
        return full

    async def keep(self, *, any_in_hand: bool) -> None:
        """Ours are renewed; those of workers that have gone are free again."""
        pool = self._db.pool("worker")
        if any_in_hand:
            await pool.execute(RENEW, self.id)
        await pool.execute(RELEASE_EXPIRED)

    async def give_back(self, in_hand: Iterable[Any]) -> None:
        """All that stand as claimed here but those `in_hand`: a claim was made, or what came of it written, without an answer."""
        await self._db.pool("worker").execute(GIVE_BACK, self.id, *_keys(in_hand))

    def _rooms(self) -> tuple[list[UUID], list[int]]:
        """Endpoints, and how many more may be under way to each; any other has `WINDOW_FIRST`."""
        now_s = self._clock.monotonic_s()
        self._held_until_s = {w: s for w, s in self._held_until_s.items() if s > now_s}
        rooms = {w: n - self._in_flight[w] for w, n in self._window.items()}
        rooms |= {w: WINDOW_FIRST - n for w, n in self._in_flight.items() if w not in self._window}
        rooms |= dict.fromkeys(self._held_until_s, 0)
        if len(self.lingering) >= LINGER_MAX:
            rooms |= {w: 0 for w, n in self._window.items() if n == 1}
        return [*rooms], [max(0, n) for n in rooms.values()]

    async def _within_limits(
        self, connection: Any, claims: list[Any], endpoints: dict[UUID, Any]
    ) -> list[Any]:
        """Those that endpoints with limits of their own have room for; the others are put off a moment."""
        claimed = Counter(c["webhook_id"] for c in claims if endpoints[c["webhook_id"]]["limited"])
        if not claimed:
            return claims
        room = dict(await connection.fetch(ALLOW, [*claimed], [*claimed.values()]))
        now_s = self._clock.monotonic_s()
        self._held_until_s |= {w: now_s + HELD_S for w, n in claimed.items() if room[w] < n}
        kept: list[Any] = []
        excess: list[Any] = []
        for claim in claims:
            webhook_id = claim["webhook_id"]
            if webhook_id in room:
                room[webhook_id] -= 1
            (kept if room.get(webhook_id, 0) >= 0 else excess).append(claim)
        if excess:
            await connection.execute(POSTPONE, self.id, *_keys(excess))
        return kept

    async def put_off(self, claims: list[Any]) -> None:
        """A moment: nothing was sent of them."""
        await self._db.pool("worker").execute(POSTPONE, self.id, *_keys(claims))


def _keys(claims: Iterable[Any]) -> tuple[list[UUID], list[UUID], list[int]]:
    listed = list(claims)
    return (
        [c["call_id"] for c in listed],
        [c["webhook_id"] for c in listed],
        [c["seq"] for c in listed],
    )
