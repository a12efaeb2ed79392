"""A drain's progress over all cells, for whoever asks the home cell.

A drain is the fleet's and stands in the home cell; each other cell moves its own calls by its copy of it (`app.cells.mirror`). What
is counted here is counted in all of them. A cell that does not answer in time counts as it was last seen, and never as empty: nothing
is called drained that is not known to be.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from app.connection import DATABASE_ERRORS
from app.db import Database
from app.fleet.drain_store import DrainStore

ANSWER_WITHIN_S = 1.0
REMEMBERED_MAX = 1_000
UNKNOWN = (0, 1)
"""Of a cell that has never answered: one call that is not being moved."""

Answer = TypeVar("Answer")


class WholeDrains(DrainStore):
    """The home cell's, with the calls of the others in what it counts."""

    def __init__(self, home: Database, others: Sequence[Database]) -> None:
        super().__init__(home)
        self._others = [(db, DrainStore(db)) for db in others]
        self._last: dict[Hashable, Any] = {}

    async def count_calls(self, edges: Sequence[UUID]) -> int:
        key = ("calls", tuple(edges))
        others = await self._ask(key, 0, lambda store: store.count_calls(edges))
        return await super().count_calls(edges) + sum(others)

    async def open(self, edges: Sequence[UUID]) -> tuple[int, int]:
        key = ("open", tuple(edges))
        others = await self._ask(key, UNKNOWN, lambda store: store.open(edges))
        asked, live = await super().open(edges)
        return asked + sum(a for a, _ in others), live + sum(n for _, n in others)

    async def progress(self, drain_id: UUID) -> dict[str | None, int]:
        empty: dict[str | None, int] = {}
        others = await self._ask(("progress", drain_id), empty, lambda store: store.progress(drain_id))
        total = Counter(await super().progress(drain_id))
        for other in others:
            total.update(other)
        return dict(total)

    async def _ask(
        self, key: Hashable, unknown: Answer, ask: Callable[[DrainStore], Coroutine[Any, Any, Answer]]
    ) -> list[Answer]:
        async def one(db: Database, store: DrainStore) -> Answer:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    answer = await ask(store)
            except DATABASE_ERRORS:
                return self._last.get((db.cell, key), unknown)  # type: ignore[no-any-return]
            self._last.pop((db.cell, key), None)
            self._last[(db.cell, key)] = answer
            while len(self._last) > REMEMBERED_MAX:
                del self._last[next(iter(self._last))]
            return answer

        return await asyncio.gather(*(one(db, store) for db, store in self._others))
