"""The hidden endpoints behind a call's `webhook_url`: one per URL and project, signed with the project's own secret.

Decides when a create may name one more. A project has at most `policy.CALL_URLS_MAX` of them; a URL that is known counts once,
however many calls name it. When there is no room, those go that no create has named for two days, longer than any call that named
them can last, and for which nothing waits.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import FieldError, Invalid
from app.ids import new_id
from app.tables import webhooks
from app.vault import Vault
from app.webhooks import policy
from app.webhooks.envelope import Envelopes
from app.webhooks.signature import SECRET_BYTES

URLS_MAX = 10_000
FRESH_S = 10.0
NAMED_EXACT = timedelta(hours=1)
"""`named_at` is written where it is older than this, and not with every create."""
UNUSED = timedelta(hours=48)
"""A call lasts 25 hours at most."""
RECLAIMED_AT_ONCE = 100
NEAR = 200
"""More than all instances can name at once."""

LOCK_PROJECT = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")
# literal: the planner has to see that it is the partial index's own
LIVE = text("scope = 'call' and deleted_at is null")
RECLAIM = text("""
update vx.webhooks w set deleted_at = :now, enabled = false where w.id in (
  select h.id from vx.webhooks h
   where h.project_id = :project and h.scope = 'call' and h.deleted_at is null and h.named_at < :before and h.waiting = 0
     and not exists (select from vx.deliveries d where d.webhook_id = h.id and d.state in ('pending', 'parked'))
   order by h.named_at limit :most for no key update skip locked)
""")


class NamedUrls:
    def __init__(self, db: Database, vault: Vault, clock: Clock, envelopes: Envelopes) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._envelopes = envelopes
        self._by_url: OrderedDict[tuple[UUID, str], tuple[UUID, float]] = OrderedDict()

    def forget(self) -> None:
        """Some endpoint was removed or disabled, here or on another instance."""
        self._by_url.clear()

    async def for_url(self, project_id: UUID, mode: str, url: str) -> UUID:
        """The endpoint of this URL. One that was disabled is enabled again: the project has just named it. Raises `Invalid`
        ``too_many_webhook_urls``."""
        now_s = self._clock.monotonic_s()
        known, read_s = self._by_url.get((project_id, url), (None, 0.0))
        if known is not None and now_s - read_s < FRESH_S:
            return known
        fresh = (
            (webhooks.c.named_at > self._clock.now() - NAMED_EXACT)
            & webhooks.c.enabled
            & webhooks.c.unnamed_at.is_(None)
        )
        query = select(webhooks.c.id, fresh.label("fresh")).where((webhooks.c.url == url), LIVE)
        async with self._db.project(project_id) as connection:
            row = (await connection.execute(query)).one_or_none()
        # what writes locks the row, and waits for the disk: only where there is something to write
        if row is not None and row.fresh:
            found: UUID = row.id
        else:
            found = await self._named(project_id, mode, url, known=row is not None)
        self._by_url[(project_id, url)] = (found, now_s)
        while len(self._by_url) > URLS_MAX:
            self._by_url.popitem(last=False)
        return found

    async def signing_secret(self, project_id: UUID) -> bytes:
        key = await self._vault.for_project(project_id)
        return key.derive(b"webhooks")[:SECRET_BYTES]

    async def _named(self, project_id: UUID, mode: str, url: str, *, known: bool) -> UUID:
        secret = await self.signing_secret(project_id)
        webhook_id, now = new_id(self._db.cell), self._clock.now()
        wrapped = self._envelopes.wrap_secret(webhook_id, secret)
        row: dict[str, Any] = {
            "id": webhook_id,
            "project_id": project_id,
            "scope": "call",
            "url": url,
            "secrets": [{"wrapped": wrapped, "created_at": rfc3339(now), "expires_at": None}],
            "local_targets": mode == "test",
            "created_at": now,
            "named_at": now,
        }
        named = (
            update(webhooks)
            .where((webhooks.c.url == url), LIVE)
            .values(
                named_at=now,
                unnamed_at=None,
                enabled=True,
                disabled_reason=None,
                failing_since=case((webhooks.c.enabled, webhooks.c.failing_since), else_=None),
            )
            .returning(webhooks.c.id)
        )
        # two that name it at the same time make one
        made = (
            upsert(webhooks)
            .values(**row)
            .on_conflict_do_update(
                index_elements=[webhooks.c.project_id, webhooks.c.url],
                index_where=LIVE,
                set_={"named_at": now, "unnamed_at": None},
            )
            .returning(webhooks.c.id)
        )
        async with self._db.project(project_id) as connection:
            found: UUID | None = await connection.scalar(named) if known else None
            if found is None:
                await self._make_room(connection, project_id, url)
                found = await connection.scalar(made)
        assert found is not None
        return found

    async def _make_room(self, connection: AsyncConnection, project_id: UUID, url: str) -> None:
        count = select(func.count()).select_from(webhooks).where(LIVE)
        if (await connection.scalar(count) or 0) < policy.CALL_URLS_MAX - NEAR:
            return
        # one after the other, where it matters: far from the bound, as many as come at once
        await connection.execute(LOCK_PROJECT, {"name": f"webhooks:{project_id}"})
        if (await connection.scalar(count) or 0) < policy.CALL_URLS_MAX:
            return
        if await connection.scalar(select(webhooks.c.id).where((webhooks.c.url == url), LIVE)) is not None:
            # somebody else has just named it
            return
        now = self._clock.now()
        asked = {"project": project_id, "now": now, "before": now - UNUSED, "most": RECLAIMED_AT_ONCE}
        if (await connection.execute(RECLAIM, asked)).rowcount:
            # no instance knows these any more: what it knows was named within the hour
            return
        raise Invalid(
            f"The project's calls have named {policy.CALL_URLS_MAX} different URLs within two days.",
            code="too_many_webhook_urls",
            errors=[FieldError(pointer="/webhook_url", detail="one URL more than a project may have")],
            fix="Name the same URL in every create and tell calls apart by call_id or metadata; "
            "or remove some: GET and DELETE /v1/webhooks.",
        )
