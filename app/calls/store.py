"""The statements of a call: the coalesced create and the reads. Rows stay in here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.calls.listing import (
    ALONG_ITS_ORDER,
    LOOK_S,
    WEEKS,
    Filters,
    Weeks,
    furthest,
    is_search,
    look_statement,
    looks,
    reach_statement,
    read_statement,
)
from app.calls.shapes import (
    DEFAULT_TURNS,
    AgentRequest,
    CallerRequest,
    CallView,
    EndWhenRequest,
    LatencyBudgetRequest,
    LatencyRequest,
    PlacementView,
    RegionsRequest,
    TurnsRequest,
)
from app.clock import rfc3339
from app.db import Database
from app.errors import Unavailable
from app.log.horizon import Horizon
from app.projects.agent_secret import FIRST, Version
from app.projects.quotas_policy import Verdict
from regions.wire import ids

DEADLINE_S = 4.0
WEEKS_KNOWN_S = 3_600.0
EVER = UUID(int=0)
CreateLimit = tuple[UUID, int | None, int | None]

CREATE_CALLS = "select * from vx.create_calls($1, $2, $3, $4, $5)"

CALL_COLUMNS = """id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by, seq,
 feed_xid, wrapped, erased_at, region, edge_id, request, placement, metadata, max_duration_s, created_at, answered_at, ended_at,
 end_reason,
 current_setting('synchronous_standby_names') <> '' as replicated"""
SELECT_CALL = f"select {CALL_COLUMNS} from vx.calls where id = $1"
SELECT_CALLS = f"select {CALL_COLUMNS} from vx.calls where id = any($1::uuid[])"
SELECT_MADE = (
    "select call_id, body_hash from vx.idempotency where project_id = $1 and route = $2 and key = $3"
)
GRANT_EPOCHS = "select vx.grant_epochs($1, $2, $3, $4, $5)"


class StoredRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of the request is kept with the call. `network`: its caller's /24 or /48, of a call alone that may be moved for a gain.
    `secret`: which of the project's agent secrets were valid at its creation. `trace`: its `traceparent`, where it is traced."""

    agent: AgentRequest
    caller: CallerRequest
    webhook_url: str | None = None
    latencies: list[LatencyRequest] = []
    regions: RegionsRequest = msgspec.field(default_factory=RegionsRequest)
    turns: TurnsRequest = DEFAULT_TURNS
    network: str | None = None
    end_when: EndWhenRequest = msgspec.field(default_factory=EndWhenRequest)
    latency_budget: LatencyBudgetRequest = msgspec.field(default_factory=LatencyBudgetRequest)
    secret: Version = FIRST
    trace: str = ""


class NewCall(msgspec.Struct, frozen=True, kw_only=True):
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
    trace: str
    max_duration_s: int
    attach_by: datetime
    expire_at: datetime
    event_data: bytes
    event_hash: bytes
    created_at: datetime
    wrapped: bytes
    subject: bytes | None
    key_id: UUID
    limits: tuple[CreateLimit, ...] = ()
    """What bounds creates of its project and its key: see `app.projects.quotas_policy.Bounds`."""


class Created(msgspec.Struct, frozen=True):
    """`verdict`: where there are quotas, and the key had not been used before. One that says `refused` has made nothing.
    `feed_xid`: of its first event; 0 where it was not made now."""

    call_id: UUID
    body_hash: bytes
    replayed: bool
    verdict: Verdict | None = None
    feed_xid: int = 0


@dataclass(frozen=True, slots=True)
class CallsFound:
    """A page of a list. `below`: where there may be more, everything down to this call has been looked at; the page may be short of
    its limit then, and even empty."""

    calls: list[StoredCall]
    below: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call as the log holds it. `wrapped`: its key for content; None where that was destroyed."""

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
    wrapped: bytes | None
    erased_at: datetime | None
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
        call.created_at, call.key_id, call.wrapped, call.subject,
    )  # fmt: skip


def limits_of(batch: list[NewCall]) -> list[CreateLimit] | None:
    """Of one project's creates, the newest of what is known of each limit; None where there is none at all."""
    found = {limit[0]: limit for call in batch for limit in call.limits}
    return list(found.values()) or None


_request = msgspec.json.Decoder(StoredRequest)
_placement = msgspec.json.Decoder(PlacementView)
_metadata = msgspec.json.Decoder(dict[str, str])


class CallStore:
    """What is read here is durable when it is returned: see `app.log.horizon`."""

    def __init__(self, db: Database, horizon: Horizon) -> None:
        self._db = db
        self._horizon = horizon
        self._known_weeks: Weeks | None = None
        self._weeks_at_s = 0.0

    async def create(
        self, project_id: UUID, route: str, now: datetime, batch: list[NewCall]
    ) -> dict[str, Created]:
        """All of `batch` in one round trip, by idempotency key; a key that was there before is answered from its record. Raises
        `Unavailable` where those that the project's quotas make wait have waited for too long."""
        given_all, limits = [given(call) for call in batch], limits_of(batch)
        try:
            async with asyncio.timeout(DEADLINE_S), self._db.pool("api").acquire() as connection:
                rows = await connection.fetch(CREATE_CALLS, project_id, route, now, given_all, limits)
        except asyncpg.LockNotAvailableError:
            raise Unavailable(
                "Too many creates of this project wait for each other.",
                code="temporary-reduced-capacity",
                retry_after_s=1,
            ) from None
        return {
            r["key"]: Created(
                r["call_id"],
                r["body_hash"],
                r["replayed"],
                Verdict(*r["verdict"][1:]) if r["verdict"] else None,
                r["feed_xid"] or 0,
            )
            for r in rows
        }

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
        self, project_id: UUID, asked: Filters, *, below: UUID | None, limit: int, look_s: float = LOOK_S
    ) -> CallsFound:
        """The newest calls that pass, below one; see `app.calls.listing`."""
        along = 0
        async with self._db.project_driver(project_id) as connection:
            await connection.execute(ALONG_ITS_ORDER)
            weeks = await self._weeks(connection)
            if is_search(asked):
                reach = reach_statement(project_id, asked, below, weeks)
                along = furthest(tuple(await connection.fetchrow(reach.text, *reach.values)))
            looked: list[UUID] = []
            began_s = time.monotonic()
            for parts in looks(asked, below, weeks):
                wanted = limit + 1 - len(looked)
                left_s = max(look_s / 2, look_s - (time.monotonic() - began_s))
                look = look_statement(project_id, asked, parts, along=along, limit=wanted, look_s=left_s)
                looked += [row["id"] for row in await connection.fetch(look.text, *look.values)]
                if len(looked) > limit:
                    break
            read = read_statement(CALL_COLUMNS, project_id, asked, looked)
            rows = await connection.fetch(read.text, *read.values) if looked else []
        await self._cover(rows)
        calls = sorted(map(stored, rows), key=lambda call: call.id, reverse=True)
        if len(looked) <= limit:
            return CallsFound(calls, None)
        return CallsFound(calls[:limit], calls[limit - 1].id if len(calls) > limit else looked[-1])

    async def _weeks(self, connection: Any) -> Weeks:
        now_s = time.monotonic()
        if self._known_weeks is None or now_s - self._weeks_at_s > WEEKS_KNOWN_S:
            row = await connection.fetchrow(WEEKS)
            self._known_weeks, self._weeks_at_s = Weeks(row["first"] or EVER, row["end"] or EVER), now_s
        return self._known_weeks

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
        wrapped=row["wrapped"],
        erased_at=row["erased_at"],
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
        "turns": call.request.turns,
        "placement": call.placement,
        "metadata": call.metadata,
        "webhook_url": call.request.webhook_url,
        "max_duration_s": call.max_duration_s,
        "end_when": call.request.end_when,
        "latency_budget": call.request.latency_budget,
        "created_at": rfc3339(call.created_at),
        "answered_at": rfc3339(call.answered_at) if call.answered_at else None,
        "ended_at": rfc3339(call.ended_at) if call.ended_at else None,
        "end_reason": call.end_reason,
        "erased_at": rfc3339(call.erased_at) if call.erased_at else None,
        "traceparent": call.request.trace or msgspec.UNSET,
    }


def to_view(call: StoredCall) -> CallView:
    return CallView(**view_fields(call))
