"""The gap that a caller hears when the edge that carries the call is killed with SIGKILL.

From the last frame of the old edge to the first frame of the *new backend's* audio: the backend plays a continuous tone on
every socket it is given, and the edge adds no filler of its own. Two regions on loopback, no distance emulated: what is
measured is what the software adds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.local.deployment import TAKES_CALLS, Deployment
from tests.bench import crash, elsewhere, replacing
from tests.bench.drain import measure_drains
from tests.bench.report import Figure
from tests.bench.support import deployed, quantile
from voxplane import AsyncCaller, AsyncClient

KILLS = 50
RATE_HZ = 16_000
FRAME = bytes(RATE_HZ // 50 * 2)
DEADLINE_S = 20.0
TONE = json.dumps(
    {"event": "media", "media": {"payload": base64.b64encode(bytes([0x10, 0x90]) * 80).decode()}}
)


async def measure(*, full: bool) -> list[Figure]:
    kills = KILLS * (4 if full else 1)
    async with deployed(regions=2) as deployment, tone_backend() as url:
        _, key = await deployment.create_project("bench")
        async with AsyncClient(deployment.api_urls, key) as client:
            gaps_ms = [await one(deployment, client, url, i) for i in range(kills)]
    how = f"{kills} kills, two regions on loopback"
    return [
        Figure(family="failover", name="failover.edge_kill_p50_ms", value=statistics.median(gaps_ms), unit="ms", how=how),
        Figure(family="failover", name="failover.edge_kill_p99_ms", value=quantile(gaps_ms, 0.99), unit="ms", how=how),
        Figure(family="failover", name="failover.edge_kill_max_ms", value=max(gaps_ms), unit="ms", how=how,
               target=500.0, at_most=True),
        *await measure_drains(),
        *await elsewhere.measure(full=full),
        *await crash.measure(full=full),
        *await replacing.measure(full=full),
    ]  # fmt: skip


async def one(deployment: Deployment, client: AsyncClient, url: str, number: int) -> float:
    """A call, a kill, the gap in milliseconds; the edge is back afterwards."""
    victim = list(deployment.regions)[number % 2]
    call = await client.create_call(url, regions={"pin": victim})
    async with (
        AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
        asyncio.timeout(DEADLINE_S),
    ):
        speaking = asyncio.create_task(speak(caller))
        try:
            frames = 0
            # another moment of the frame's, the snapshot's and the heartbeat's rhythm each time
            async for _ in caller.frames():
                frames += 1
                if frames == 60 + number % 37:
                    break
            region = deployment.regions[caller.region]
            os.kill(region.edge.pid, signal.SIGKILL)
            async for _ in caller.frames():
                if caller.gaps and caller.gaps[-1].audio_gap_s is not None:
                    break
            gap_s = caller.gaps[-1].audio_gap_s
            assert gap_s is not None
        finally:
            speaking.cancel()
            with suppress(asyncio.CancelledError):
                await speaking
        await caller.hangup()
    await deployment.mend()
    await healthy(deployment)
    return gap_s * 1000


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
