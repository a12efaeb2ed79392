"""A call with a tone: the backend plays it on every socket, the caller speaks, and a gap is a gap of the new backend's audio."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.local.deployment import TAKES_CALLS, Deployment
from voxplane import AsyncCaller

RATE_HZ = 16_000
FRAME = bytes(RATE_HZ // 50 * 2)
DEADLINE_S = 20.0
TONE = json.dumps(
    {"event": "media", "media": {"payload": base64.b64encode(bytes([0x10, 0x90]) * 80).decode()}}
)


async def moment(caller: AsyncCaller, number: int) -> None:
    """Another moment of the frame's, the snapshot's and the heartbeat's rhythm each time."""
    frames = 0
    async for _ in caller.frames():
        frames += 1
        if frames == 60 + number % 37:
            return


async def gap_ms(caller: AsyncCaller) -> float:
    """The gap that follows, once the new backend is heard."""
    async for _ in caller.frames():
        if caller.gaps and caller.gaps[-1].audio_gap_s is not None:
            break
    gap_s = caller.gaps[-1].audio_gap_s
    assert gap_s is not None
    return gap_s * 1000


@asynccontextmanager
async def speaking(caller: AsyncCaller) -> AsyncIterator[None]:
    task = asyncio.create_task(speak(caller))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def speak(caller: AsyncCaller) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        await caller.send(FRAME)
        due += 0.02
        await asyncio.sleep(max(0.0, due - loop.time()))


async def healthy(deployment: Deployment) -> None:
    async with deployment.operator() as client, asyncio.timeout(DEADLINE_S):
        while True:
            found = (await client.get("/admin/v1/regions")).json()["data"]
            if all(r["health"] in TAKES_CALLS for r in found):
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def tone_backend() -> AsyncIterator[str]:
    async def call(socket: ServerConnection) -> None:
        playing: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                if json.loads(text)["event"] == "start":
                    playing = asyncio.create_task(play(socket))
        except ConnectionClosed:
            pass
        finally:
            if playing is not None:
                playing.cancel()

    async def play(socket: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        with suppress(ConnectionClosed):
            while True:
                await socket.send(TONE)
                due += 0.02
                await asyncio.sleep(max(0.0, due - loop.time()))

    async with serve(call, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
