"""Requests to an endpoint that are no deliveries: a test, and the handshake before it. They keep its own limits too.

The deliveries of all instances are counted in the database, so it is asked there. A request waits a moment for the endpoint's
rate, and for its concurrency not at all: whoever asks for a test is told that the endpoint has enough to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from app.db import Database
from app.errors import QuotaExceeded
from app.webhooks.handshake import Posts
from app.webhooks.sender import DEADLINE_S, Answer

HOLD_S = 2 * DEADLINE_S + 10.0
"""Longer than a handshake and a test take: an instance that dies meanwhile leaves one of the concurrency taken for so long."""
WAIT_S = 2.0
ASK_EVERY_S = 0.1

ADMIT = "select vx.admit($1, $2)"
RELEASE = "update vx.webhooks set beside_until = '-infinity' where id = $1"


class Beside:
    """Sends as the sender does, once the endpoint has room. `held`: this one has a place among what is under way to it."""

    def __init__(self, db: Database, sender: Posts, webhook_id: UUID) -> None:
        self._db = db
        self._sender = sender
        self._id = webhook_id
        self.held = False

    async def post(self, url: str, body: bytes, headers: dict[str, str], **more: Any) -> Answer:
        """Raises `QuotaExceeded` where the endpoint has as much as it takes, and what the driver raises."""
        await self._admitted()
        return await self._sender.post(url, body, headers, **more)

    async def _admitted(self) -> None:
        waited_s = 0.0
        while True:
            hold_s = None if self.held else HOLD_S
            said = await self._db.pool("worker").fetchval(ADMIT, self._id, hold_s)
            if said == "go":
                self.held = True
                return
            if said == "busy":
                raise QuotaExceeded(
                    "As many requests are under way to the endpoint as its concurrency allows.",
                    retry_after_s=1,
                )
            if waited_s >= WAIT_S:
                raise QuotaExceeded("The endpoint's own rate_per_s is used up.", retry_after_s=1)
            waited_s += ASK_EVERY_S
            await asyncio.sleep(ASK_EVERY_S)


@asynccontextmanager
async def beside(db: Database, sender: Posts, endpoint: dict[str, Any]) -> AsyncIterator[Posts]:
    """The sender itself, where the endpoint has no limits of its own."""
    if endpoint["rate_per_s"] is None and endpoint["concurrency"] is None:
        yield sender
        return
    sending = Beside(db, sender, endpoint["id"])
    try:
        yield sending
    finally:
        if sending.held and endpoint["concurrency"] is not None:
            await asyncio.shield(db.pool("worker").execute(RELEASE, endpoint["id"]))
