"""An edge that does as it is told: what a caller library meets, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.wire import media as wire

CALL = "call_00000000000000000000000000"
TICK_S = 0.05
SNAPSHOT = "sealed for whoever comes next"


def encoded(message: wire.ToCaller) -> str:
    return msgspec.json.encode(message).decode()


def ticket(*edges: ScriptedEdge, first_epoch: int = 1) -> str:
    """Unsigned: only edges verify. One grant per edge."""
    grants = [
        {"e": epoch, "edge": edge.name, "i": "x", "region": edge.name, "url": edge.url}
        for epoch, edge in enumerate(edges, first_epoch)
    ]
    claims = base64.urlsafe_b64encode(json.dumps({"sub": CALL, "g": grants}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.c2ln"


@dataclass(slots=True)
class ScriptedEdge:
    """Answers as an edge does until told otherwise. `got`: every control message of all sockets; `audio`: the binary ones.

    `mute`: sockets stay open and nothing is said; `lost`: sockets of which this is so for ever. `refuse`: the answer to
    every attach. `before_attached` and `on_attached` run on a socket that becomes the owner's.
    """

    name: str
    url: str = ""
    mute: bool = False
    refuse: wire.Refused | None = None
    before_attached: Callable[[ServerConnection], Any] | None = None
    on_attached: Callable[[ServerConnection], Any] | None = None
    got: list[dict[str, Any]] = field(default_factory=list)
    audio: list[bytes] = field(default_factory=list)
    sockets: list[ServerConnection] = field(default_factory=list)
    lost: set[ServerConnection] = field(default_factory=set)
    owner: ServerConnection | None = None
    stamp: int = 1_000
    _server: Server | None = None
    _port: int = 0

    @property
    def modes(self) -> list[str]:
        return [m["mode"] for m in self.got if m["type"] == "attach"]

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.got if m["type"] == kind]

    async def listen(self) -> None:
        self._server = await serve(
            self._socket, "127.0.0.1", self._port, ping_interval=None, max_size=1 << 22
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{self._port}"

    async def die(self) -> None:
        """As a killed process: nobody listens, and every socket is gone without a word."""
        if self._server is not None:
            self._server.close(close_connections=False)
            for socket in self.sockets:
                socket.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def say(self, message: wire.ToCaller) -> None:
        assert self.owner is not None
        await self.owner.send(encoded(message))

    async def talk(self, samples: bytes, *, utterance: int = 1, offset_ms: int = 0, flags: int = 0) -> None:
        assert self.owner is not None
        self.stamp += 1
        await self.owner.send(
            wire.pack(
                samples, sequence=1, stamp=self.stamp, utterance=utterance, offset_ms=offset_ms, flags=flags
            )
        )

    async def _socket(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        ticking: asyncio.Task[None] | None = None
        epoch = 0
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    self.audio.append(message)
                    continue
                wire.from_caller_decoder.decode(message)  # what an edge would not read fails the test
                said = json.loads(message)
                self.got.append(said)
                if said["type"] == "attach":
                    epoch = said["epoch"]
                    if self.refuse is not None:
                        await socket.send(encoded(self.refuse))
                        await socket.close(1008)
                        return
                if said["type"] == "hangup":
                    await socket.send(encoded(wire.Ended(end_reason="caller_hung_up")))
                    await socket.close()
                    return
                if self.mute:
                    continue
                if said["type"] == "attach" and said["mode"] == "prepare":
                    await socket.send(encoded(wire.Prepared(call=CALL, epoch=epoch, stamp=self.stamp)))
                elif said["type"] in ("attach", "take"):
                    await self._own(socket, epoch)
                    ticking = ticking or asyncio.create_task(self._tick(socket))
        except ConnectionClosed:
            pass
        finally:
            if ticking is not None:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)

    async def _own(self, socket: ServerConnection, epoch: int) -> None:
        attached = wire.Attached(call=CALL, epoch=epoch, region=self.name, edge=self.name, stamp=self.stamp)
        if self.before_attached is not None:
            await self.before_attached(socket)
        await socket.send(encoded(attached))
        self.owner = socket
        if self.on_attached is not None:
            await self.on_attached(socket)

    async def _tick(self, socket: ServerConnection) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self.mute and socket not in self.lost:
                self.stamp += 1
                await socket.send(encoded(wire.Tick(stamp=self.stamp)))


@asynccontextmanager
async def edges(*names: str) -> AsyncIterator[list[ScriptedEdge]]:
    started = [ScriptedEdge(name) for name in names]
    try:
        for edge in started:
            await edge.listen()
        yield started
    finally:
        for edge in started:
            await edge.die()


async def until(true: Callable[[], Any], what: str, within_s: float = 20.0) -> None:
    """Polls; the deadline is only there to end a test that has failed."""
    async with asyncio.timeout(within_s):
        try:
            while not true():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            print(f"never came: {what}")
            raise
