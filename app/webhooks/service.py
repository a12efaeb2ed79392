"""Webhook endpoints: made, listed, removed, and the hidden ones behind a call's `webhook_url`."""

from __future__ import annotations

import base64
import hmac
import os
from collections import OrderedDict
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import FieldError, Invalid, NotFound
from app.hints import Hints
from app.ids import new_id, parse
from app.projects.auth import Principal
from app.tables import webhooks
from app.vault import Vault
from app.webhooks.shapes import AttemptView, CreatedWebhook, CreateWebhook, WebhookView
from app.webhooks.signature import SECRET_BYTES, write_secret
from regions.wire import ids
from regions.wire.addresses import AddressError, check_url
from regions.wire.events import EVENT_TYPES

PAGE_MAX = 200
URLS_MAX = 10_000
FRESH_S = 10.0
SCHEMES = ("https", "http")
CHANGED = "webhooks"
"""The topic on which instances tell each other that an endpoint was removed or disabled."""

SELECT_ATTEMPTS = text(
    "select a.call_id, a.seq, a.attempt, a.at, a.duration_ms, a.status, a.error, d.overtook"
    " from vx.delivery_attempts a join vx.deliveries d using (call_id, webhook_id, seq)"
    " where a.webhook_id = :webhook order by a.at desc limit :limit"
)


class Webhooks:
    def __init__(
        self, db: Database, vault: Vault, clock: Clock, hints: Hints, *, local_targets: bool
    ) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._hints = hints
        self._local_targets = local_targets
        self._by_url: OrderedDict[tuple[UUID, str], tuple[UUID, float]] = OrderedDict()

    async def create(self, principal: Principal, body: CreateWebhook) -> CreatedWebhook:
        self._check(principal, body)
        webhook_id, now, secret = new_id(self._db.cell), self._clock.now(), os.urandom(SECRET_BYTES)
        row: dict[str, Any] = {
            "id": webhook_id,
            "project_id": principal.project_id,
            "scope": "project",
            "url": body.url,
            "types": body.types,
            "secrets": [self._wrapped(webhook_id, secret, rfc3339(now))],
            "local_targets": principal.mode == "test",
            "created_at": now,
        }
        async with self._db.project(principal.project_id) as connection:
            await connection.execute(insert(webhooks).values(**row))
        return CreatedWebhook(
            **_view(row | {"enabled": True, "disabled_reason": None}), secret=write_secret(secret)
        )

    async def all(self, principal: Principal) -> list[WebhookView]:
        query = (
            select(webhooks)
            .where(webhooks.c.deleted_at.is_(None))
            .order_by(webhooks.c.id.desc())
            .limit(PAGE_MAX)
        )
        async with self._db.project(principal.project_id) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [WebhookView(**_view(row)) for row in rows]

    async def delete(self, principal: Principal, webhook: str) -> None:
        """What is still to be delivered to it is not delivered any more."""
        found = parse(ids.WEBHOOK, webhook)
        live = (webhooks.c.id == found) & webhooks.c.deleted_at.is_(None)
        async with self._db.project(principal.project_id) as connection:
            changed = await connection.execute(
                update(webhooks).where(live).values(deleted_at=self._clock.now(), enabled=False)
            )
        if changed.rowcount == 0:
            raise NotFound("There is no such webhook.")
        self.forget()
        self._hints.wake(CHANGED)

    def forget(self) -> None:
        """Some endpoint was removed or disabled, here or on another instance."""
        self._by_url.clear()

    async def attempts(self, principal: Principal, webhook: str, limit: int) -> list[AttemptView]:
        found = parse(ids.WEBHOOK, webhook)
        async with self._db.project(principal.project_id) as connection:
            if found is None or not await connection.scalar(
                select(webhooks.c.id).where(webhooks.c.id == found)
            ):
                raise NotFound("There is no such webhook.")
            rows = (await connection.execute(SELECT_ATTEMPTS, {"webhook": found, "limit": limit})).all()
        return [
            AttemptView(
                event_seq=r.seq,
                call_id=ids.encode(ids.CALL, r.call_id),
                attempt=r.attempt,
                at=rfc3339(r.at),
                duration_ms=r.duration_ms,
                status=r.status,
                error=r.error,
                overtook=r.overtook,
            )
            for r in rows
        ]

    async def for_url(self, project_id: UUID, mode: str, url: str) -> UUID:
        """The hidden endpoint for a call's `webhook_url`; one per URL and project, signed with the project's own secret. One that
        was disabled is enabled again: the project has just named it."""
        now_s = self._clock.monotonic_s()
        known, read_s = self._by_url.get((project_id, url), (None, 0.0))
        if known is not None and now_s - read_s < FRESH_S:
            return known
        secret = await self.signing_secret(project_id)
        webhook_id = new_id(self._db.cell)
        row = {
            "id": webhook_id,
            "project_id": project_id,
            "scope": "call",
            "url": url,
            "secrets": [self._wrapped(webhook_id, secret, rfc3339(self._clock.now()))],
            "local_targets": mode == "test",
            "created_at": self._clock.now(),
        }
        # literal: the planner has to see that it is the partial index's own
        unique = text("scope = 'call' and deleted_at is null")
        statement = (
            upsert(webhooks)
            .values(**row)
            .on_conflict_do_update(
                index_elements=[webhooks.c.project_id, webhooks.c.url],
                index_where=unique,
                set_={"enabled": True, "disabled_reason": None},
                where=text("not vx.webhooks.enabled"),
            )
        )
        query = select(webhooks.c.id).where((webhooks.c.url == url), unique)
        async with self._db.project(project_id) as connection:
            await connection.execute(statement)
            found: UUID | None = await connection.scalar(query)
        assert found is not None
        self._by_url[(project_id, url)] = (found, now_s)
        while len(self._by_url) > URLS_MAX:
            self._by_url.popitem(last=False)
        return found

    async def signing_secret(self, project_id: UUID) -> bytes:
        key = await self._vault.for_project(project_id)
        return hmac.digest(key.secret, b"webhooks", "sha256")[:SECRET_BYTES]

    def _wrapped(self, webhook_id: UUID, secret: bytes, at: str) -> dict[str, str | None]:
        wrapped = self._vault.provider.wrap(secret, f"webhook:{webhook_id}")
        return {"wrapped": base64.b64encode(wrapped).decode(), "created_at": at, "expires_at": None}

    def _check(self, principal: Principal, body: CreateWebhook) -> None:
        faults: list[FieldError] = []
        try:
            check_url(
                body.url, schemes=SCHEMES, local_targets=self._local_targets and principal.mode == "test"
            )
        except AddressError as error:
            faults.append(FieldError(pointer="/url", detail=f"{error.detail}. {error.fix}"))
        faults += [
            FieldError(pointer=f"/types/{i}", detail="there is no such event type")
            for i, name in enumerate(body.types or [])
            if name not in EVENT_TYPES or not EVENT_TYPES[name].durable
        ]
        if faults:
            raise Invalid("The webhook cannot be created so.", errors=faults)


def _view(row: Any) -> dict[str, Any]:
    return {
        "id": ids.encode(ids.WEBHOOK, row["id"]),
        "url": row["url"],
        "scope": row["scope"],
        "types": row["types"],
        "enabled": row["enabled"],
        "disabled_reason": row["disabled_reason"],
        "created_at": rfc3339(row["created_at"]),
    }
