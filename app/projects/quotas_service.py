"""Quotas as they are kept: read with what is used of them, and set by the operator. Rows stay in here.

What is set holds on every instance within seconds: it travels with what is known of a key (`app.projects.auth`).
"""

from __future__ import annotations

from datetime import datetime
from math import ceil
from typing import Any
from uuid import UUID

import msgspec

from app.audit.service import Audit
from app.db import Database
from app.errors import NotFound, PreconditionFailed
from app.hints import Hints
from app.ids import parse
from app.projects.auth import Authenticator, Principal
from app.projects.quotas_policy import NO_LIMITS, DefaultLimits, Limits, changed, checked
from app.projects.quotas_shapes import ChangeLimits, ProjectQuotas, QuotasView, QuotaUse
from regions.wire import ids

SELECT = """
select p.id, q.limits, coalesce(q.version, 0) as version
  from vx.projects p left join vx.quotas q on q.project_id = p.id where p.id = $1
"""
PUT_FIRST = "insert into vx.quotas (project_id, limits) select $1, $2 where $3 = 0 on conflict do nothing returning version"
PUT = """
update vx.quotas set limits = $2, version = version + 1, changed_at = clock_timestamp() where project_id = $1 and version = $3
returning version
"""
USE = "select * from vx.quota_use($1, $2)"


class Quotas:
    def __init__(
        self,
        db: Database,
        hints: Hints,
        auth: Authenticator,
        audit: Audit,
        default: DefaultLimits = NO_LIMITS,
    ) -> None:
        self._default = default
        self._audit = audit
        self._db = db
        self._hints = hints
        self._auth = auth

    async def view(self, principal: Principal) -> QuotasView:
        row = await self._db.pool("api").fetchrow(USE, principal.project_id, principal.key_id)
        project, key = principal.bounds.project, principal.bounds.key
        creates = _spent(project.creates_per_s, row["spare"], row["spare_at"], row["moment"])
        key_creates = _spent(key.creates_per_s, row["key_spare"], row["key_spare_at"], row["moment"])
        return QuotasView(
            project=project,
            key=key,
            use=[
                _use("concurrent_calls", "project", project.concurrent_calls, row["live"]),
                _use("creates_per_s", "project", project.creates_per_s, creates, 1),
                _use("webhook_backlog", "project", project.webhook_backlog, row["backlog"]),
                _use("concurrent_calls", "key", key.concurrent_calls, row["key_live"]),
                _use("creates_per_s", "key", key.creates_per_s, key_creates, 1),
            ],
        )

    async def read(self, text: str) -> ProjectQuotas:
        """Raises `NotFound`."""
        row = await self._row(parse(ids.PROJECT, text))
        return ProjectQuotas(
            project_id=ids.encode(ids.PROJECT, row["id"]),
            limits=_limits(row["limits"]),
            default=self._default,
            version=row["version"],
        )

    async def put(self, text: str, version: int, limits: Limits) -> ProjectQuotas:
        """In place of all that were set before. Raises `NotFound`, and `PreconditionFailed` where they are of another version."""
        limits = checked(limits)
        known = await self.read(text)
        project_id, stored = parse(ids.PROJECT, text), msgspec.json.encode(limits).decode()
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            statement = PUT_FIRST if version == 0 else PUT
            written = await connection.fetchval(statement, project_id, stored, version)
            if known.version != version or written is None:
                raise PreconditionFailed("The quotas have changed since you read them.")
            said = msgspec.to_builtins(limits)
            await self._audit.record(connection, "quotas.changed", text, project_id=project_id, summary=said)
        self._auth.forget()
        self._hints.wake("keys")
        return await self.read(text)

    async def change(self, text: str, version: int, change: ChangeLimits) -> ProjectQuotas:
        known = await self.read(text)
        named = {n: v for n, v in msgspec.structs.asdict(change).items() if v is not msgspec.UNSET}
        return await self.put(text, version, changed(known.limits, named))

    async def _row(self, project_id: UUID | None) -> Any:
        row = await self._db.pool("admin").fetchrow(SELECT, project_id) if project_id is not None else None
        if row is None:
            raise NotFound("There is no such project.")
        return row


def _limits(stored: str | None) -> Limits:
    return msgspec.json.decode(stored or "{}", type=Limits)


def _use(name: str, scope: str, limit: int | None, used: int, window_s: int | None = None) -> QuotaUse:
    return QuotaUse(name=name, scope=scope, limit=limit, used=used, window_s=window_s)


def _spent(per_s: int | None, spare: float | None, at: datetime, moment: datetime) -> int:
    """Of a second's creates, how many are not there at this moment."""
    if per_s is None or spare is None:
        return 0
    return max(0, ceil(per_s - min(per_s, spare + max(0.0, (moment - at).total_seconds()) * per_s)))
