"""Keeps to what projects have set about how long they keep what: the worker behind `app.erasure.privacy.Retention`.

Decides the order and the pace: project by project, class by class, a few hundred calls at a time, so that nobody waits behind it.
What the whole deployment keeps goes by weeks (`app.housekeeping`); this is for those who keep less. Any instance may do it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from app.clock import Clock
from app.db import Database
from app.erasure.privacy import Retention
from app.supervisor import wait_for_stop
from regions.wire import ids

log = structlog.get_logger()

EVERY_S = 300.0
AT_ONCE = 500
SELECT = "select id, settings -> 'retention' as retention from vx.projects where settings ? 'retention' order by id"
RETAIN = f"select vx.retain($1, $2, $3, {AT_ONCE})"
_retention = msgspec.json.Decoder(Retention)


class AuditDrop(Protocol):
    async def drop(self, project_id: UUID, before: object) -> int:
        """Drops what is older, whole beginnings of chains; how many chains were shortened."""
        ...


class Retaining:
    def __init__(self, db: Database, clock: Clock, audit: AuditDrop) -> None:
        self._db = db
        self._clock = clock
        self._audit = audit

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, EVERY_S):
            await self.round()

    async def round(self) -> None:
        """Once over all projects that keep less. Raises what the driver raises."""
        now = await self._db.earlier(self._clock.now())
        for row in await self._db.pool("worker").fetch(SELECT):
            wanted = _retention.decode(row["retention"])
            for kind, days in (
                ("conversation", wanted.conversation_days),
                ("personal", wanted.personal_days),
                ("deliveries", wanted.deliveries_days),
            ):
                done = 0
                while days is not None:
                    before = now - timedelta(days=days)
                    found = await self._db.pool("worker").fetchval(RETAIN, row["id"], kind, before)
                    done += found
                    if found < AT_ONCE:
                        break
                if done:
                    log.info(
                        "retention.kept", project=ids.encode(ids.PROJECT, row["id"]), kind=kind, calls=done
                    )
            if wanted.audit_days is not None:
                await self._audit.drop(row["id"], now - timedelta(days=wanted.audit_days))
