"""Webhook endpoints: made, listed, changed, removed, their secrets rotated. Those behind a call's `webhook_url` are `named`'s."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from msgspec import to_builtins
from sqlalchemy import func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app import cursors
from app.audit.service import Audit
from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import BadRequest, Conflict, FieldError, Invalid, NotFound, PreconditionFailed, QuotaExceeded
from app.hints import Hints
from app.ids import new_id, parse
from app.in_line import InLine
from app.projects.auth import Principal
from app.tables import webhooks
from app.vault import Vault
from app.webhooks import policy
from app.webhooks.envelope import Envelopes, Secret, has_expired, secrets_of
from app.webhooks.named import LOCK_PROJECT, NamedUrls
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

CURSOR_KIND = "webhooks"
CHANGES_WAITING_MAX = 200
"""Of a project's endpoints, on one instance."""
CHANGES_WITHIN_S = 15.0
CHANGED = "webhooks"
"""The topic on which instances tell each other that an endpoint was removed, changed or disabled."""


class Webhooks:
    def __init__(
        self, db: Database, vault: Vault, clock: Clock, hints: Hints, audit: Audit, *, local_targets: bool
    ) -> None:
        self._db = db
        self._clock = clock
        self._hints = hints
        self._audit = audit
        self._local_targets = local_targets
        self._line = InLine(waiting_max=CHANGES_WAITING_MAX, within_s=CHANGES_WITHIN_S)
        self.envelopes = Envelopes(vault)
        self.named = NamedUrls(db, vault, clock, self.envelopes)

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
        async with self._changing(principal) as connection:
            await self._refuse_another(connection, body.url, row["types"], row["metadata"])
            made = (
                (await connection.execute(insert(webhooks).values(**row).returning(webhooks)))
                .mappings()
                .one()
            )
            await self._note(connection, principal, "webhook.created", made, to_builtins(body))
        return CreatedWebhook(**await self._view(made), secret=write_secret(secret))

    async def page(
        self, principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[WebhookView], str | None]:
        """The project's own, the newest first; then those that calls have named. And where to go on. Raises `BadRequest`."""
        place = tuple_(webhooks.c.scope, webhooks.c.id)
        query = select(webhooks).where(webhooks.c.deleted_at.is_(None))
        if cursor:
            query = query.where(place < tuple_(*_place(cursor)))
        query = query.order_by(webhooks.c.scope.desc(), webhooks.c.id.desc()).limit(limit)
        async with self._db.project(principal.project_id) as connection:
            rows = (await connection.execute(query)).mappings().all()
        last = rows[-1] if len(rows) == limit else None
        at = cursors.encode(CURSOR_KIND, last["scope"], ids.encode(ids.WEBHOOK, last["id"])) if last else None
        return [WebhookView(**await self._view(row)) for row in rows], at

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
        async with self._changing(principal) as connection:
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
            await self._note(connection, principal, "webhook.changed", changed, to_builtins(body))
        self._changed()
        return WebhookView(**await self._view(changed)), changed["version"]

    async def rotate(self, principal: Principal, webhook: str, body: RotateSecret) -> CreatedWebhook:
        """A new secret; the present ones sign too until `overlap_s` from now, and no older one longer than it would have."""
        faults = policy.secret_faults(body.secret)
        if faults:
            raise Invalid("The secret cannot be used.", errors=faults)
        now = self._clock.now()
        async with self._changing(principal) as connection:
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
            await self._note(
                connection, principal, "webhook.secret_rotated", changed, {"overlap_s": body.overlap_s}
            )
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
            await self._audit.record(connection, "webhook.deleted", webhook, project_id=principal.project_id)
        self._changed()

    async def _note(
        self, connection: AsyncConnection, principal: Principal, action: str, row: Any, given: dict[str, Any]
    ) -> None:
        """What was given by name; of the URL no more than the host: there may be a secret in the rest."""
        plain: dict[str, Any] = {k: given[k] for k in ("types", "enabled", "overlap_s") if k in given}
        said: dict[str, Any] = {"host": urlsplit(row["url"]).hostname, "given": sorted(given), **plain}
        name = ids.encode(ids.WEBHOOK, row["id"])
        await self._audit.record(connection, action, name, project_id=principal.project_id, summary=said)

    @asynccontextmanager
    async def _changing(self, principal: Principal) -> AsyncIterator[AsyncConnection]:
        """A transaction beside which nobody changes the project's endpoints. Raises `QuotaExceeded`."""
        async with (
            self._line.of(principal.project_id),
            self._db.project(principal.project_id) as connection,
        ):
            await connection.execute(LOCK_PROJECT, {"name": f"webhooks:{principal.project_id}"})
            yield connection

    def forget(self) -> None:
        """Some endpoint was removed or disabled, here or on another instance."""
        self.named.forget()

    def _changed(self) -> None:
        self.forget()
        self._hints.wake(CHANGED)

    def _check(self, principal: Principal, body: CreateWebhook | ChangeWebhook) -> None:
        given = to_builtins(body)
        faults: list[FieldError] = []
        if "url" in given:
            local_targets = self._local_targets and principal.mode == "test"
            faults += policy.url_faults(given["url"], local_targets=local_targets, listed=principal.targets)
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
        asked = (policy.canonical(url), types, metadata)
        all_ = select(webhooks.c.id, webhooks.c.url, webhooks.c.types, webhooks.c.metadata).where(live)
        for row in (await connection.execute(all_)).all():
            if row.id != than and (policy.canonical(row.url), row.types, row.metadata) == asked:
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


def _place(cursor: str) -> tuple[str, UUID]:
    match cursors.decode(CURSOR_KIND, cursor):
        case ["project" | "call" as scope, str(webhook)] if (
            found := parse(ids.WEBHOOK, webhook)
        ) is not None:
            return str(scope), found
    raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)
