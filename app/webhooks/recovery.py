"""Sends again: one event, all that failed since a time, or what an endpoint missed. Decides what a customer may ask for.

A replay is one row. It reads the log slice by slice and queues a few dozen deliveries at a time (`vx.replay_slice`), so a million
events cost what is new no more than a hundred do. What is sent again is a line of its own, in order, under the same ids, and says
so (`Voxplane-Replay: true`). Any number of instances carry replays on; a slice belongs to whoever takes it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text

from app.audit.service import Audit
from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import Conflict, Invalid, NotFound, QuotaExceeded
from app.hints import DELIVERIES, Hints
from app.ids import new_id, parse
from app.projects.auth import Principal
from app.supervisor import wait_for_stop
from app.times import read_window
from app.webhooks.envelope import name_of
from app.webhooks.service import Webhooks
from app.webhooks.shapes import Recover, ReplayView, Resend
from regions.wire import ids

log = structlog.get_logger()

CALL_LONGEST = timedelta(hours=25)
"""A call's events are stored at most so long after its creation."""
RUNNING_MAX = 4
ROOM = 32
CALLS = 200
BUSY_S = 0.02
POLL_S = 1.0
TOPIC = "replays"

RESEND = text("select vx.resend(:project, :webhook, :call, :seq)")
INSERT = text(
    "insert into vx.replays (id, project_id, webhook_id, what, since, until, call_id)"
    " values (:id, :project, :webhook, :what, :since, :until, vx.first_uuid_at(:first)) returning *"
)
COLUMNS = (
    "r.*, (select count(*) from vx.deliveries d where d.webhook_id = r.webhook_id and d.replay"
    " and d.state in ('pending', 'parked', 'in_flight')) as waiting"
)
SELECT_ALL = text(
    f"select {COLUMNS} from vx.replays r where r.webhook_id = :webhook order by r.id desc limit 50"
)
SELECT_ONE = text(f"select {COLUMNS} from vx.replays r where r.webhook_id = :webhook and r.id = :id")
COUNT_RUNNING = text(
    "select count(*) from vx.replays r where r.webhook_id = :webhook and r.state = 'running'"
)
CANCEL = text(
    "update vx.replays set state = 'canceled', done_at = clock_timestamp()"
    " where webhook_id = :webhook and id = :id and state = 'running'"
)
SLICE = "select vx.replay_slice($1, $2)"


class Recovery:
    def __init__(self, db: Database, webhooks: Webhooks, clock: Clock, hints: Hints, audit: Audit) -> None:
        self._db = db
        self._webhooks = webhooks
        self._clock = clock
        self._hints = hints
        self._audit = audit

    async def resend(self, principal: Principal, webhook: str, body: Resend) -> None:
        """Raises `NotFound`, and `Conflict` where it is on its way anyway."""
        row = await self._open(principal, webhook)
        call_id = parse(ids.CALL, body.call_id)
        if call_id is None:
            raise NotFound("There is no such event.")
        asked = {"project": principal.project_id, "webhook": row["id"], "call": call_id, "seq": body.seq}
        async with self._db.project(principal.project_id) as connection:
            answer = await connection.scalar(RESEND, asked)
            if answer == "again":
                said = {"call": body.call_id, "seq": body.seq}
                await self._audit.record(
                    connection, "webhook.resent", webhook, project_id=principal.project_id, summary=said
                )
        if answer == "none":
            raise NotFound("There is no such event.")
        if answer == "gone":
            raise Conflict(
                "Deliveries of this call are not kept any more, and are not sent again.",
                fix="Read the event from the log. How long deliveries are kept: `voxplane privacy show`.",
            )
        if answer == "waiting":
            raise Conflict(
                "This event is on its way to the endpoint.", fix="Wait for it: see the deliveries."
            )
        self._hints.wake(DELIVERIES)

    async def recover(self, principal: Principal, webhook: str, body: Recover) -> ReplayView:
        """Raises `Invalid`, `NotFound`, and `QuotaExceeded` where too many run already."""
        row = await self._open(principal, webhook)
        since, until, faults = read_window(body.since, body.until, self._clock.now())
        if faults:
            raise Invalid("This cannot be recovered.", errors=faults)
        given = {
            "id": new_id(self._db.cell), "project": principal.project_id, "webhook": row["id"], "what": body.what,
            "since": since, "until": until, "first": since - CALL_LONGEST,
        }  # fmt: skip
        async with self._db.project(principal.project_id) as connection:
            if (await connection.scalar(COUNT_RUNNING, {"webhook": row["id"]})) >= RUNNING_MAX:
                raise QuotaExceeded(
                    f"{RUNNING_MAX} replays run for this endpoint.",
                    fix="Wait until one is done, or cancel it.",
                )
            made = (await connection.execute(INSERT, given)).mappings().one()
            said = {"replay": ids.encode(ids.REPLAY, made["id"]), "what": body.what, "since": rfc3339(since)}
            await self._audit.record(
                connection, "webhook.recovered", webhook, project_id=principal.project_id, summary=said
            )
        self._hints.wake(TOPIC)
        return _view({**made, "waiting": 0})

    async def all(self, principal: Principal, webhook: str) -> list[ReplayView]:
        row = await self._webhooks.row(principal, webhook)
        async with self._db.project(principal.project_id) as connection:
            found = (await connection.execute(SELECT_ALL, {"webhook": row["id"]})).mappings().all()
        return [_view(r) for r in found]

    async def get(self, principal: Principal, webhook: str, replay: str) -> ReplayView:
        row = await self._webhooks.row(principal, webhook)
        asked = {"webhook": row["id"], "id": parse(ids.REPLAY, replay)}
        async with self._db.project(principal.project_id) as connection:
            found = (await connection.execute(SELECT_ONE, asked)).mappings().one_or_none()
        if found is None:
            raise NotFound("There is no such replay.")
        return _view(found)

    async def cancel(self, principal: Principal, webhook: str, replay: str) -> ReplayView:
        """What is queued is still sent; nothing more is queued. Doing it twice changes nothing."""
        row = await self._webhooks.row(principal, webhook)
        asked = {"webhook": row["id"], "id": parse(ids.REPLAY, replay)}
        async with self._db.project(principal.project_id) as connection:
            canceled = await connection.execute(CANCEL, asked)
            if canceled.rowcount:
                await self._audit.record(
                    connection, "webhook.replay_canceled", replay, project_id=principal.project_id
                )
            else:
                self._audit.unchanged("webhook.replay_canceled")
        return await self.get(principal, webhook, replay)

    async def worker(self, stop: asyncio.Event) -> None:
        woken = self._hints.subscribe(TOPIC)
        try:
            while not stop.is_set():
                made = await self._db.pool("worker").fetchval(SLICE, ROOM, CALLS)
                if made > 0:
                    self._hints.wake(DELIVERIES)
                if made >= 0:
                    await wait_for_stop(stop, BUSY_S)
                else:
                    await woken.wait(POLL_S)
        finally:
            woken.close()

    async def _open(self, principal: Principal, webhook: str) -> Any:
        row = await self._webhooks.row(principal, webhook)
        if not row["enabled"]:
            raise Conflict(
                f"The endpoint is disabled: {row['disabled_reason']}.",
                fix=f"Enable it first: PATCH /v1/webhooks/{name_of(row)} with enabled true.",
            )
        return row


def _view(row: Any) -> ReplayView:
    webhook_id: UUID = row["webhook_id"]
    return ReplayView(
        id=ids.encode(ids.REPLAY, row["id"]),
        webhook_id=ids.encode(ids.WEBHOOK, webhook_id),
        what=row["what"],
        since=rfc3339(row["since"]),
        until=rfc3339(row["until"]),
        state=row["state"],
        queued=row["queued"],
        waiting=min(row["waiting"], row["queued"]),
        created_at=rfc3339(row["created_at"]),
        done_at=rfc3339(row["done_at"]) if row["done_at"] is not None else None,
    )
