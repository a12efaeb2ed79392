"""Brings what others wrote into a call's memory on this edge, and answers what a backend asks of it.

Decides when the region's tail is read: soon after the log has gained more than this edge wrote, and before a reader is told
that it asked for too much. Leaves the answers to `Conversation`, the merge to `Journal.refresh`. Without a tail to read
everything works with what the edge has seen itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from regions.agents.text import Asked
from regions.edge.conversation import Conversation
from regions.edge.journal import Journal
from regions.wire.snapshot import Tail

PAUSES_S = (0.1, 0.4, 1.0, 3.0)
"""A tail is written as soon as an event is acknowledged: it is mostly there with the first look."""


class TailSource(Protocol):
    async def read(self, call: str) -> Tail | None:
        """The call's tail in this region, or None; in 50 ms, and never an error."""
        ...


class Recall:
    """`send`: to the backend, if it is there and this edge still owns the call; `owns`: whether it does."""

    def __init__(
        self,
        journal: Journal,
        call: str,
        tails: TailSource | None,
        send: Callable[[str, dict[str, Any]], None],
        owns: Callable[[], bool],
    ) -> None:
        self.conversation = Conversation(journal, call)
        self._journal = journal
        self._call = call
        self._tails = tails
        self._send = send
        self._owns = owns
        self._catching_up: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None

    def catch_up(self) -> None:
        """Where others have written, what they wrote is fetched. Never blocks."""
        if not self._journal.behind or self._tails is None:
            return
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(), name=f"recall {self._call}")

    def ask(self, asked: Asked, now_ms: int) -> None:
        refused = self.conversation.too_often(asked, now_ms)
        if refused is not None:
            self._send(*refused)
        elif self.conversation.knows(asked) or self._tails is None:
            self._send(*self.conversation.get(asked))
        elif self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._look_and_answer(asked), name=f"recall {self._call}")
        else:
            self._send(*self.conversation.get(asked))

    async def _look_and_answer(self, asked: Asked) -> None:
        await self._look()
        self._send(*self.conversation.get(asked))

    async def _catch_up(self) -> None:
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            if not self._owns() or not self._journal.behind or await self._look():
                return

    async def _look(self) -> bool:
        assert self._tails is not None
        tail = await self._tails.read(self._call)
        return tail is not None and self._journal.refresh(tail)
