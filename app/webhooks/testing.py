"""Sends one signed event that never happened, and says what came of it. Decides how often that may be asked for.

It goes the way of every delivery: through the address filter, with the endpoint's headers and secrets, after a handshake where
there was none, and within the endpoint's own rate and concurrency. Nothing of it is stored but that the handshake was answered.
"""

from __future__ import annotations

from typing import Any

from app.buckets import Buckets
from app.clock import Clock
from app.db import Database
from app.errors import FieldError, Invalid, QuotaExceeded, Unavailable
from app.projects.auth import Principal
from app.vault import VaultError
from app.webhooks.beside import beside
from app.webhooks.envelope import type_of
from app.webhooks.handshake import Handshakes, Posts
from app.webhooks.policy import ENDPOINTS_MAX
from app.webhooks.samples import SAMPLES, sample
from app.webhooks.sender import Answer, Sender
from app.webhooks.service import Webhooks
from app.webhooks.shapes import TestResult, TestWebhook
from regions.wire.events import PublicEvent
from regions.wire.targets import Targets

TEST = "Voxplane-Test"
BURST, PER_S = float(ENDPOINTS_MAX), 1.0
"""Every endpoint of a project once, then one a second."""


class Tests:
    def __init__(
        self, db: Database, webhooks: Webhooks, clock: Clock, *, local_targets: bool, proxy: str = ""
    ) -> None:
        self._db = db
        self._webhooks = webhooks
        self._clock = clock
        self._local_targets = local_targets
        self._proxy = proxy
        self._handshakes = Handshakes(db, webhooks.envelopes, clock)
        self._buckets = Buckets(burst=BURST, per_s=PER_S)

    async def send(self, principal: Principal, webhook: str, body: TestWebhook) -> TestResult:
        """Raises `Invalid`, `NotFound`, `QuotaExceeded`."""
        if body.type not in SAMPLES:
            fault = FieldError(pointer="/type", detail="there is no such event type, or it is never sent")
            raise Invalid("There is no example of this event.", errors=[fault])
        row = await self._webhooks.row(principal, webhook)
        if not self._buckets.take(principal.project_id, self._clock.monotonic_s()):
            raise QuotaExceeded("Test events are limited to one a second.", retry_after_s=1)
        endpoint = {**row, "verified": row["verified_at"] is not None}
        event = sample(body.type, self._db.cell, self._clock.now())
        answer = await self._send(endpoint, event, principal.targets)
        return TestResult(
            ok=answer.good,
            event_id=event.id,
            type=event.type,
            status=answer.status,
            error=answer.error,
            duration_ms=answer.duration_ms,
            excerpt=answer.excerpt or None,
            fix=None if answer.good else _fix(answer),
        )

    async def _send(self, endpoint: dict[str, Any], event: PublicEvent, listed: Targets | None) -> Answer:
        sender = Sender(local_targets=self._local_targets, proxy=self._proxy)
        try:
            async with beside(self._db, sender, endpoint) as limited:
                return await self._asked(endpoint, event, limited, listed)
        except VaultError:
            raise Unavailable(
                "The endpoint's secret cannot be opened by this instance.",
                fix="Start it with the master key that wrapped the secret, or rotate the secret.",
            ) from None
        finally:
            await sender.close()

    async def _asked(
        self, endpoint: dict[str, Any], event: PublicEvent, sender: Posts, listed: Targets | None
    ) -> Answer:
        refused = (await self._handshakes.passed(endpoint, sender, listed)).refused
        if refused is not None:
            return refused
        body = self._webhooks.envelopes.body(endpoint, event)
        headers = await self._webhooks.envelopes.headers(
            endpoint, event.id, body, self._clock.now(), content_type=type_of(endpoint)
        )
        headers[TEST] = "true"
        return await sender.post(
            endpoint["url"], body, headers, local_targets=endpoint["local_targets"], listed=listed
        )


def _fix(answer: Answer) -> str:
    if answer.status is None:
        return "Nothing answered: check the URL, its certificate, and that it can be reached from here."
    if answer.status in (401, 403):
        return "The endpoint refused it: check its secret, and what stands before it."
    if 300 <= answer.status < 400:
        return "Redirects are not followed: give the URL it leads to."
    if answer.status in (404, 405):
        return "The path answers no POST: check the URL."
    return "Answer 2xx within 15 s, and work afterwards."
