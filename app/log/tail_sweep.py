"""Finds the live calls whose tail a region lacks, whoever was to write it, and has it sent again.

Decides when to look, what is compared and how fast. One page of live calls at a time is read from the log; a moment later,
when what was on its way has arrived, each region is asked where their tails stand. Every instance does so by itself, at
jittered times: an instance that died with tails it had not written is made up for, and so is a region that was away or has
come back empty. Mending twice does no harm, for a tail never replaces one as new.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from app.db import Database
from app.log.tail_region import AWAY, either
from app.log.tails import FAILED, Tails
from app.supervisor import Supervisor, wait_for_stop
from app.telemetry import tails_mended_total

log = structlog.get_logger()

EVERY_S = 10.0
AWAY_EVERY_S = 1.5
FIRST_WITHIN_S = 1.0
SETTLE_S = 0.2
PAGE = 1_000
GRACE_S = 0.5
"""What is on its way is not missing: a region has so long to get what the log had when the page was read."""

SELECT_LIVE = """
select id, seq, epoch, grant_edges, attach_by from vx.calls
 where ended_at is null and (attach_by, id) > ($1, $2) order by attach_by, id limit $3
"""
BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class TailSweep:
    def __init__(self, db: Database, tails: Tails) -> None:
        self._db = db
        self._tails = tails
        self._away: set[str] = set()

    def add_to(self, supervisor: Supervisor) -> None:
        if self._tails.regions:
            supervisor.add("tails.sweep", self.worker)

    async def worker(self, stop: asyncio.Event) -> None:
        """The first look comes soon after the start, for another instance may just have died."""
        pause_s = random.uniform(0.2, 1.0) * FIRST_WITHIN_S
        while not stop.is_set():
            await either(self._tails.lost, stop, pause_s)
            if await wait_for_stop(stop, random.uniform(0.5, 1.5) * SETTLE_S):
                return
            self._tails.lost.clear()
            try:
                await self.sweep(stop)
            except FAILED as error:
                log.warning("tails.unswept", error=type(error).__name__)
            pause_s = (AWAY_EVERY_S if self._away else EVERY_S) * random.uniform(0.5, 1.5)

    async def sweep(self, stop: asyncio.Event) -> None:
        """Once over all live calls, not faster than the log can be read. Raises what the driver raises."""
        after = BEGINNING
        while not stop.is_set():
            rows = await self._db.pool("worker").fetch(SELECT_LIVE, *after, PAGE)
            if not rows or await wait_for_stop(stop, GRACE_S):
                return
            await self._mend(rows)
            while self._tails.unread > PAGE and not await wait_for_stop(stop, GRACE_S):
                pass
            if len(rows) < PAGE:
                return
            after = (rows[-1]["attach_by"], rows[-1]["id"])

    async def _mend(self, rows: list[Any]) -> None:
        missing = await self._missing(rows)
        if not missing:
            return
        horizon = await self._tails.log.horizon()
        for row in rows:
            if (regions := missing.get(row["id"])) is not None:
                self._tails.mend(row["id"], seq=row["seq"], regions=regions, horizon=horizon)

    async def _missing(self, rows: list[Any]) -> dict[UUID, set[str]]:
        """Which regions lack what of each call. A region that does not answer is looked at again soon."""
        by_region: dict[str, list[Any]] = {}
        for row in rows:
            if row["seq"] > 1:
                for name in self._tails.serving(tuple(row["grant_edges"]), row["epoch"]):
                    by_region.setdefault(name, []).append(row)
        missing: dict[UUID, set[str]] = {}
        for name, calls in by_region.items():
            try:
                there = await self._tails.regions[name].seqs(row["id"] for row in calls)
            except AWAY:
                self._away.add(name)
                continue
            self._away.discard(name)
            behind = [row["id"] for row, seq in zip(calls, there, strict=True) if seq < row["seq"]]
            for call in behind:
                missing.setdefault(call, set()).add(name)
            if behind:
                tails_mended_total.labels(name).inc(len(behind))
                log.info("tails.behind", region=name, calls=len(behind), looked_at=len(calls))
        return missing
