"""What a backend says on one socket, in its order: whoever has something to say posts it and need not wait.

Audio belongs to an utterance, so that what of it has not left yet can be taken back when it is cut. A socket that is gone swallows
what is posted: its end is told by its reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed

from voxplane.agent.wires import SLICE_MS, Message, Wire

WAITING_MAX = 16
"""Messages that wait to be written before whoever makes audio is held up."""


class Socket(Protocol):
    """As `websockets` has it."""

    async def send(self, message: Message) -> None: ...
    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class Line:
    """`posted` messages are written by `run`, which ends with the socket, or once `hang_up` or `give_up` has closed it."""

    def __init__(self, socket: Socket, wire: Wire) -> None:
        self._socket = socket
        self._wire = wire
        self._waiting: deque[tuple[object, Message, Callable[[], None] | None]] = deque()
        self._posted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._written = asyncio.Event()
        self._written.set()
        self._closing: tuple[int, str] | None = None
        self.rate_hz = wire.rate_hz
        self.resumes = wire.resumes
        self.mute = False
        """Another socket speaks for the call."""

    async def run(self) -> None:
        try:
            while True:
                await self._posted.wait()
                while self._waiting:
                    _, message, left = self._waiting.popleft()
                    await self._socket.send(message)
                    if left is not None:
                        left()
                    if len(self._waiting) <= WAITING_MAX:
                        self._room.set()
                self._posted.clear()
                self._written.set()
                if self._closing is not None:
                    await self._socket.close(*self._closing)
                    return
        except (ConnectionClosed, OSError):
            self.mute = True
            self._waiting.clear()
        finally:
            self._room.set()
            self._written.set()

    @property
    def waiting(self) -> int:
        """Messages that were posted and have not been written."""
        return len(self._waiting)

    async def room(self) -> None:
        """Returns once the edge has taken in what was said."""
        await self._room.wait()

    async def written(self) -> None:
        """Returns once nothing waits."""
        await self._written.wait()

    def open(self, *, discard_silence: bool = False) -> None:
        self._post(self._wire.opening())
        if discard_silence:
            self._post(self._wire.discard_silence())

    def audio(self, owner: object, pcm: bytes, left: Callable[[], None] | None = None) -> None:
        """Whole samples at the wire's rate. `left` is called once the first of them were written to the socket."""
        slice_bytes = 2 * self.rate_hz * SLICE_MS // 1000
        for i in range(0, len(pcm), slice_bytes):
            self._post(self._wire.audio(pcm[i : i + slice_bytes]), owner, left)
            left = None

    def text(self, type_: str, data: dict[str, Any], owner: object = None) -> None:
        self._post(self._wire.text(type_, data), owner)

    def utterance(self, id_: str, owner: object, offset_ms: int = 0) -> None:
        self._post(self._wire.utterance(id_, offset_ms), owner)

    def mark(self, name: str, owner: object) -> None:
        self._post(self._wire.mark(name), owner)

    def clear(self) -> None:
        """What was sent and not played is dropped; what waits to be sent, and belongs to somebody, is not sent."""
        self.take_back()
        self._post(self._wire.clear())

    def take_back(self) -> None:
        self._waiting = deque(item for item in self._waiting if item[0] is None)
        self._room.set()

    def hang_up(self, reason: str) -> None:
        """Once what was said before is heard, the call ends. The edge closes after `hangup`; where there is none, this side does."""
        if said := self._wire.hangup(reason):
            self._post(said)
        else:
            self._close(1000, "")

    def give_up(self, reason: str) -> None:
        """The edge dials the backend again."""
        self._close(1011, reason)

    def _close(self, code: int, reason: str) -> None:
        self._closing = self._closing or (code, reason)
        self._posted.set()

    def _post(self, message: Message, owner: object = None, left: Callable[[], None] | None = None) -> None:
        if not message or self.mute or self._closing is not None:
            return
        self._waiting.append((owner, message, left))
        self._posted.set()
        self._written.clear()
        if len(self._waiting) > WAITING_MAX:
            self._room.clear()
