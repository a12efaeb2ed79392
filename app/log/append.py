"""Writes events to the log and says what became of them.

Decides how a frame of runs becomes one call of ``vx.append`` and how its answer, or its silence, is told to the edge.
The verdicts themselves are reached in the database, under the call's lock. A time-out, a lost connection or a warning on
commit is *unknown*: it is answered ``busy``, and the edge sends the same numbers again. What an edge sent is bounded and
checked for shape by the uplink; nothing in here raises because of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec
import structlog

from app.clock import Clock, ms_of
from app.connection import DATABASE_ERRORS
from app.db import Database
from app.hints import DELIVERIES
from app.ids import new_id
from app.log.facts import CallFacts, FactsReader
from app.log.given import Row, rows_of
from app.vault import Vault
from regions.wire import ids
from regions.wire.events import EVENT_TYPES, FINAL_TYPE, EdgeEvent, EndReason, Source
from regions.wire.uplink import AppendStatus, CallEvents

log = structlog.get_logger()

APPEND = "select * from vx.append($1, $2, $3, $4)"
APPEND_CONTROL = "select * from vx.append_control($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
END_UNHELD = "select * from vx.end_unheld($1, make_interval(secs => $2), $3, $4, $5, $6)"
DEADLINE_S = 5.0


class Waker(Protocol):
    def wake(self, topic: str) -> None:
        """Wakes whoever waits for `topic`, on any instance; never blocks, never raises."""
        ...


class TailFeed(Protocol):
    def feed(self, call: UUID, facts: CallFacts, status: AppendStatus, events: list[EdgeEvent]) -> None:
        """Takes what has become durable; never blocks, never raises."""
        ...

    def feed_control(self, call: UUID, type_: str, data: bytes, at_ms: int, seq: int, source: Source) -> None:
        """The same for one event of the control plane or the project, which has become durable at `seq`."""
        ...


@dataclass(frozen=True, slots=True)
class EdgeIdentity:
    """Who writes: known from the uplink, never from a frame."""

    edge_id: UUID
    incarnation: UUID
    region: str


@dataclass(frozen=True, slots=True)
class ControlOutcome:
    """`status`: ``stored``, ``duplicate``, ``conflict``, ``ended``, ``held`` or ``unknown`` (no such call in this project)."""

    status: str
    seq: int


class Appender:
    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        facts: FactsReader,
        hints: Waker,
        tails: TailFeed | None = None,
    ) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._facts = facts
        self._hints = hints
        self._tails = tails

    async def append(self, edge: EdgeIdentity, runs: list[CallEvents]) -> list[AppendStatus]:
        """One status per run, in the order of `runs`. ``durable`` is said after the commit was acknowledged, never before."""
        try:
            calls = [ids.decode(ids.CALL, run.call) for run in runs]
            facts = await self._facts.of(calls)
            keys = {p: await self._vault.for_project(p) for p in {f.project_id for f in facts.values()}}
            given: list[Row] = []
            for call, run in zip(calls, runs, strict=True):
                known = facts.get(call)
                if known is not None:
                    given += rows_of(call, run, keys[known.project_id])
            rows = await self._call(edge, given) if given else []
        except DATABASE_ERRORS as error:
            log.warning("append.unknown", edge=str(edge.edge_id), calls=len(runs), error=type(error).__name__)
            return [
                _status(run, "busy", detail="the outcome is unknown: send the same again") for run in runs
            ]
        answers = {row["call_id"]: row for row in rows}
        for project in {facts[call].project_id for call in answers if answers[call]["status"] == "durable"}:
            self._hints.wake(f"feed:{project}")
            self._hints.wake(DELIVERIES)
        return [
            self._answer(call, run, facts.get(call), answers.get(call))
            for call, run in zip(calls, runs, strict=True)
        ]

    async def _call(self, edge: EdgeIdentity, given: list[Row]) -> list[Any]:
        async with asyncio.timeout(DEADLINE_S), self._db.pool("append").acquire() as connection:
            return await connection.fetch(  # type: ignore[no-any-return]
                APPEND, edge.edge_id, edge.incarnation, edge.region, given
            )

    def _answer(self, call: UUID, run: CallEvents, facts: CallFacts | None, row: Any) -> AppendStatus:
        if facts is None or row is None:
            return _status(run, "refused", detail="no such call")
        status = AppendStatus(
            call=run.call,
            epoch=run.epoch,
            status=row["status"],
            durable_n=row["durable_n"],
            seq=row["seq"],
            detail=row["detail"],
            stored=row["stored"],
        )
        if status.status == "durable":
            if self._tails is not None:
                self._tails.feed(call, facts, status, run.events)
        elif status.status != "busy":
            log.warning(
                "append.not_stored",
                call=run.call,
                epoch=run.epoch,
                status=status.status,
                detail=status.detail,
            )
        return status

    async def control(
        self,
        project_id: UUID,
        call_id: UUID,
        *,
        type: str,
        data: dict[str, Any],
        source: Source,
        source_key: str,
    ) -> ControlOutcome:
        """One event of the control plane or the project, once per `source_key`. Raises what the driver raises: unknown."""
        raw = msgspec.json.encode(data, order="deterministic")
        key = await self._vault.for_project(project_id)
        event_id = new_id(self._db.cell)
        content = EVENT_TYPES[type].content
        at = self._clock.now()
        async with asyncio.timeout(DEADLINE_S), self._db.pool("api").acquire() as connection:
            row = await connection.fetchrow(
                APPEND_CONTROL,
                project_id,
                call_id,
                source.value,
                source_key,
                event_id,
                type,
                at,
                None if content else raw.decode(),
                key.seal(raw, event_id) if content else None,
                key.id if content else None,
                key.hash(type.encode(), raw),
            )
        self._tell_tails(call_id, type, raw, at, row, source)
        return self._told(project_id, row)

    async def end_unheld(
        self, project_id: UUID, call_id: UUID, *, reason: EndReason, grace_s: float
    ) -> ControlOutcome:
        """The final event of a call that no edge holds; ``held`` where one may after all. Raises what the driver raises: unknown."""
        raw = msgspec.json.encode({"end_reason": reason.value})
        key = await self._vault.for_project(project_id)
        at = self._clock.now()
        async with asyncio.timeout(DEADLINE_S), self._db.pool("worker").acquire() as connection:
            row = await connection.fetchrow(
                END_UNHELD,
                call_id,
                grace_s,
                new_id(self._db.cell),
                at,
                raw.decode(),
                key.hash(FINAL_TYPE.encode(), raw),
            )
        self._tell_tails(call_id, FINAL_TYPE, raw, at, row, Source.CONTROL)
        return self._told(project_id, row)

    def _tell_tails(
        self, call_id: UUID, type_: str, raw: bytes, at: datetime, row: Any, source: Source
    ) -> None:
        if self._tails is not None and row["status"] == "stored":
            self._tails.feed_control(call_id, type_, raw, ms_of(at), row["seq"], source)

    def _told(self, project_id: UUID, row: Any) -> ControlOutcome:
        if row["status"] == "stored":
            self._hints.wake(f"feed:{project_id}")
            self._hints.wake(DELIVERIES)
        return ControlOutcome(row["status"], row["seq"])


def _status(run: CallEvents, status: str, *, detail: str) -> AppendStatus:
    return AppendStatus(call=run.call, epoch=run.epoch, status=status, durable_n=0, detail=detail)
