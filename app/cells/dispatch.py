"""What an uplink brings and asks of calls of several cells, handed to each call's own.

Decides by the cell in the call's id, and how long one cell may keep the others waiting: a cell that has just shown trouble has
`PATIENCE_S`, and what it has not answered by then is unknown, as with a database that does not answer (I10). A call of a cell
that this deployment does not have is no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import structlog

from app.connection import DATABASE_ERRORS
from app.db import Database
from app.fleet.orders import CutReports, MoveOrder, Tickets
from app.fleet.ports import Appends, Listening, LostContact
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.uplink import AppendStatus, CallEvents, Cut, Volatile

log = structlog.get_logger()

PATIENCE_S = 0.5
DEADLINE_S = 6.0
"""Above what the parts allow themselves: only a fault of ours is ended by it."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one cell has for uplinks."""

    db: Database
    appends: Appends
    contact: LostContact
    tickets: Tickets
    cuts: CutReports
    live: Listening


class Dispatch:
    """All that an uplink speaks to, of several cells: `Appends`, `LostContact`, `Tickets`, `CutReports` and `Listening` in one."""

    def __init__(self, cells: Mapping[int, Parts]) -> None:
        self._cells = cells

    # ------------------------------------------------------------------------------------------------ events

    async def append(self, edge: EdgeIdentity, runs: list[CallEvents]) -> list[AppendStatus]:
        """One status per run, in the order of `runs`; acknowledged together."""
        split = _split(enumerate(runs), lambda run: ids.decode(ids.CALL, run[1].call))
        answers: list[AppendStatus] = [_status(run, "refused", "no such call") for run in runs]

        async def append(parts: Parts, mine: list[tuple[int, CallEvents]]) -> None:
            try:
                async with asyncio.timeout(_limit_s(parts)):
                    got = await parts.appends.append(edge, [run for _, run in mine])
            except TimeoutError:
                got = [_status(run, "busy", "the outcome is unknown: send the same again") for _, run in mine]
            for (i, _), status in zip(mine, got, strict=True):
                answers[i] = status

        await asyncio.gather(
            *(append(parts, mine) for n, mine in split.items() if (parts := self._cells.get(n)) is not None)
        )
        return answers

    def heard(self, edge: EdgeIdentity, message: Volatile) -> None:
        try:
            parts = self._cells.get(ids.cell_of(ids.decode(ids.CALL, message.call)))
        except ids.IdError:
            return
        if parts is not None:
            parts.live.heard(edge, message)

    # ------------------------------------------------------------------------------------------ lost contact

    async def lapsed(self, edge_id: UUID, calls: list[tuple[UUID, int]]) -> None:
        await self._each(calls, lambda c: c[0], lambda parts, mine: parts.contact.lapsed(edge_id, mine))

    async def answered(self, edge_id: UUID, incarnation: UUID, answers: list[tuple[UUID, int, bool]]) -> None:
        await self._each(
            answers, lambda a: a[0], lambda parts, mine: parts.contact.answered(edge_id, incarnation, mine)
        )

    # ---------------------------------------------------------------------------------------------- commands

    async def for_moves(self, moves: list[tuple[UUID, int]]) -> dict[UUID, MoveOrder]:
        """A call whose cell is away stays where it is: commands of the others do not wait for it. It is asked again later."""
        return _joined(
            await self._each(
                moves, lambda m: m[0], lambda parts, mine: parts.tickets.for_moves(mine), lenient=True
            )
        )

    async def not_taken(self, edge_id: UUID, moves: list[tuple[UUID, int]]) -> None:
        await self._each(
            moves, lambda m: m[0], lambda parts, mine: parts.tickets.not_taken(edge_id, mine), lenient=True
        )

    async def for_standbys(self, renewals: list[tuple[UUID, int, int]]) -> dict[UUID, str]:
        return _joined(
            await self._each(
                renewals, lambda r: r[0], lambda parts, mine: parts.tickets.for_standbys(mine), lenient=True
            )
        )

    async def wanted(self, calls: list[UUID]) -> set[UUID]:
        found = await self._each(
            calls, lambda c: c, lambda parts, mine: parts.cuts.wanted(mine), lenient=True
        )
        return {call for some in found for call in some}

    async def told(self, edge_id: UUID, cut: list[Cut]) -> None:
        await self._each(
            cut, lambda c: ids.decode(ids.CALL, c.call), lambda parts, mine: parts.cuts.told(edge_id, mine)
        )

    async def _each(
        self,
        items: Collection[Item],
        call_of: Callable[[Item], UUID],
        ask: Callable[[Parts, list[Item]], Coroutine[Any, Any, Answer]],
        *,
        lenient: bool = False,
    ) -> list[Answer]:
        """Every cell's answer. Raises what the driver raises, once all have answered; `lenient`: leaves that cell out."""
        split = _split(items, call_of)
        asked = [(p, mine) for n, mine in split.items() if (p := self._cells.get(n)) is not None]

        async def within(parts: Parts, mine: list[Item]) -> Answer:
            async with asyncio.timeout(_limit_s(parts)):
                return await ask(parts, mine)

        found = await asyncio.gather(*(within(p, mine) for p, mine in asked), return_exceptions=True)
        answers: list[Answer] = []
        failed: list[BaseException] = []
        for (parts, _), answer in zip(asked, found, strict=True):
            if not isinstance(answer, BaseException):
                answers.append(answer)
            elif lenient and isinstance(answer, DATABASE_ERRORS):
                log.info("cell.not_asked", cell=parts.db.cell, error=type(answer).__name__)
            else:
                failed.append(answer)
        if failed:
            raise failed[0]
        return answers


def _split(items: Iterable[Item], call_of: Callable[[Item], UUID]) -> dict[int, list[Item]]:
    """By the cells of their calls, in their order."""
    split: dict[int, list[Item]] = {}
    for item in items:
        split.setdefault(ids.cell_of(call_of(item)), []).append(item)
    return split


def _joined(answers: Iterable[dict[UUID, Answer]]) -> dict[UUID, Answer]:
    return {call: answer for some in answers for call, answer in some.items()}


def _limit_s(parts: Parts) -> float:
    return PATIENCE_S if parts.db.trouble else DEADLINE_S


def _status(run: CallEvents, status: str, detail: str) -> AppendStatus:
    return AppendStatus(call=run.call, epoch=run.epoch, status=status, durable_n=0, detail=detail)
