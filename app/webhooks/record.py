"""What became of deliveries: attempts, the state of each, and how an endpoint does. Only reads."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from app import cursors
from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import BadRequest
from app.ids import parse
from app.projects.auth import Principal
from app.times import read_time
from app.webhooks.service import Webhooks
from app.webhooks.shapes import AttemptView, DeliveryView, HealthView
from app.webhooks.upkeep import DISABLE_AFTER_H
from regions.wire import ids

STATES = {
    "waiting": ["queued", "pending"],
    "in_flight": ["in_flight"],
    "parked": ["parked"],
    "delivered": ["delivered"],
    "failed": ["failed"],
}
CURSOR_KIND = "deliveries"
ATTEMPTS_CURSOR = "attempts"
AHEAD = timedelta(minutes=1)
"""Instances write the times of attempts by their own clocks."""
LAST = UUID(int=(1 << 128) - 1)

SELECT_ATTEMPTS = text(
    "select a.call_id, a.seq, a.attempt, a.at, a.duration_ms, a.status, a.error, a.excerpt, a.url, a.next_at, d.overtook,"
    "       e.id as event_id, e.type"
    " from vx.delivery_attempts a join vx.deliveries d using (call_id, webhook_id, seq)"
    " join vx.events e using (call_id, seq)"
    " where a.webhook_id = :webhook and (a.at, a.call_id, a.seq, a.attempt) < (:at, :call, :seq, :attempt)"
    " order by a.at desc, a.call_id desc, a.seq desc, a.attempt desc limit :limit"
)
DELIVERIES = (
    "select d.call_id, d.seq, d.state, d.attempts, d.next_at, d.last_status, d.last_error, d.jurisdictions, d.replay, d.done_at"
    " from vx.deliveries d where d.webhook_id = :webhook and (d.call_id, d.seq) < (:call, :seq)"
)
# The states are literals, so that the planner sees the partial indexes.
SELECT_DELIVERIES: dict[str | None, TextClause] = {
    state: text(
        DELIVERIES
        + (f" and d.state in ({', '.join(repr(n) for n in names)})" if state else "")
        + " order by d.call_id desc, d.seq desc limit :limit"
    )
    for state, names in [(None, []), *STATES.items()]
}
SELECT_HEALTH = text(
    "select count(*) as n, count(*) filter (where a.status between 200 and 299) as good,"
    " percentile_disc(0.5) within group (order by a.duration_ms) as p50,"
    " percentile_disc(0.99) within group (order by a.duration_ms) as p99"
    " from (select status, duration_ms from vx.delivery_attempts"
    "        where webhook_id = :webhook and at > now() - interval '1 hour' order by at desc limit 10000) a"
)
SELECT_OLDEST = text(
    "select extract(epoch from now() - min(d.created_at))::float from vx.deliveries d"
    " where d.webhook_id = :webhook and d.state in ('pending', 'parked')"
)
SELECT_LAST_ERROR = text(
    "select coalesce(a.error, 'HTTP ' || a.status) from vx.delivery_attempts a"
    " where a.webhook_id = :webhook and (a.status is null or a.status not between 200 and 299) order by a.at desc limit 1"
)


class Record:
    def __init__(self, db: Database, webhooks: Webhooks, clock: Clock) -> None:
        self._db = db
        self._webhooks = webhooks
        self._clock = clock

    async def attempts(
        self, principal: Principal, webhook: str, cursor: str | None, limit: int
    ) -> tuple[list[AttemptView], str | None]:
        """The newest first, and where to go on. Raises `BadRequest`."""
        row = await self._webhooks.row(principal, webhook)
        below = _attempt(cursor) if cursor else (self._clock.now() + AHEAD, LAST, 0, 0)
        asked = dict(zip(("at", "call", "seq", "attempt"), below, strict=True))
        async with self._db.project(principal.project_id) as connection:
            found = await connection.execute(SELECT_ATTEMPTS, {"webhook": row["id"], "limit": limit, **asked})
            rows = found.all()
        views = [
            AttemptView(
                event_id=ids.encode(ids.EVENT, r.event_id),
                type=r.type,
                event_seq=r.seq,
                call_id=ids.encode(ids.CALL, r.call_id),
                attempt=r.attempt,
                url=r.url,
                at=rfc3339(r.at),
                duration_ms=r.duration_ms,
                status=r.status,
                error=r.error,
                excerpt=r.excerpt,
                next_at=rfc3339(r.next_at) if r.next_at is not None else None,
                overtook=r.overtook,
            )
            for r in rows
        ]
        if len(rows) < limit:
            return views, None
        last = rows[-1]
        place = (last.at.isoformat(), ids.encode(ids.CALL, last.call_id), last.seq, last.attempt)
        return views, cursors.encode(ATTEMPTS_CURSOR, *place)

    async def deliveries(
        self, principal: Principal, webhook: str, state: str | None, cursor: str | None, limit: int
    ) -> tuple[list[DeliveryView], str | None]:
        """Those of the newest calls first, and where to go on. Raises `BadRequest`."""
        if state is not None and state not in STATES:
            raise BadRequest(f"There is no such state {state[:32]!r}.", fix=f"One of {', '.join(STATES)}.")
        call_id, seq = _position(cursor, state) if cursor else (LAST, 0)
        row = await self._webhooks.row(principal, webhook)
        asked: dict[str, Any] = {
            "webhook": row["id"], "call": call_id, "seq": seq, "limit": limit,
        }  # fmt: skip
        async with self._db.project(principal.project_id) as connection:
            rows = (await connection.execute(SELECT_DELIVERIES[state], asked)).all()
        views = [
            DeliveryView(
                call_id=ids.encode(ids.CALL, r.call_id),
                event_seq=r.seq,
                state="waiting" if r.state in STATES["waiting"] else r.state,
                attempts=r.attempts,
                next_at=rfc3339(r.next_at) if r.state in ("pending", "parked") else None,
                last_status=r.last_status,
                last_error=r.last_error,
                jurisdictions=r.jurisdictions,
                replay=r.replay,
                done_at=rfc3339(r.done_at) if r.done_at is not None else None,
            )
            for r in rows
        ]
        more = len(rows) == limit
        last = rows[-1] if more else None
        at = (
            cursors.encode(CURSOR_KIND, state or "", ids.encode(ids.CALL, last.call_id), last.seq)
            if last
            else None
        )
        return views, at

    async def health(self, principal: Principal, webhook: str) -> HealthView:
        row = await self._webhooks.row(principal, webhook)
        asked = {"webhook": row["id"]}
        async with self._db.project(principal.project_id) as connection:
            seen = (await connection.execute(SELECT_HEALTH, asked)).one()
            oldest_s = await connection.scalar(SELECT_OLDEST, asked)
            error = await connection.scalar(SELECT_LAST_ERROR, asked)
        since = row["failing_since"]
        return HealthView(
            state=_state(row),
            attempts=seen.n,
            succeeded=seen.good,
            p50_ms=seen.p50,
            p99_ms=seen.p99,
            waiting=row["waiting"],
            oldest_waiting_s=round(oldest_s, 1) if oldest_s is not None else None,
            failing_since=rfc3339(since) if since else None,
            disables_at=rfc3339(since + timedelta(hours=DISABLE_AFTER_H))
            if since and row["enabled"]
            else None,
            last_error=error,
        )


def _state(row: Any) -> str:
    if not row["enabled"]:
        return "disabled"
    if row["full_since"] is not None:
        return "full"
    if row["failing_since"] is not None:
        return "failing"
    return "unverified" if row["verified_at"] is None and row["scope"] == "project" else "ok"


def _attempt(cursor: str) -> tuple[datetime, UUID, int, int]:
    match cursors.decode(ATTEMPTS_CURSOR, cursor):
        case [str(at), str(call), int(seq), int(attempt)] if (
            (call_id := parse(ids.CALL, call)) is not None
            and not (read := read_time("/cursor", at))[1]
            and 0 <= seq < 1 << 31
            and 0 <= attempt < 1 << 31
        ):
            return read[0], call_id, seq, attempt
    raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)


def _position(cursor: str, state: str | None) -> tuple[UUID, int]:
    match cursors.decode(CURSOR_KIND, cursor):
        case [str(asked), str(call), int(seq)] if 0 <= seq < 1 << 31 and (call_id := parse(ids.CALL, call)):
            if asked != (state or ""):
                raise BadRequest(
                    "The cursor is of another state.", code="bad_cursor", fix="Begin without a cursor."
                )
            return call_id, seq
    raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)
