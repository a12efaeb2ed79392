"""Brings what others wrote into a call's memory on this edge, and answers what a backend asks of it.

Decides when the region's tail is read: soon after the log has gained more than this edge wrote, and before a reader is told
that it asked for too much. Leaves the answers to `Conversation`, the merge to `Journal.refresh`. Without a tail to read
everything works with what the edge has seen itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from regions.agents import text
from regions.agents.text import Asked
from regions.edge.conversation import Conversation
from regions.edge.journal import Journal
from regions.wire.snapshot import Tail
from regions.wire.uplink import AppendStatus

PAUSES_S = (0.1, 0.4, 1.0, 3.0)
"""A tail is written as soon as an event is acknowledged: it is mostly there with the first look."""


class TailSource(Protocol):
    async def read(self, call: str) -> Tail | None:
        """The call's tail in this region, or None; in 50 ms, and never an error."""
        ...


class Listener(Protocol):
    def send_text(self, type_: str, data: object) -> None: ...


class BackendSide(Protocol):
    @property
    def connection(self) -> Listener | None:
        """None while there is no backend to talk to."""
        ...


class Recall:
    """`owns`: whether this edge still owns the call; nothing is said to the backend where it does not."""

    def __init__(
        self,
        journal: Journal,
        call: str,
        tails: TailSource | None,
        backend: BackendSide,
        owns: Callable[[], bool],
    ) -> None:
        self._conversation = Conversation(journal, call)
        self._journal = journal
        self._call = call
        self._tails = tails
        self._backend = backend
        self._owns = owns
        self._catching_up: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None

    def on_text(self, type_: str, data: bytes, now_ms: int) -> None:
        """`tool.called`, `tool.result` and `conversation.get`. Raises `Unreadable`."""
        if type_ == "conversation.get":
            self._ask(text.asked(data), now_ms)
            return
        tool, written = text.tool_asked(data), text.written(data)
        answer = self._conversation.tool(tool) if type_ == "tool.called" else None
        if answer is not None:
            self._send(*answer)
        else:
            self._journal.tool(type_, tool.id, written)

    def acknowledged(self, status: AppendStatus) -> None:
        """A run is durable: its tools may run, and where others have written, what they wrote is fetched."""
        for tool in self._journal.acknowledged(status.durable_n, status.seq, status.stored):
            self._send("ack", self._conversation.ack(tool, status.seq))
        if not self._journal.behind or self._tails is None:
            return
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(), name=f"recall {self._call}")

    def forget(self) -> None:
        """The backend that asked is gone: its successor is told nothing that it did not ask for."""
        self._journal.forget_tools()
        self._conversation.forget()
        if self._answering is not None:
            self._answering.cancel()

    def _ask(self, asked: Asked, now_ms: int) -> None:
        refused = self._conversation.too_often(asked, now_ms)
        if refused is not None:
            self._send(*refused)
        elif self._conversation.knows(asked) or self._tails is None:
            self._send(*self._conversation.get(asked))
        elif self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._look_and_answer(asked), name=f"recall {self._call}")
        else:
            self._send(*self._conversation.get(asked))

    def _send(self, type_: str, data: dict[str, Any]) -> None:
        if (listener := self._backend.connection) is not None and self._owns():
            listener.send_text(type_, data)

    async def _look_and_answer(self, asked: Asked) -> None:
        await self._look()
        self._send(*self._conversation.get(asked))

    async def _catch_up(self) -> None:
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            if not self._owns() or not self._journal.behind or await self._look():
                return

    async def _look(self) -> bool:
        assert self._tails is not None
        tail = await self._tails.read(self._call)
        return tail is not None and self._journal.refresh(tail)
