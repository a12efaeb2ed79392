"""Delivers: sends what is claimed, and writes what came of it. Any number of instances share the work.

The event table is the outbox: a delivery is written with its event, in one transaction. A claim commits before the first
byte leaves, so nothing is sent of an event that is not durable: a claim whose commit is not known to be safe sends
nothing, and is given back. What is claimed is `claims.Claims`'s, what follows an attempt `retry.judge`'s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from app.clock import Clock
from app.connection import DATABASE_ERRORS, is_away
from app.db import Database
from app.hints import DELIVERIES, Hints
from app.log.rows import to_public
from app.log.withholding import is_content
from app.projects.targets import targets_of
from app.supervisor import wait_for_stop
from app.telemetry import webhook_attempt_seconds, webhook_attempts_total, webhook_lag_seconds
from app.tracing import Tracer
from app.vault import Vault, VaultError
from app.webhooks.claims import BATCH, KEEP_EVERY_S, Claims
from app.webhooks.envelope import OVERTOOK, REPLAY, Envelopes, type_of
from app.webhooks.handshake import Handshakes
from app.webhooks.retry import Attempt, Verdict, judge
from app.webhooks.sender import Answer, Sender
from app.webhooks.service import CHANGED
from app.webhooks.settle import Done, Settler
from regions.wire import ids
from regions.wire.tracing import Context, Value

log = structlog.get_logger()

IN_FLIGHT_MAX = 512
LINGER_S = 1.0
"""Without an answer for so long, a delivery takes no room from others any more."""
POLL_S = 0.5
GATHER_S = 0.005

DISABLE = "update vx.webhooks set enabled = false, disabled_reason = $2 where id = $1 and url = $3"


class Delivery:
    def __init__(
        self,
        db: Database,
        vault: Vault,
        hints: Hints,
        clock: Clock,
        *,
        local_targets: bool,
        project_targets: bool = False,
        proxy: str = "",
        jurisdictions: Sequence[str] = (),
        sender: Callable[..., Sender] = Sender,
        chance: random.Random | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._db = db
        self._vault = vault
        self._hints = hints
        self._clock = clock
        self._local_targets = local_targets
        self._project_targets = project_targets
        self._proxy = proxy
        self._sender = sender
        self._tracer = tracer or Tracer()
        self.claims = Claims(db, clock, jurisdictions, traced=self._tracer.on)
        self._envelopes = Envelopes(vault)
        self._handshakes = Handshakes(db, self._envelopes, clock)
        self._settler = Settler(db, self.claims.id, self._wake)
        self._chance = chance or random.Random()
        self.in_hand: dict[asyncio.Task[None], Any] = {}
        self._astray = False

    async def worker(self, stop: asyncio.Event) -> None:
        due = self._hints.subscribe(DELIVERIES)
        sender = self._sender(local_targets=self._local_targets, proxy=self._proxy)
        keeping = asyncio.create_task(self._keep(stop))
        try:
            while not stop.is_set():
                try:
                    if self._astray:
                        await self._give_back()
                    claimed = await self.claims.take(self._room)
                except DATABASE_ERRORS as error:
                    if not is_away(error):
                        raise
                    # nothing of this claim is sent; what is under way goes on
                    self._astray = True
                    log.warning("webhook.not_claimed", error=type(error).__name__)
                    await wait_for_stop(stop, POLL_S)
                    continue
                for claim, row, endpoint in claimed:
                    task = asyncio.create_task(self._deliver(sender, claim, row, endpoint))
                    self.in_hand[task] = claim
                    task.add_done_callback(self.in_hand.pop)
                if len(claimed) < BATCH:
                    await due.wait(POLL_S)
                # what becomes due meanwhile is claimed together
                await wait_for_stop(stop, GATHER_S)
                while self._room <= 0 and not stop.is_set():
                    await asyncio.wait(self.in_hand, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.close()
            if self.in_hand:
                # the last writes are let through: what was sent is written as sent
                await asyncio.wait(self.in_hand, timeout=3.0)
            for task in (keeping, *self.in_hand):
                task.cancel()
            await sender.close()

    @property
    def _room(self) -> int:
        return IN_FLIGHT_MAX - len(self.in_hand) + len(self.claims.lingering)

    def _wake(self) -> None:
        self._hints.wake(DELIVERIES)

    async def _keep(self, stop: asyncio.Event) -> None:
        """By itself, so that nothing which holds the claiming up lets a claim run out."""
        while not await wait_for_stop(stop, KEEP_EVERY_S):
            try:
                await self.claims.keep(any_in_hand=bool(self.in_hand))
            except DATABASE_ERRORS as error:
                log.warning("webhook.claims_not_kept", error=type(error).__name__)

    async def _deliver(self, sender: Sender, claim: Any, row: Any, endpoint: Any) -> None:
        webhook_id: UUID = claim["webhook_id"]
        context = self._tracer.attempt(row["trace"])
        answer: Answer | None = None
        task = asyncio.current_task()
        assert task is not None
        waiting = asyncio.get_running_loop().call_later(LINGER_S, self.claims.lingers, webhook_id, task)
        try:
            if endpoint["open"]:
                answer = await self._send(sender, claim, row, endpoint, context)
                if answer is None:
                    await self.claims.put_off([claim])
                    return
                verdict = judge(self._attempt(claim, answer), draw=self._chance.random())
            else:
                answer = Answer(status=None, duration_ms=0, error="disabled")
                verdict = Verdict(outcome="failed")
            await asyncio.shield(self._settle(claim, row, endpoint, answer, verdict))
        except DATABASE_ERRORS as error:
            self._astray = True
            # nothing is written of this attempt: it is given back, and the delivery is made again under the same id
            log.warning("webhook.unsettled", webhook=ids.encode(ids.WEBHOOK, webhook_id), error=str(error))
        except Exception as error:
            # a fault of ours: without this its claim would be renewed for as long as this worker lives
            self._astray = True
            log.error("webhook.fault", webhook=ids.encode(ids.WEBHOOK, webhook_id), exc_info=error)
        else:
            self._measure(claim, row, answer, verdict, context)
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
            waiting.cancel()
            if self.claims.done(webhook_id, task, answer) or self._astray:
                self._wake()

    def _measure(
        self, claim: Any, row: Any, answer: Answer, verdict: Verdict, context: Context | None
    ) -> None:
        now, outcome = self._clock.now(), verdict.outcome
        webhook_attempts_total.labels(outcome).inc()
        webhook_attempt_seconds.labels(outcome).observe(answer.duration_ms / 1000)
        webhook_lag_seconds.labels(outcome).observe(max(0.0, (now - row["at"]).total_seconds()))
        if context is not None:
            attributes: dict[str, Value] = {
                "voxplane.webhook": ids.encode(ids.WEBHOOK, claim["webhook_id"]), "voxplane.event": row["type"],
                "voxplane.attempt": claim["attempts"], "voxplane.outcome": outcome, "http.response.status_code": answer.status or 0,
            }  # fmt: skip
            failed = "" if outcome == "delivered" else outcome
            call = ids.encode(ids.CALL, claim["call_id"])
            self._tracer.attempted(context, call, now, answer.duration_ms / 1000, attributes, failed)

    def _attempt(self, claim: Any, answer: Answer) -> Attempt:
        return Attempt(
            number=claim["number"],
            status=answer.status,
            timed_out=answer.timed_out,
            retry_after_s=answer.retry_after_s,
            failing_s=(self._clock.now() - claim["first_at"]).total_seconds(),
        )

    async def _send(
        self, sender: Sender, claim: Any, row: Any, endpoint: Any, context: Context | None
    ) -> Answer | None:
        """None: the handshake has had its turn, as far as the endpoint's rate goes."""
        try:
            (event,) = await to_public(self._vault, [row])
            listed = targets_of(endpoint["mode"], endpoint["settings"]) if self._project_targets else None
            shaken = await self._handshakes.passed(endpoint, sender, listed)
            if shaken.refused is not None:
                return shaken.refused
            if shaken.asked and endpoint["limited"]:
                return None
            body = self._envelopes.body(endpoint, event)
            sent = await self._envelopes.headers(
                endpoint, event.id, body, self._clock.now(), content_type=type_of(endpoint)
            )
        except VaultError:
            # this instance has another master key, or the row was tampered with: no reason to hold others up
            return Answer(status=None, duration_ms=0, error="cannot be opened with this master key")
        if context is not None:
            sent["traceparent"] = context.traceparent
        if claim["overtook"]:
            sent[OVERTOOK] = "true"
        if claim["replay"]:
            sent[REPLAY] = "true"
        return await sender.post(
            endpoint["url"], body, sent, local_targets=endpoint["local_targets"], listed=listed
        )

    async def _give_back(self) -> None:
        self._astray = False
        await self.claims.give_back(claim for task, claim in self.in_hand.items() if not task.done())

    async def _settle(self, claim: Any, row: Any, endpoint: Any, answer: Answer, verdict: Verdict) -> None:
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
                # an endpoint may answer with what it was sent: what was said is kept nowhere in the clear
                excerpt=None if is_content(row["type"]) else answer.excerpt or None,
                state=state,
                next_at=now + timedelta(seconds=verdict.pause_s),
                url=endpoint["url"],
            )
        )
        if verdict.outcome == "gone":
            await self._db.pool("worker").execute(
                DISABLE, claim["webhook_id"], "the endpoint answered 410 Gone", endpoint["url"]
            )
            self._hints.wake(CHANGED)
