"""Webhook endpoints: made, changed, removed, their secrets rotated; and the hidden ones behind a call's `webhook_url`."""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import to_builtins
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import Conflict, FieldError, Invalid, NotFound, PreconditionFailed, QuotaExceeded
from app.hints import Hints
from app.ids import new_id, parse
from app.projects.auth import Principal
from app.tables import webhooks
from app.vault import Vault
from app.webhooks import policy
from app.webhooks.envelope import Envelopes, Secret, has_expired, secrets_of
from app.webhooks.shapes import (
    ChangeWebhook,
    CreatedWebhook,
    CreateWebhook,
    RotateSecret,
    SecretView,
    WebhookView,
)
from app.webhooks.signature import SECRET_BYTES, read_secret, write_secret
from regions.wire import ids

PAGE_MAX = 200
URLS_MAX = 10_000
FRESH_S = 10.0
CHANGED = "webhooks"
"""The topic on which instances tell each other that an endpoint was removed, changed or disabled."""
LOCK_PROJECT = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")


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
        self.envelopes = Envelopes(vault)

    async def create(self, principal: Principal, body: CreateWebhook) -> CreatedWebhook:
        """Raises `Invalid`, `Conflict` where there is one like it, `QuotaExceeded` where there are too many."""
        self._check(principal, body)
        faults = policy.secret_faults(body.secret)
        if faults:
            raise Invalid("The webhook cannot be created so.", errors=faults)
        webhook_id, now = new_id(self._db.cell), self._clock.now()
        secret = (read_secret(body.secret) if body.secret else None) or os.urandom(SECRET_BYTES)
        row: dict[str, Any] = {
            "id": webhook_id,
            "project_id": principal.project_id,
            "scope": "project",
            "local_targets": principal.mode == "test",
            "created_at": now,
            "secrets": [self._new_secret(webhook_id, secret, now)],
            **self._columns(webhook_id, to_builtins(body)),
        }
        async with self._db.project(principal.project_id) as connection:
            await connection.execute(LOCK_PROJECT, {"name": f"webhooks:{principal.project_id}"})
            await self._refuse_another(connection, body.url, row["types"], row["metadata"])
            made = (
                (await connection.execute(insert(webhooks).values(**row).returning(webhooks)))
                .mappings()
                .one()
            )
        return CreatedWebhook(**await self._view(made), secret=write_secret(secret))

    async def all(self, principal: Principal) -> list[WebhookView]:
        """The project's own, all of them; then the newest of those that calls have named."""
        query = (
            select(webhooks)
            .where(webhooks.c.deleted_at.is_(None))
            .order_by(webhooks.c.scope.desc(), webhooks.c.id.desc())
            .limit(PAGE_MAX)
        )
        async with self._db.project(principal.project_id) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [WebhookView(**await self._view(row)) for row in rows]

    async def get(self, principal: Principal, webhook: str) -> tuple[WebhookView, int]:
        """The view, and the version it has."""
        row = await self.row(principal, webhook)
        return WebhookView(**await self._view(row)), row["version"]

    async def row(self, principal: Principal, webhook: str) -> Any:
        """Raises `NotFound`."""
        async with self._db.project(principal.project_id) as connection:
            return await self._found(connection, webhook)

    async def change(
        self, principal: Principal, webhook: str, body: ChangeWebhook, if_match: str | None
    ) -> tuple[WebhookView, int]:
        """Raises `PreconditionFailed` where it has another version than `if_match` says."""
        self._check(principal, body)
        async with self._db.project(principal.project_id) as connection:
            await connection.execute(LOCK_PROJECT, {"name": f"webhooks:{principal.project_id}"})
            row = await self._found(connection, webhook, lock=True)
            if if_match is not None and if_match.strip() not in ("*", f'"{row["version"]}"'):
                raise PreconditionFailed("The webhook has another version.")
            new = self._columns(row["id"], to_builtins(body))
            if row["scope"] == "call" and new.get("url", row["url"]) != row["url"]:
                raise Conflict(
                    "This endpoint stands for the webhook_url of calls.",
                    fix="Name another URL in the create.",
                )
            if row["scope"] == "project" and new.keys() & {"url", "types", "metadata"}:
                asked = {**row, **new}
                await self._refuse_another(
                    connection, asked["url"], asked["types"], asked["metadata"], than=row["id"]
                )
            if new.get("url", row["url"]) != row["url"]:
                new |= {"verified_at": None, "failing_since": None, "warned": 0}
            if new.get("enabled") is True:
                new |= {"disabled_reason": None, "failing_since": None, "warned": 0}
            if new.get("enabled") is False and row["enabled"]:
                new["disabled_reason"] = "disabled by the project"
            statement = (
                update(webhooks)
                .where(webhooks.c.id == row["id"])
                .values(**new, version=webhooks.c.version + 1)
                .returning(webhooks)
            )
            changed = (await connection.execute(statement)).mappings().one()
        self._changed()
        return WebhookView(**await self._view(changed)), changed["version"]

    async def rotate(self, principal: Principal, webhook: str, body: RotateSecret) -> CreatedWebhook:
        """A new secret; the present ones sign too until `overlap_s` from now, and no older one longer than it would have."""
        faults = policy.secret_faults(body.secret)
        if faults:
            raise Invalid("The secret cannot be used.", errors=faults)
        now = self._clock.now()
        async with self._db.project(principal.project_id) as connection:
            row = await self._found(connection, webhook, lock=True)
            if row["scope"] == "call":
                raise Conflict(
                    "This endpoint is signed with the project's own secret.",
                    fix="Make an endpoint of the project with POST /v1/webhooks: it has a secret of its own.",
                )
            secret = (read_secret(body.secret) if body.secret else None) or os.urandom(SECRET_BYTES)
            until = rfc3339(now + timedelta(seconds=body.overlap_s))
            kept = [
                Secret(
                    wrapped=s.wrapped, created_at=s.created_at, expires_at=min(s.expires_at or until, until)
                )
                for s in secrets_of(row)
                if body.overlap_s and not has_expired(s, now)
            ]
            if len(kept) >= policy.SECRETS_MAX:
                raise Conflict(
                    f"{len(kept)} secrets are valid at once.",
                    fix="Wait until one expires, or rotate with overlap_s 0.",
                )
            secrets = [self._new_secret(row["id"], secret, now), *(to_builtins(s) for s in kept)]
            statement = (
                update(webhooks)
                .where(webhooks.c.id == row["id"])
                .values(secrets=secrets, version=webhooks.c.version + 1)
                .returning(webhooks)
            )
            changed = (await connection.execute(statement)).mappings().one()
        return CreatedWebhook(**await self._view(changed), secret=write_secret(secret))

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
        self._changed()

    def forget(self) -> None:
        """Some endpoint was removed or disabled, here or on another instance."""
        self._by_url.clear()

    def _changed(self) -> None:
        self.forget()
        self._hints.wake(CHANGED)

    async def for_url(self, project_id: UUID, mode: str, url: str) -> UUID:
        """The hidden endpoint for a call's `webhook_url`; one per URL and project, signed with the project's own secret. One that
        was disabled is enabled again: the project has just named it."""
        now_s = self._clock.monotonic_s()
        known, read_s = self._by_url.get((project_id, url), (None, 0.0))
        if known is not None and now_s - read_s < FRESH_S:
            return known
        # literal: the planner has to see that it is the partial index's own
        unique = text("scope = 'call' and deleted_at is null")
        query = select(webhooks.c.id, webhooks.c.enabled).where((webhooks.c.url == url), unique)
        async with self._db.project(project_id) as connection:
            row = (await connection.execute(query)).one_or_none()
        # an upsert locks the row, and waits for the disk: only where there is something to write
        found: UUID | None = row.id if row is not None and row.enabled else None
        if found is None:
            found = await self._made_for_url(project_id, mode, url)
        self._by_url[(project_id, url)] = (found, now_s)
        while len(self._by_url) > URLS_MAX:
            self._by_url.popitem(last=False)
        return found

    async def _made_for_url(self, project_id: UUID, mode: str, url: str) -> UUID:
        secret = await self.signing_secret(project_id)
        webhook_id, now = new_id(self._db.cell), self._clock.now()
        row = {
            "id": webhook_id,
            "project_id": project_id,
            "scope": "call",
            "url": url,
            "secrets": [self._new_secret(webhook_id, secret, now)],
            "local_targets": mode == "test",
            "created_at": now,
        }
        unique = text("scope = 'call' and deleted_at is null")
        statement = (
            upsert(webhooks)
            .values(**row)
            .on_conflict_do_update(
                index_elements=[webhooks.c.project_id, webhooks.c.url],
                index_where=unique,
                set_={"enabled": True, "disabled_reason": None, "failing_since": None},
                where=text("not vx.webhooks.enabled"),
            )
        )
        query = select(webhooks.c.id).where((webhooks.c.url == url), unique)
        async with self._db.project(project_id) as connection:
            await connection.execute(statement)
            found: UUID | None = await connection.scalar(query)
        assert found is not None
        return found

    async def signing_secret(self, project_id: UUID) -> bytes:
        key = await self._vault.for_project(project_id)
        return hmac.digest(key.secret, b"webhooks", "sha256")[:SECRET_BYTES]

    def _check(self, principal: Principal, body: CreateWebhook | ChangeWebhook) -> None:
        given = to_builtins(body)
        faults: list[FieldError] = []
        if "url" in given:
            local_targets = self._local_targets and principal.mode == "test"
            faults += policy.url_faults(given["url"], local_targets=local_targets)
        faults += policy.type_faults(given.get("types"))
        faults += policy.metadata_faults(given.get("metadata"))
        faults += policy.header_faults(given.get("headers"))
        if faults:
            raise Invalid("The webhook cannot be as it is asked for.", errors=faults)

    def _columns(self, webhook_id: UUID, given: dict[str, Any]) -> dict[str, Any]:
        """What was given, as the row has it."""
        row = {k: v for k, v in given.items() if k not in ("secret", "headers")}
        if "types" in row:
            row["types"] = policy.stored_types(row["types"])
        if "metadata" in row:
            row["metadata"] = row["metadata"] or None
        if "headers" in given:
            own = given["headers"] or {}
            row["headers"] = self.envelopes.wrap_headers(webhook_id, own) if own else None
            row["header_names"] = sorted(own)
        return row

    def _new_secret(self, webhook_id: UUID, secret: bytes, now: datetime) -> dict[str, str | None]:
        return {
            "wrapped": self.envelopes.wrap_secret(webhook_id, secret),
            "created_at": rfc3339(now),
            "expires_at": None,
        }

    async def _refuse_another(
        self, connection: AsyncConnection, url: str, types: Any, metadata: Any, *, than: UUID | None = None
    ) -> None:
        """`than`: the one that is changed; None where one more is made."""
        live = (webhooks.c.scope == "project") & webhooks.c.deleted_at.is_(None)
        like = select(webhooks.c.id, webhooks.c.types, webhooks.c.metadata).where(live, webhooks.c.url == url)
        for row in (await connection.execute(like)).all():
            if row.id != than and (row.types, row.metadata) == (types, metadata):
                name = ids.encode(ids.WEBHOOK, row.id)
                raise Conflict(
                    f"{name} sends the same events to the same URL.",
                    code="duplicate_webhook",
                    fix=f"Use it, change it with PATCH /v1/webhooks/{name}, or give this one another filter.",
                )
        if than is not None:
            return
        if (await connection.scalar(select(func.count()).where(live)) or 0) >= policy.ENDPOINTS_MAX:
            raise QuotaExceeded(
                f"A project has at most {policy.ENDPOINTS_MAX} endpoints.", fix="Delete one that is not used."
            )

    async def _found(self, connection: AsyncConnection, webhook: str, *, lock: bool = False) -> Any:
        found = parse(ids.WEBHOOK, webhook)
        query = select(webhooks).where(webhooks.c.id == found, webhooks.c.deleted_at.is_(None))
        query = query.with_for_update(key_share=True) if lock else query
        row = (await connection.execute(query)).mappings().one_or_none() if found is not None else None
        if row is None:
            raise NotFound("There is no such webhook.")
        return row

    async def _view(self, row: Any) -> dict[str, Any]:
        now = self._clock.now()
        plain = ("url", "scope", "description", "types", "metadata", "signatures", "header_names", "format", "rate_per_s",
                 "concurrency", "enabled", "disabled_reason")  # fmt: skip
        times = ("verified_at", "failing_since", "full_since", "created_at")
        return {
            "id": ids.encode(ids.WEBHOOK, row["id"]),
            **{name: row[name] for name in plain},
            **{name: rfc3339(row[name]) if row[name] is not None else None for name in times},
            "secrets": [
                SecretView(created_at=s.created_at, expires_at=s.expires_at)
                for s in secrets_of(row)
                if not has_expired(s, now)
            ],
            "public_keys": await self.envelopes.public_keys(row, now),
        }
