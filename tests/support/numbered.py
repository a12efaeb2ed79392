"""A conversation in which every 20 ms frame says which one it is, in both directions: what was lost can be counted.

Frames are mu-law, which no edge changes. The backend takes turns: it plays a short utterance, pauses, and begins again; on a
call that was moved it begins with the pause, and begins nothing more on the older socket. The caller sends quiet frames
without a break.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from voxplane import AsyncCaller

FRAME_S = 0.02
UTTERANCE_FRAMES = 25
PAUSE_S = 0.6
_QUIET = [0xFF - i for i in range(16)]


def numbered(number: int) -> bytes:
    """Twenty milliseconds, quiet, that carry 16 bits."""
    digits = [_QUIET[number >> shift & 0x0F] for shift in (12, 8, 4, 0)]
    return bytes(digits) * 40


def number_of(samples: bytes) -> int:
    number = 0
    for byte in samples[:4]:
        number = number << 4 | (0xFF - byte)
    return number


@dataclass(slots=True)
class Told:
    """What a call's backends have got and said. `said`: frames of utterances that were sent to their end."""

    got: set[int] = field(default_factory=set)
    said: set[int] = field(default_factory=set)
    sockets: int = 0
    next: int = 1


class NumberedBackend:
    """`quiet`: says nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.calls: dict[str, Told] = defaultdict(Told)
        self._quiet = quiet
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[NumberedBackend]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        talking: asyncio.Task[None] | None = None
        told: Told | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    told = self.calls[message["start"]["customParameters"]["voxplane_call"]]
                    told.sockets += 1
                    if not self._quiet:
                        talking = asyncio.create_task(self._talk(socket, told))
                elif message["event"] == "media" and told is not None:
                    told.got.add(number_of(base64.b64decode(message["media"]["payload"])))
        except ConnectionClosed:
            pass
        finally:
            if talking is not None:
                talking.cancel()

    async def _talk(self, socket: ServerConnection, told: Told) -> None:
        with suppress(ConnectionClosed):
            number = told.sockets
            while True:
                await asyncio.sleep(PAUSE_S)
                if told.sockets != number:
                    return
                frames = range(told.next, told.next + UTTERANCE_FRAMES)
                told.next += UTTERANCE_FRAMES
                payload = base64.b64encode(b"".join(numbered(n) for n in frames)).decode()
                await socket.send(json.dumps({"event": "media", "media": {"payload": payload}}))
                data = {"role": "agent", "text": "so much for that"}
                await socket.send(json.dumps({"event": "voxplane", "type": "turn.ended", "data": data}))
                told.said.update(frames)
                await asyncio.sleep(UTTERANCE_FRAMES * FRAME_S)


class NumberedCaller:
    """Speaks and listens until `stop`; the caller is entered by somebody else, at 8 kHz mu-law."""

    def __init__(self, caller: AsyncCaller, told: Told) -> None:
        self._caller = caller
        self._told = told
        self.sent = 0
        self.heard: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._speak()), asyncio.create_task(self._listen())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.sent += 1
            await self._caller.send(numbered(self.sent))
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _listen(self) -> None:
        async for frame in self._caller.frames():
            if not frame.filler:
                self.heard.append(number_of(frame.samples))

    @property
    def lost_up(self) -> set[int]:
        """Frames of the caller's that no backend has got, those at the very end apart."""
        return (
            set(range(min(self._told.got - {0}, default=1), max(self._told.got, default=0))) - self._told.got
        )

    @property
    def lost_down(self) -> set[int]:
        """Frames of the agent's that the caller has not heard, those after the last it has heard apart."""
        last = max(self.heard, default=0)
        return {n for n in self._told.said if n < last} - set(self.heard)
