"""A caller that does what the library never does: keeps the socket it has left, and looks at what still comes on it.

And the backend beside it, which keeps apart what came on which socket.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.wire import media as wire

FRAME_S = 0.02
RATE_HZ = 8_000
FRAME = bytes([0xFF]) * (RATE_HZ // 50)
TONE = json.dumps(
    {"event": "media", "media": {"payload": base64.b64encode(bytes([0x10, 0x90]) * 80).decode()}}
)


@dataclass
class FrankCaller:
    """One socket. `frames`: stamps of the agent's audio; `said`: everything else; `echoed`: the newest stamp that was sent back.
    `echoes`: whether it speaks, and so renews the lease."""

    ticket: str
    epoch: int
    socket: ClientConnection
    frames: list[int] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    stamp: int = 0
    echoed: int = 0
    echoes: bool = True
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.said if m["type"] == kind]

    @property
    def snapshot(self) -> dict[str, Any]:
        """The newest: `n` is the last event that was written then."""
        return (self.heard("snapshot") or [{"n": 0}])[-1]

    async def send(self, kind: str, **more: Any) -> None:
        with suppress(ConnectionClosed):
            await self.socket.send(json.dumps({"type": kind, **more}))

    async def attach(self, mode: str = "attach", resume: dict[str, Any] | None = None) -> None:
        more = {"resume": resume} if resume else {}
        await self.send(
            "attach",
            ticket=self.ticket,
            epoch=self.epoch,
            mode=mode,
            encoding="mulaw",
            sample_rate=RATE_HZ,
            **more,
        )

    def resume(self) -> dict[str, Any]:
        """What it brings to the next edge."""
        acked = [m["n"] for m in self.heard("acked")]
        return {"epoch": self.epoch, "n": max(acked, default=0), "snapshot": self.snapshot.get("sealed")}

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = await self.socket.recv()
                if isinstance(message, bytes):
                    self.stamp = wire.HEADER.unpack_from(message)[3]
                    self.frames.append(self.stamp)
                    continue
                said = json.loads(message)
                self.stamp = said.get("stamp", self.stamp)
                self.said.append(said)
        self.closed.set()

    async def speak(self) -> None:
        sequence = 0
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(FRAME_S)
                if self.echoes and self.heard("attached"):
                    sequence += 1
                    self.echoed = self.stamp
                    await self.socket.send(
                        wire.pack(FRAME, sequence=sequence, stamp=self.stamp, utterance=0, offset_ms=0)
                    )


@asynccontextmanager
async def frank_caller(url: str, ticket: str, epoch: int) -> AsyncIterator[FrankCaller]:
    """Connected; it has not attached yet."""
    async with connect(url + "/v1/media", ping_interval=None, compression=None, max_queue=None) as socket:
        caller = FrankCaller(ticket, epoch, socket)
        tasks = [asyncio.create_task(caller.listen()), asyncio.create_task(caller.speak())]
        try:
            yield caller
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended


@dataclass
class BackendSocket:
    """`got`: kinds of all that came, the silence too; `acked`: tools that may run."""

    socket: ServerConnection
    call: str
    epoch: int
    got: list[str] = field(default_factory=list)
    digits: str = ""
    acked: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def tell(self, kind: str, data: dict[str, Any]) -> None:
        with suppress(ConnectionClosed):
            await self.socket.send(json.dumps({"event": "voxplane", "type": kind, "data": data}))

    async def play(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.socket.send(TONE)
                await asyncio.sleep(FRAME_S)


class FrankBackend:
    """Plays a tone on every socket, for as long as it is open."""

    def __init__(self) -> None:
        self.sockets: list[BackendSocket] = []
        self.url = ""

    def of(self, call: str, epoch: int) -> BackendSocket | None:
        return next((s for s in self.sockets if (s.call, s.epoch) == (call, epoch)), None)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[FrankBackend]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        playing: asyncio.Task[None] | None = None
        here: BackendSocket | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    given = message["start"]["customParameters"]
                    here = BackendSocket(socket, given["voxplane_call"], int(given["voxplane_epoch"]))
                    self.sockets.append(here)
                    await here.tell("turn.ended", {"role": "caller", "text": "hello"})
                    playing = asyncio.create_task(here.play())
                elif here is not None:
                    self._note(here, message)
        except ConnectionClosed:
            pass
        finally:
            if playing is not None:
                playing.cancel()
            if here is not None:
                here.closed.set()

    def _note(self, here: BackendSocket, message: dict[str, Any]) -> None:
        here.got.append(message["event"])
        if message["event"] == "dtmf":
            here.digits += message["dtmf"]["digit"]
        elif message["event"] == "voxplane" and message["type"] == "ack":
            here.acked.append(message["data"]["id"])
