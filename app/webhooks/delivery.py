"""Delivers: claims what is due, sends it, writes what came of it. Any number of instances share the work.

The event table is the outbox: a delivery is written with its event, in one transaction. A claim commits before the first
byte leaves, so nothing is sent of an event that is not durable: a claim whose commit is not known to be safe sends
nothing, and is given back. It is short and renewed, so that a worker that dies is followed within seconds. First in,
first out per (endpoint, call): the claim takes only deliveries with none before them; a parked one does not hold the
others up, and those that overtake it say so. An endpoint has a bounded number of deliveries in flight here, so one that
hangs fills no one else's lane.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from app.clock import Clock
from app.connection import DATABASE_ERRORS, is_away
from app.db import Database
from app.hints import Hints
from app.ids import new_id
from app.log.rows import EVENT_COLUMNS, to_public
from app.supervisor import wait_for_stop
from app.telemetry import webhook_attempts_total
from app.vault import Vault, VaultError
from app.webhooks.retry import Attempt, Verdict, judge
from app.webhooks.sender import Answer, Sender
from app.webhooks.service import CHANGED
from app.webhooks.settle import Done, Settler
from app.webhooks.signature import headers
from regions.wire import ids

log = structlog.get_logger()

CLAIM_S = 5
KEEP_EVERY_S = 1.0
BATCH = 64
PER_ENDPOINT_MAX = 64
SLOW_MAX = 2
"""In flight at an endpoint that has let us wait in vain lately."""
SLOW_S = 60.0
SLOW_KEPT_MAX = 10_000
POSTPONE_S = 0.25
IN_FLIGHT_MAX = 512
POLL_S = 0.5
GATHER_S = 0.005

CLAIM = f"""
with due as (
  select p.call_id, p.webhook_id, p.seq,
         exists (select from vx.deliveries b where b.webhook_id = p.webhook_id and b.call_id = p.call_id and b.seq < p.seq
                    and b.parked and b.state in ('parked', 'in_flight')) as overtakes
    from vx.deliveries p
   where p.state in ('pending', 'parked') and p.next_at <= clock_timestamp() and not p.webhook_id = any($2::uuid[])
     and not exists (select from vx.deliveries b
                      where b.webhook_id = p.webhook_id and b.call_id = p.call_id and b.seq < p.seq
                        and (b.state in ('pending', 'queued') or b.state = 'in_flight' and not b.parked))
   order by p.next_at limit $3
   for no key update of p skip locked
)
update vx.deliveries d
   set state = 'in_flight', claimed_by = $1, claimed_until = clock_timestamp() + interval '{CLAIM_S} seconds',
       attempts = d.attempts + 1, first_at = coalesce(d.first_at, clock_timestamp()), overtook = d.overtook or due.overtakes
  from due
 where d.call_id = due.call_id and d.webhook_id = due.webhook_id and d.seq = due.seq
returning d.call_id, d.webhook_id, d.seq, d.attempts, d.first_at, d.overtook
"""

EVENTS_OF = f"""
select {", ".join("e." + c.strip() for c in EVENT_COLUMNS.split(","))}
  from unnest($1::uuid[], $2::int[]) k(call_id, seq) join vx.events e on e.call_id = k.call_id and e.seq = k.seq
"""
ENDPOINTS = """
select w.id, w.url, w.secrets, w.local_targets, w.enabled and w.deleted_at is null as open, w.project_id
  from vx.webhooks w where w.id = any($1::uuid[])
"""
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
       attempts = d.attempts - 1
 where d.state = 'in_flight' and d.claimed_by = $1
   and not exists (select from unnest($2::uuid[], $3::uuid[], $4::int[]) k(call_id, webhook_id, seq)
                    where k.call_id = d.call_id and k.webhook_id = d.webhook_id and k.seq = d.seq)
"""
POSTPONE = f"""
update vx.deliveries d
   set state = case when d.parked then 'parked' else 'pending' end, claimed_by = null, attempts = d.attempts - 1,
       first_at = case when d.attempts > 1 then d.first_at end,
       next_at = clock_timestamp() + interval '{POSTPONE_S} seconds'
  from unnest($2::uuid[], $3::uuid[], $4::int[]) k(call_id, webhook_id, seq)
 where d.call_id = k.call_id and d.webhook_id = k.webhook_id and d.seq = k.seq and d.state = 'in_flight' and d.claimed_by = $1
"""
DISABLE = "update vx.webhooks set enabled = false, disabled_reason = $2 where id = $1"


class Delivery:
    def __init__(
        self,
        db: Database,
        vault: Vault,
        hints: Hints,
        clock: Clock,
        *,
        local_targets: bool,
        sender: Callable[..., Sender] = Sender,
        chance: random.Random | None = None,
    ) -> None:
        self._db = db
        self._vault = vault
        self._hints = hints
        self._clock = clock
        self._local_targets = local_targets
        self._sender = sender
        self.id = new_id(db.cell)
        self._settler = Settler(db, self.id)
        self._chance = chance or random.Random()
        self._in_flight: Counter[UUID] = Counter()
        self._slow_until_s: dict[UUID, float] = {}
        self.in_hand: dict[asyncio.Task[None], Any] = {}
        self._astray = False

    async def worker(self, stop: asyncio.Event) -> None:
        due = self._hints.subscribe("deliveries")
        sender = self._sender(local_targets=self._local_targets)
        keeping = asyncio.create_task(self._keep(stop))
        try:
            while not stop.is_set():
                try:
                    if self._astray:
                        await self._give_back()
                    claimed = await self._claim()
                except DATABASE_ERRORS as error:
                    if not is_away(error):
                        raise
                    # nothing of this claim is sent; what is under way goes on
                    self._astray = True
                    log.warning("webhook.not_claimed", error=type(error).__name__)
                    await wait_for_stop(stop, POLL_S)
                    continue
                for claim, row, endpoint in claimed:
                    self._in_flight[claim["webhook_id"]] += 1
                    task = asyncio.create_task(self._deliver(sender, claim, row, endpoint))
                    self.in_hand[task] = claim
                    task.add_done_callback(self.in_hand.pop)
                if claimed:
                    # what becomes due meanwhile is claimed together
                    await wait_for_stop(stop, GATHER_S)
                else:
                    await due.wait(POLL_S)
                while len(self.in_hand) >= IN_FLIGHT_MAX and not stop.is_set():
                    await asyncio.wait(self.in_hand, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.close()
            if self.in_hand:
                # the last writes are let through: what was sent is written as sent
                await asyncio.wait(self.in_hand, timeout=3.0)
            for task in (keeping, *self.in_hand):
                task.cancel()
            await sender.close()

    async def _keep(self, stop: asyncio.Event) -> None:
        """By itself, so that nothing which holds the claiming up lets a claim run out."""
        while not await wait_for_stop(stop, KEEP_EVERY_S):
            try:
                await self.keep_claims()
            except DATABASE_ERRORS as error:
                log.warning("webhook.claims_not_kept", error=type(error).__name__)

    async def keep_claims(self) -> None:
        """Ours are renewed; those of workers that have gone are free again."""
        pool = self._db.pool("worker")
        if self.in_hand:
            await pool.execute(RENEW, self.id)
        await pool.execute(RELEASE_EXPIRED)

    async def _claim(self) -> list[tuple[Any, Any, Any]]:
        room = min(BATCH, IN_FLIGHT_MAX - len(self.in_hand))
        full = [webhook for webhook, n in self._in_flight.items() if n >= self._most(webhook)]
        # the server that acknowledged the claim is asked for the events: another one might show what was lost
        async with self._db.pool("worker").acquire() as connection:
            claims = await self._within_bounds(connection, await connection.fetch(CLAIM, self.id, full, room))
            if not claims:
                return []
            rows = await connection.fetch(
                EVENTS_OF, [c["call_id"] for c in claims], [c["seq"] for c in claims]
            )
            opened = await connection.fetch(ENDPOINTS, list({c["webhook_id"] for c in claims}))
        events = {(row["call_id"], row["seq"]): row for row in rows}
        endpoints = {row["id"]: row for row in opened}
        return [(c, events[(c["call_id"], c["seq"])], endpoints[c["webhook_id"]]) for c in claims]

    def _most(self, webhook_id: UUID) -> int:
        """How many deliveries may be under way to the endpoint at once, on this instance."""
        slow = self._slow_until_s.get(webhook_id, 0.0) > self._clock.monotonic_s()
        return SLOW_MAX if slow else PER_ENDPOINT_MAX

    async def _within_bounds(self, connection: Any, claims: list[Any]) -> list[Any]:
        """Those that their endpoints have room for; the others are put off a moment, so that they are in nobody's way."""
        kept: list[Any] = []
        excess: list[Any] = []
        count = Counter(self._in_flight)
        for claim in claims:
            webhook_id = claim["webhook_id"]
            count[webhook_id] += 1
            (kept if count[webhook_id] <= self._most(webhook_id) else excess).append(claim)
        if excess:
            keys = ([c[name] for c in excess] for name in ("call_id", "webhook_id", "seq"))
            await connection.execute(POSTPONE, self.id, *keys)
        return kept

    async def _give_back(self) -> None:
        """What stands as claimed here and is not under way: its claim was made, or what came of it written, without an answer."""
        self._astray = False
        mine = [claim for task, claim in self.in_hand.items() if not task.done()]
        keys = ([c[name] for c in mine] for name in ("call_id", "webhook_id", "seq"))
        await self._db.pool("worker").execute(GIVE_BACK, self.id, *keys)

    async def _deliver(self, sender: Sender, claim: Any, row: Any, endpoint: Any) -> None:
        webhook_id: UUID = claim["webhook_id"]
        try:
            if endpoint["open"]:
                answer = await self._send(sender, claim, row, endpoint)
                verdict = judge(self._attempt(claim, answer), draw=self._chance.random())
                self._note_pace(webhook_id, answer)
            else:
                answer = Answer(status=None, duration_ms=0, error="disabled")
                verdict = Verdict(outcome="failed")
            await asyncio.shield(self._settle(claim, endpoint, answer, verdict))
        except DATABASE_ERRORS as error:
            self._astray = True
            # nothing is written of this attempt: it is given back, and the delivery is made again under the same id
            log.warning("webhook.unsettled", webhook=ids.encode(ids.WEBHOOK, webhook_id), error=str(error))
        else:
            webhook_attempts_total.labels(verdict.outcome).inc()
            log.info(
                "webhook.attempted",
                webhook=ids.encode(ids.WEBHOOK, webhook_id),
                event_id=ids.encode(ids.EVENT, row["id"]),
                attempt=claim["attempts"],
                outcome=verdict.outcome,
                status=answer.status,
                error=answer.error,
                ms=answer.duration_ms,
            )
        finally:
            self._in_flight[webhook_id] -= 1
            if self._in_flight[webhook_id] <= 0:
                del self._in_flight[webhook_id]
            self._hints.wake("deliveries")

    def _note_pace(self, webhook_id: UUID, answer: Answer) -> None:
        now_s = self._clock.monotonic_s()
        if answer.timed_out:
            self._slow_until_s[webhook_id] = now_s + SLOW_S
        elif answer.status is not None:
            self._slow_until_s.pop(webhook_id, None)
        if len(self._slow_until_s) > SLOW_KEPT_MAX:
            self._slow_until_s = {w: s for w, s in self._slow_until_s.items() if s > now_s}

    def _attempt(self, claim: Any, answer: Answer) -> Attempt:
        return Attempt(
            number=claim["attempts"],
            status=answer.status,
            timed_out=answer.timed_out,
            retry_after_s=answer.retry_after_s,
            failing_s=(self._clock.now() - claim["first_at"]).total_seconds(),
        )

    async def _send(self, sender: Sender, claim: Any, row: Any, endpoint: Any) -> Answer:
        now = self._clock.now()
        try:
            (event,) = await to_public(self._vault, [row])
            secrets = [
                self._vault.provider.unwrap(base64.b64decode(s["wrapped"]), f"webhook:{endpoint['id']}")
                for s in msgspec.json.decode(endpoint["secrets"])
                if s["expires_at"] is None or datetime.fromisoformat(s["expires_at"]) > now
            ]
        except VaultError:
            # this instance has another master key, or the row was tampered with: no reason to hold others up
            return Answer(status=None, duration_ms=0, error="cannot be opened with this master key")
        body = msgspec.json.encode(event)
        sent = headers(event.id, int(now.timestamp()), body, secrets)
        if claim["overtook"]:
            sent["Voxplane-Overtook"] = "true"
        return await sender.post(endpoint["url"], body, sent, local_targets=endpoint["local_targets"])

    async def _settle(self, claim: Any, endpoint: Any, answer: Answer, verdict: Verdict) -> None:
        now = self._clock.now()
        state = {"delivered": "delivered", "gone": "failed", "failed": "failed"}.get(
            verdict.outcome, "parked" if verdict.park else "pending"
        )
        await self._settler.settle(
            Done(
                call_id=claim["call_id"],
                webhook_id=claim["webhook_id"],
                seq=claim["seq"],
                attempt=claim["attempts"],
                project_id=endpoint["project_id"],
                at=now,
                duration_ms=answer.duration_ms,
                status=answer.status,
                error=answer.error,
                excerpt=answer.excerpt or None,
                state=state,
                next_at=now + timedelta(seconds=verdict.pause_s),
            )
        )
        if verdict.outcome == "gone":
            await self._db.pool("worker").execute(
                DISABLE, claim["webhook_id"], "the endpoint answered 410 Gone"
            )
            self._hints.wake(CHANGED)
