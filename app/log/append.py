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

import asyncpg
import msgspec
import structlog

from app.clock import Clock, ms_of
from app.connection import DATABASE_ERRORS
from app.db import Database
from app.hints import DELIVERIES
from app.ids import new_id
from app.log.acked import Acked, End, written
from app.log.facts import CallFacts, FactsReader
from app.log.given import EVENT_ID, Row, rows_of
from app.log.unfit import replaced
from app.telemetry import events_unfit_total
from app.tracing import Tracer
from app.vault import VaultError
from regions.wire import ids
from regions.wire.events import EVENT_TYPES, FINAL_TYPE, EdgeEvent, EndReason, Source
from regions.wire.uplink import AppendStatus, CallEvents

log = structlog.get_logger()

APPEND = "select * from vx.append($1, $2, $3, $4)"
APPEND_CONTROL = "select * from vx.append_control($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
END_UNHELD = "select * from vx.end_unheld($1, make_interval(secs => $2), $3, $4, $5, $6)"
DEADLINE_S = 5.0
UNFIT = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""What the database says of a value that it cannot hold, whenever it is asked."""


class Waker(Protocol):
    def wake(self, topic: str, note: str = "") -> None:
        """Wakes whoever waits for `topic`, on any instance; never blocks, never raises. `note`: all there is to know about it."""
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
    """`status`: ``stored``, ``duplicate``, ``conflict``, ``ended``, ``held``, ``erased`` or ``unknown`` (no such call in this
    project)."""

    status: str
    seq: int


class Appender:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        facts: FactsReader,
        hints: Waker,
        tails: TailFeed | None = None,
        acked: Acked | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._facts = facts
        self._hints = hints
        self._tails = tails
        self._acked = acked
        self._tracer = tracer or Tracer()

    async def append(self, edge: EdgeIdentity, runs: list[CallEvents]) -> list[AppendStatus]:
        """One status per run, in the order of `runs`. ``durable`` is said after the commit was acknowledged, never before."""
        if not self._tracer.on:
            return await self._append(edge, runs)
        began = self._clock.now()
        answers = await self._append(edge, runs)
        ended = self._clock.now()
        for run, answer in zip(runs, answers, strict=True):
            self._tracer.appended(run, answer, began, ended)
        return answers

    async def _append(self, edge: EdgeIdentity, runs: list[CallEvents]) -> list[AppendStatus]:
        try:
            calls = [ids.decode(ids.CALL, run.call) for run in runs]
            facts = await self._facts.of(calls)
            stored = [_redacted(run, facts.get(call)) for call, run in zip(calls, runs, strict=True)]
            given: list[Row] = []
            last: dict[UUID, UUID] = {}
            for call, run in zip(calls, stored, strict=True):
                known = facts.get(call)
                if known is not None and known.key is not None:
                    given += rows_of(call, run, known.key)
                    last[call] = given[-1][EVENT_ID]
            rows = await self._call(edge, given) if given else []
        except UNFIT as error:
            log.warning("append.unfit", edge=str(edge.edge_id), calls=len(runs), error=type(error).__name__)
            return await self._apart(edge, runs)
        except (*DATABASE_ERRORS, VaultError) as error:
            log.warning("append.unknown", edge=str(edge.edge_id), calls=len(runs), error=type(error).__name__)
            return [
                _status(run, "busy", detail="the outcome is unknown: send the same again") for run in runs
            ]
        answers = {row["call_id"]: row for row in rows}
        ends: dict[UUID, list[End]] = {}
        for call, run in zip(calls, stored, strict=True):
            row = answers.get(call)
            if row is not None and row["status"] == "durable":
                whole = row["stored"] == len(run.events)
                of_project = ends.setdefault(facts[call].project_id, [])
                if whole:
                    of_project.append(End(call, row["seq"], row["feed_xid"], last[call]))
                else:
                    # what it ends with was stored before, or not here
                    self._hints.wake(f"feed:{facts[call].project_id}")
        for project, of_project in ends.items():
            self.tell(project, of_project)
        return await self._with_ends(
            calls,
            [
                self._answer(call, run, facts.get(call), answers.get(call))
                for call, run in zip(calls, stored, strict=True)
            ],
        )

    async def _with_ends(self, calls: list[UUID], statuses: list[AppendStatus]) -> list[AppendStatus]:
        """An owner whose call is over must not take it for another's: its caller would look for the one that has it."""
        fenced = [call for call, status in zip(calls, statuses, strict=True) if status.status == "fenced"]
        if not fenced:
            return statuses
        try:
            async with asyncio.timeout(DEADLINE_S):
                ended = await self._facts.ended(fenced)
        except DATABASE_ERRORS:  # the command will say so
            return statuses
        return [
            msgspec.structs.replace(status, end_reason=ended.get(call, ""))
            if status.status == "fenced"
            else status
            for call, status in zip(calls, statuses, strict=True)
        ]

    async def _apart(self, edge: EdgeIdentity, runs: list[CallEvents]) -> list[AppendStatus]:
        """The same where the database cannot hold one of the values: by halves, until it is found and replaced."""
        if len(runs) > 1:
            half = len(runs) // 2
            return [*await self._append(edge, runs[:half]), *await self._append(edge, runs[half:])]
        run, events = runs[0], runs[0].events
        if len(events) == 1:
            other = replaced(events[0], run.epoch)
            if other == events[0]:
                return [_status(run, "busy", detail="the outcome is unknown: send the same again")]
            events_unfit_total.labels(edge.region).inc()
            return await self._append(edge, [msgspec.structs.replace(run, events=[other])])
        half = len(events) // 2
        before = (await self._append(edge, [msgspec.structs.replace(run, events=events[:half])]))[0]
        if before.status != "durable":
            return [before]
        after = (await self._append(edge, [msgspec.structs.replace(run, events=events[half:])]))[0]
        return [msgspec.structs.replace(after, stored=before.stored + after.stored)]

    def tell(self, project_id: UUID, ends: list[End]) -> None:
        """That these writes to calls of the project are durable: their commits were acknowledged. All readers are woken."""
        if ends:
            if self._acked is not None:
                self._acked.note(ends)
            self._hints.wake(f"feed:{project_id}", written(ends))
        self._hints.wake(DELIVERIES)

    async def _call(self, edge: EdgeIdentity, given: list[Row]) -> list[Any]:
        async with asyncio.timeout(DEADLINE_S), self._db.pool("append").acquire() as connection:
            return await connection.fetch(  # type: ignore[no-any-return]
                APPEND, edge.edge_id, edge.incarnation, edge.region, given
            )

    def _answer(self, call: UUID, run: CallEvents, facts: CallFacts | None, row: Any) -> AppendStatus:
        if facts is not None and facts.key is None:
            return _status(run, "fenced", detail="the call was erased")
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
        known = (await self._facts.of([call_id])).get(call_id)
        if known is None or known.project_id != project_id:
            return ControlOutcome("unknown", 0)
        if known.key is None:
            return ControlOutcome("erased", 0)
        event_id = new_id(self._db.cell)
        content = EVENT_TYPES[type].content
        if content and known.redactor is not None:
            raw = known.redactor.content(type, raw)
        at = self._clock.now()
        with self._tracer.writing(call_id, known.trace, type, source, self._clock.now) as said:
            row = await self._put_control(
                project_id,
                call_id,
                source.value,
                source_key,
                event_id,
                type,
                at,
                None if content else raw.decode(),
                known.key.seal(raw, event_id) if content else None,
                known.key.hash(type.encode(), raw),
            )
            said.status = row["status"]
        self._tell_tails(call_id, type, raw, at, row, source)
        return self._told(project_id, call_id, event_id, row)

    async def _put_control(self, *given: Any) -> Any:
        async with asyncio.timeout(DEADLINE_S), self._db.pool("api").acquire() as connection:
            return await connection.fetchrow(APPEND_CONTROL, *given)

    async def end_unheld(
        self, project_id: UUID, call_id: UUID, *, reason: EndReason, grace_s: float
    ) -> ControlOutcome:
        """The final event of a call that no edge holds; ``held`` where one may after all. Raises what the driver raises: unknown."""
        raw = msgspec.json.encode({"end_reason": reason.value})
        known = (await self._facts.of([call_id])).get(call_id)
        if known is None or known.key is None:
            return ControlOutcome("ended", 0)
        at, event_id = self._clock.now(), new_id(self._db.cell)
        with self._tracer.writing(call_id, known.trace, FINAL_TYPE, Source.CONTROL, self._clock.now) as said:
            async with asyncio.timeout(DEADLINE_S), self._db.pool("worker").acquire() as connection:
                row = await connection.fetchrow(
                    END_UNHELD,
                    call_id,
                    grace_s,
                    event_id,
                    at,
                    raw.decode(),
                    known.key.hash(FINAL_TYPE.encode(), raw),
                )
            said.status = row["status"]
        self._tell_tails(call_id, FINAL_TYPE, raw, at, row, Source.CONTROL)
        return self._told(project_id, call_id, event_id, row)

    def _tell_tails(
        self, call_id: UUID, type_: str, raw: bytes, at: datetime, row: Any, source: Source
    ) -> None:
        if self._tails is not None and row["status"] == "stored":
            self._tails.feed_control(call_id, type_, raw, ms_of(at), row["seq"], source)

    def _told(self, project_id: UUID, call_id: UUID, event_id: UUID, row: Any) -> ControlOutcome:
        if row["status"] == "stored":
            self.tell(project_id, [End(call_id, row["seq"], row["feed_xid"], event_id)])
        return ControlOutcome(row["status"], row["seq"])


def _redacted(run: CallEvents, facts: CallFacts | None) -> CallEvents:
    """The run as it may be stored, and told to anybody: the same where its project strikes nothing out."""
    if facts is None or (redactor := facts.redactor) is None:
        return run
    events = [
        msgspec.structs.replace(e, data=msgspec.Raw(redactor.content(e.type, bytes(e.data))))
        if EVENT_TYPES[e.type].content
        else e
        for e in run.events
    ]
    return msgspec.structs.replace(run, events=events)


def _status(run: CallEvents, status: str, *, detail: str) -> AppendStatus:
    return AppendStatus(call=run.call, epoch=run.epoch, status=status, durable_n=0, detail=detail)
