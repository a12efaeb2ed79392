"""The statements of a call: the coalesced create and the reads. Rows stay in here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.calls.shapes import (
    AgentRequest,
    CallerRequest,
    CallView,
    LatencyRequest,
    PlacementView,
    RegionsRequest,
)
from app.clock import rfc3339
from app.db import Database
from app.log.horizon import Horizon
from regions.wire import ids

DEADLINE_S = 4.0

CREATE_CALLS = "select * from vx.create_calls($1, $2, $3, $4)"

CALL_COLUMNS = """id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by, seq,
 feed_xid, region, edge_id, request, placement, metadata, max_duration_s, created_at, answered_at, ended_at, end_reason,
 current_setting('synchronous_standby_names') <> '' as replicated"""
SELECT_CALL = f"select {CALL_COLUMNS} from vx.calls where id = $1"
SELECT_CALLS = f"select {CALL_COLUMNS} from vx.calls where id = any($1::uuid[])"
LIST_CALLS = f"""
select {CALL_COLUMNS} from vx.calls
 where project_id = $1 and ($2::uuid is null or id < $2) and ($3::text is null or state = $3)
   and ($4::text is null or region = $4) and ($5::jsonb is null or metadata @> $5)
 order by id desc limit $6
"""
SELECT_MADE = (
    "select call_id, body_hash from vx.idempotency where project_id = $1 and route = $2 and key = $3"
)
GRANT_EPOCHS = "select vx.grant_epochs($1, $2, $3, $4, $5)"


class StoredRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of the request is kept with the call. `network`: its caller's /24 or /48, of a call alone that may be moved for a gain."""

    agent: AgentRequest
    caller: CallerRequest
    webhook_url: str | None = None
    latencies: list[LatencyRequest] = []
    regions: RegionsRequest = msgspec.field(default_factory=RegionsRequest)
    network: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCall:
    """One create on its way into a batch. `edges`: (edge, incarnation) in order of epoch, one to three."""

    key: str
    body_hash: bytes
    call_id: UUID
    event_id: UUID
    request: bytes
    placement: bytes
    metadata: bytes
    region: str
    edges: tuple[tuple[UUID, UUID], ...]
    webhook_id: UUID | None
    max_duration_s: int
    attach_by: datetime
    expire_at: datetime
    event_data: bytes
    event_hash: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Created:
    call_id: UUID
    body_hash: bytes
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call as the log holds it."""

    id: UUID
    project_id: UUID
    state: str
    epoch: int
    epoch_granted: int
    grant_edges: tuple[UUID, ...]
    grant_incarnations: tuple[UUID, ...]
    grants_expire_at: datetime
    attach_by: datetime
    seq: int
    feed_xid: int
    region: str | None
    edge_id: UUID | None
    request: StoredRequest
    placement: PlacementView
    metadata: dict[str, str]
    max_duration_s: int
    created_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None


def given(call: NewCall) -> tuple[Any, ...]:
    """In the order of ``vx.given_create``."""
    return (
        call.key, call.body_hash, call.call_id, call.event_id, call.request.decode(), call.placement.decode(),
        call.metadata.decode(), call.region, [edge for edge, _ in call.edges], [life for _, life in call.edges],
        call.webhook_id, call.max_duration_s, call.attach_by, call.expire_at, call.event_data.decode(), call.event_hash,
        call.created_at,
    )  # fmt: skip


_request = msgspec.json.Decoder(StoredRequest)
_placement = msgspec.json.Decoder(PlacementView)
_metadata = msgspec.json.Decoder(dict[str, str])


class CallStore:
    """What is read here is durable when it is returned: see `app.log.horizon`."""

    def __init__(self, db: Database, horizon: Horizon) -> None:
        self._db = db
        self._horizon = horizon

    async def create(
        self, project_id: UUID, route: str, now: datetime, batch: list[NewCall]
    ) -> dict[str, Created]:
        """All of `batch` in one round trip, by idempotency key; a key that was there before is answered from its record."""

        async with asyncio.timeout(DEADLINE_S), self._db.pool("api").acquire() as connection:
            rows = await connection.fetch(
                CREATE_CALLS, project_id, route, now, [given(call) for call in batch]
            )
        return {r["key"]: Created(r["call_id"], r["body_hash"], r["replayed"]) for r in rows}

    async def made(self, project_id: UUID, route: str, key: str) -> Created | None:
        """What the key was used for before, if it was."""
        async with self._db.project_driver(project_id) as connection:
            row = await connection.fetchrow(SELECT_MADE, project_id, route, key)
        return Created(row["call_id"], row["body_hash"], replayed=True) if row is not None else None

    async def get(self, project_id: UUID, call_id: UUID) -> StoredCall | None:
        async with self._db.project_driver(project_id) as connection:
            row = await connection.fetchrow(SELECT_CALL, call_id)
        if row is None:
            return None
        await self._cover([row])
        return stored(row)

    async def get_any(self, call_id: UUID) -> StoredCall | None:
        """For a credential that names the call itself, whoever's it is: the ticket."""
        row = await self._db.pool("worker").fetchrow(SELECT_CALL, call_id)
        return stored(row) if row is not None else None

    async def get_many(self, call_ids: list[UUID]) -> list[StoredCall]:
        """Whoever's they are, for the control plane's own work."""
        rows = await self._db.pool("worker").fetch(SELECT_CALLS, call_ids)
        return [stored(row) for row in rows]

    async def page(
        self,
        project_id: UUID,
        *,
        below: UUID | None,
        state: str | None,
        region: str | None,
        metadata: dict[str, str] | None,
        limit: int,
    ) -> list[StoredCall]:
        wanted = msgspec.json.encode(metadata).decode() if metadata else None
        async with self._db.project_driver(project_id) as connection:
            rows = await connection.fetch(LIST_CALLS, project_id, below, state, region, wanted, limit)
        await self._cover(rows)
        return [stored(row) for row in rows]

    async def _cover(self, rows: list[Any]) -> None:
        if any(row["replicated"] for row in rows):
            await self._horizon.cover(max(row["feed_xid"] for row in rows))

    async def grant(
        self, call: StoredCall, edges: list[tuple[UUID, UUID]], expire_at: datetime
    ) -> int | None:
        """The first of the new epochs, one per edge, above all granted before; None where the call has ended."""
        return await self._db.pool("api").fetchval(  # type: ignore[no-any-return]
            GRANT_EPOCHS, call.project_id, call.id, [e for e, _ in edges], [i for _, i in edges], expire_at
        )


def stored(row: Any) -> StoredCall:
    return StoredCall(
        id=row["id"],
        project_id=row["project_id"],
        state=row["state"],
        epoch=row["epoch"],
        epoch_granted=row["epoch_granted"],
        grant_edges=tuple(row["grant_edges"]),
        grant_incarnations=tuple(row["grant_incarnations"]),
        grants_expire_at=row["grants_expire_at"],
        attach_by=row["attach_by"],
        seq=row["seq"],
        feed_xid=row["feed_xid"],
        region=row["region"],
        edge_id=row["edge_id"],
        request=_request.decode(row["request"]),
        placement=_placement.decode(row["placement"]),
        metadata=_metadata.decode(row["metadata"]),
        max_duration_s=row["max_duration_s"],
        created_at=row["created_at"],
        answered_at=row["answered_at"],
        ended_at=row["ended_at"],
        end_reason=row["end_reason"],
    )


def view_fields(call: StoredCall) -> dict[str, Any]:
    """The fields of `CallView`."""
    return {
        "id": ids.encode(ids.CALL, call.id),
        "state": call.state,
        "epoch": call.epoch,
        "seq": call.seq,
        "region": call.region,
        "edge": ids.encode(ids.EDGE, call.edge_id) if call.edge_id else None,
        "caller": call.request.caller,
        "agent": call.request.agent,
        "placement": call.placement,
        "metadata": call.metadata,
        "webhook_url": call.request.webhook_url,
        "max_duration_s": call.max_duration_s,
        "created_at": rfc3339(call.created_at),
        "answered_at": rfc3339(call.answered_at) if call.answered_at else None,
        "ended_at": rfc3339(call.ended_at) if call.ended_at else None,
        "end_reason": call.end_reason,
    }


def to_view(call: StoredCall) -> CallView:
    return CallView(**view_fields(call))
