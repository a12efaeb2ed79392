"""Writes what came of deliveries: the attempt, and what is next. Those that end while one batch commits go into the next.

An attempt is on record before anything that depends on it; a claim that another worker has taken over is left alone. What
waited behind a delivery that is done, or parked, is due with the same commit (`vx.settle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db import Database

BATCH_MAX = 128
DEADLINE_S = 5.0

SETTLE = "select vx.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One attempt and the delivery's next state; `next_at` counts only where it is to be tried again."""

    call_id: UUID
    webhook_id: UUID
    seq: int
    attempt: int
    project_id: UUID
    at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    excerpt: str | None
    state: str
    next_at: datetime
    url: str


class Settler:
    def __init__(self, db: Database, worker_id: UUID, woken: Callable[[], None]) -> None:
        """`woken`: told where something that waited behind is due now."""
        self._woken = woken
        self._db = db
        self._worker_id = worker_id
        self._waiting: list[tuple[Done, asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def settle(self, done: Done) -> None:
        """Returns once it is committed. Raises what the driver raises: then nothing is known, and the claim runs out."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((done, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            try:
                await self._write([done for done, _ in batch])
            except Exception as error:  # noqa: BLE001  each waiting delivery gets it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)

    async def _write(self, batch: list[Done]) -> None:
        # in one order everywhere, so that two workers that settle the same rows cannot wait for each other
        rows = sorted(batch, key=lambda d: (d.call_id, d.webhook_id, d.seq))
        due = await self._db.pool("worker").fetchval(
            SETTLE, self._worker_id,
            [d.call_id for d in rows], [d.webhook_id for d in rows], [d.seq for d in rows], [d.attempt for d in rows],
            [d.project_id for d in rows], [d.at for d in rows], [d.duration_ms for d in rows], [d.status for d in rows],
            [d.error for d in rows], [d.excerpt for d in rows], [d.state for d in rows], [d.next_at for d in rows],
            [d.url for d in rows], timeout=DEADLINE_S,
        )  # fmt: skip
        if due:
            self._woken()
