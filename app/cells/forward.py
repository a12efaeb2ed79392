"""Takes the commands that one cell has for edges to the home cell, whose uplinks carry them.

Decides nothing: a cell writes a command with what it follows from, in one transaction of its own, and this hands it on, in its
order, at least once; the home cell takes each once (``vx.take_commands``). Any number of instances do it side by side. With the
home cell away commands wait here: nothing is lost, and an edge that has not heard yet is fenced by its own cell's log.
"""

from __future__ import annotations

import asyncio
import random
from itertools import groupby
from typing import Any

import msgspec
import structlog

from app.db import Database
from app.fleet import hang_ups
from app.fleet.desired import topic
from app.hints import Hints, Subscription

log = structlog.get_logger()

POLL_S = 0.5
BATCH = 500

SELECT_WAITING = f"""
select edge_id, version, kind, call_id, body, extract(epoch from clock_timestamp() - created_at)::float8 as age_s
  from vx.desired order by edge_id, version limit {BATCH}
"""
TAKE = "select vx.take_commands($1, $2, $3, $4, $5, $6)"
FORGET = "delete from vx.desired where edge_id = $1 and version <= $2"


def outbox_topic(cell: int) -> str:
    return f"outbox:{cell}"


class OutboxHints(Hints):
    """What a cell other than the home cell wakes: whoever waits for commands of an edge waits until they have been taken over."""

    def __init__(self, hints: Hints, cell: int) -> None:
        super().__init__({})
        self._all = hints
        self._cell = cell

    def wake(self, topic: str, note: str = "") -> None:
        self._all.wake(outbox_topic(self._cell) if topic.startswith("desired:") else topic, note)

    def subscribe(self, topic: str) -> Subscription:
        return self._all.subscribe(topic)

    def subscribers(self, topic: str) -> int:
        return self._all.subscribers(topic)


class Forwarder:
    def __init__(self, home: Database, db: Database, hints: Hints) -> None:
        self._home = home
        self._db = db
        self._hints = hints

    async def round(self) -> int:
        """How many commands were waiting. Raises what the driver raises."""
        pool = self._db.pool("admin")
        rows = await pool.fetch(SELECT_WAITING)
        for edge_id, group in groupby(rows, key=lambda r: r["edge_id"]):
            mine = list(group)
            columns = [[r[name] for r in mine] for name in ("version", "kind", "call_id")]
            bodies = [_body(r) for r in mine]
            await self._home.pool("admin").fetchval(TAKE, self._db.cell, edge_id, *columns, bodies)
            await pool.execute(FORGET, edge_id, mine[-1]["version"])
            self._hints.wake(topic(edge_id))
        return len(rows)

    async def worker(self, stop: asyncio.Event) -> None:
        woken = self._hints.subscribe(outbox_topic(self._db.cell))
        try:
            while not stop.is_set():
                if await self.round() < BATCH:
                    await woken.wait(POLL_S * (0.5 + random.random()))
        finally:
            woken.close()


def _body(row: Any) -> str:
    """A hang-up is in a hurry: what it has lost of its time here is taken off."""
    if row["kind"] != hang_ups.KIND:
        return str(row["body"])
    left = hang_ups.aged(msgspec.json.decode(row["body"], type=dict[str, str]), row["age_s"])
    return msgspec.json.encode(left).decode()
