"""Asks a new endpoint whether it wants to hear from us, before the first event goes there: a signed `webhook.handshake`.

Any 2xx is a yes, and holds until the URL changes. Endpoints that a call names by `webhook_url` are not asked: who creates the
call runs the backend too. Deliveries that come meanwhile share one handshake of this instance; it is one request, and counts as
one where the endpoint has a rate: the delivery that asked has used its turn.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

from app.clock import Clock, rfc3339
from app.db import Database
from app.ids import new_id
from app.webhooks.envelope import Envelopes, name_of
from app.webhooks.sender import Answer
from regions.wire import ids
from regions.wire.targets import Targets

HANDSHAKE = "webhook.handshake"
REFUSED = "handshake"
VERIFIED = "update vx.webhooks set verified_at = clock_timestamp() where id = $1 and url = $2 and verified_at is null"


class Posts(Protocol):
    async def post(
        self,
        url: str,
        body: bytes,
        headers: dict[str, str],
        *,
        local_targets: bool = False,
        listed: Targets | None = None,
    ) -> Answer: ...


class Handshake(NamedTuple):
    """`refused` None: events may go there; else what it answered instead. `asked`: it was asked for this delivery."""

    refused: Answer | None
    asked: bool


PASSED = Handshake(refused=None, asked=False)


class Handshakes:
    def __init__(self, db: Database, envelopes: Envelopes, clock: Clock) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock
        self._running: dict[tuple[UUID, str], asyncio.Task[Answer | None]] = {}

    async def passed(self, endpoint: Any, sender: Posts, listed: Targets | None = None) -> Handshake:
        """Raises `VaultError`, and what the driver and the sender raise."""
        if endpoint["verified"] or endpoint["scope"] != "project":
            return PASSED
        # a URL that has changed meanwhile is asked by itself
        key = (endpoint["id"], endpoint["url"])
        task = self._running.get(key)
        asked = task is None
        if task is None:
            task = self._running[key] = asyncio.create_task(self._ask(endpoint, sender, listed))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return Handshake(refused=await asyncio.shield(task), asked=asked)

    async def _ask(self, endpoint: Any, sender: Posts, listed: Targets | None) -> Answer | None:
        message_id, body = self._message(endpoint)
        headers = await self._envelopes.headers(endpoint, message_id, body, self._clock.now())
        answer = await sender.post(
            endpoint["url"], body, headers, local_targets=endpoint["local_targets"], listed=listed
        )
        if not answer.good:
            return dataclasses.replace(answer, error=answer.error or REFUSED)
        await self._db.pool("worker").execute(VERIFIED, endpoint["id"], endpoint["url"])
        return None

    def _message(self, endpoint: Any) -> tuple[str, bytes]:
        message_id = ids.encode(ids.EVENT, new_id(self._db.cell))
        said = {
            "id": message_id,
            "type": HANDSHAKE,
            "timestamp": rfc3339(self._clock.now()),
            "data": {"webhook": name_of(endpoint)},
        }
        return message_id, msgspec.json.encode(said)
