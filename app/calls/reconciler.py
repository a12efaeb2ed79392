"""Gives every call its final event (I11). Lost contact alone never ends a call: what is overdue is asked for first.

Notes what is overdue, asks the edges that may hold it, and ends what none of them holds (`app.calls.overdue`). Any number of
instances do this side by side; the log takes one final event, whoever writes it.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from app.calls.overdue import GRACE_S, PATIENCE_S, Overdue
from app.fleet.desired import Commands
from app.log.append import Appender
from app.supervisor import wait_for_stop
from app.telemetry import calls_reconciled_total
from regions.wire import ids
from regions.wire.events import EndReason

log = structlog.get_logger()

EVERY_S = 2.0


class Reconciler:
    def __init__(
        self, overdue: Overdue, commands: Commands, appender: Appender, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._overdue = overdue
        self._commands = commands
        self._appender = appender
        self._patience_s = patience_s

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, EVERY_S * (0.5 + random.random())):
            await self.round()

    async def round(self) -> None:
        await self._overdue.note()
        for question in await self._overdue.questions(self._patience_s):
            await self._commands.deny(question.call_id, question.edge_id, question.epoch)
        for call in await self._overdue.over(self._patience_s):
            outcome = await self._appender.end_unheld(
                call.project_id, call.call_id, reason=EndReason(call.reason), grace_s=GRACE_S
            )
            calls_reconciled_total.labels(call.reason, outcome.status).inc()
            log.info(
                "call.reconciled",
                call=ids.encode(ids.CALL, call.call_id),
                reason=call.reason,
                outcome=outcome.status,
            )
