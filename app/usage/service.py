"""Usage as it is asked for, and the worker that folds it. The glue between the pure sums and the store."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import structlog

from app.audit.service import Audit
from app.calls.store import CallStore
from app.clock import Clock
from app.db import Database
from app.errors import NotFound, PreconditionFailed
from app.ids import parse
from app.projects.auth import Principal
from app.supervisor import wait_for_stop
from app.usage.policy import SUMMED, Sums, checked, report, window
from app.usage.policy import price_at as price_on
from app.usage.shapes import CallUsage, GroupBy, OwnerUsage, PriceList, PriceVersion, Refolded, Usage
from app.usage.store import UsageStore
from regions.wire import ids

log = structlog.get_logger()

EVERY_S = 2.0
BATCH = 500
EXISTS = "select exists (select from vx.projects where id = $1)"


class Usages:
    """A test project's usage is shown, and has no cost."""

    def __init__(self, db: Database, calls: CallStore, clock: Clock, audit: Audit) -> None:
        self._db = db
        self._calls = calls
        self._clock = clock
        self._audit = audit
        self._store = UsageStore(db)

    async def worker(self, stop: asyncio.Event) -> None:
        """Folds what has ended; an instance that finds another at it leaves it to that."""
        while not stop.is_set():
            if await self._store.fold(BATCH) < BATCH:
                await wait_for_stop(stop, EVERY_S)

    async def read(self, principal: Principal, from_: str | None, to: str | None, group_by: GroupBy) -> Usage:
        """Raises `Invalid`."""
        first, last = window(from_, to, self._clock.now().date())
        found, pending = await self._store.sums(principal.project_id, first, last, group_by)
        versions, billed = await self._store.prices(principal.project_id), _billed(principal)
        rows, total = report(found, group_by, versions, billed=billed)
        return Usage(
            project_id=ids.encode(ids.PROJECT, principal.project_id),
            mode=principal.mode,
            billed=billed,
            currency=versions[-1].currency if versions else None,
            from_=first,
            to=last,
            group_by=group_by,
            pending=pending,
            data=rows,
            total=total,
        )

    async def of_call(self, principal: Principal, text: str) -> CallUsage:
        """What its owners have said so far. Raises `NotFound`."""
        call_id = parse(ids.CALL, text)
        call = await self._calls.get(principal.project_id, call_id) if call_id is not None else None
        if call is None:
            raise NotFound("There is no such call.")
        rows = await self._store.of_call(principal.project_id, call.id)
        versions, billed = await self._store.prices(principal.project_id), _billed(principal)
        day = rows[0]["day"]
        prices = price_on(versions, day)
        held = (
            [PriceVersion(valid_from=day, currency=versions[-1].currency, prices=prices)]
            if prices is not None
            else []
        )
        owners = [_owner(row, held, billed=billed) for row in rows if row["epoch"]]
        _, total = report([_sums(row, priced=bool(held)) for row in rows], "side", held, billed=billed)
        return CallUsage(
            call_id=text,
            day=day,
            final=call.ended_at is not None,
            billed=billed,
            currency=versions[-1].currency if versions else None,
            owners=owners,
            total=total,
        )

    # ------------------------------------------------------------------------------------------------- for operators

    async def price_list(self, text: str) -> PriceList:
        project_id = await self._known(text)
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            versions, version = await self._store.prices_in(connection, project_id)
        return PriceList(project_id=text, data=versions, version=version)

    async def put_price(self, text: str, version: int, price: PriceVersion) -> PriceList:
        """One version, in place of the one of that day where there is one. Raises `PreconditionFailed`, `Invalid`."""
        project_id = await self._known(text)
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            known, present = await self._store.prices_in(connection, project_id)
            if present != version:
                raise PreconditionFailed("The prices have changed since you read them.")
            await self._store.put_prices(connection, project_id, checked(price, known))
            said: dict[str, Any] = msgspec.to_builtins(price)
            await self._audit.record(connection, "prices.changed", text, project_id=project_id, summary=said)
        return await self.price_list(text)

    async def refold(self, text: str) -> Refolded:
        project_id = await self._known(text)
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            calls = await self._store.refold(connection, project_id)
            said = {"calls": calls}
            await self._audit.record(connection, "usage.refolded", text, project_id=project_id, summary=said)
        return Refolded(calls=calls)

    async def _known(self, text: str) -> UUID:
        project_id = parse(ids.PROJECT, text)
        if project_id is None or not await self._db.pool("admin").fetchval(EXISTS, project_id):
            raise NotFound("There is no such project.")
        return project_id


def _billed(principal: Principal) -> bool:
    return principal.mode == "live"


def _sums(row: Any, *, priced: bool) -> Sums:
    """One owner's, priced by the only version that there is."""
    counts = {name: int(row.get(name, 0)) for name in SUMMED}
    counts["owners"], counts["incomplete"] = int(row["epoch"] > 0), int(not row["complete"])
    far = {
        side: counts[f"{side}_out_bytes"] if row[f"{side}_to"] not in ("", row["region"]) else 0
        for side in ("caller", "agent")
    }
    rtc_ms = counts["caller_ms"] if row["transport"] == "webrtc" else 0
    return Sums((), row["day"] if priced else None, counts, rtc_ms, far["caller"], far["agent"])


def _owner(row: Any, held: list[PriceVersion], *, billed: bool) -> OwnerUsage:
    _, counted = report([_sums(row, priced=bool(held))], "side", held, billed=billed)
    named = {
        name: row[name] for name in ("epoch", "region", "transport", "caller_to", "agent_to", "complete")
    }
    return OwnerUsage(**msgspec.structs.asdict(counted), **named)
