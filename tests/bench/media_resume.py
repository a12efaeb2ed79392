"""What a caller misses, or hears twice, of an utterance whose edge is killed: a native backend goes on where it was cut.

Every 20 ms of the agent's speech say in their samples which they are, and each second of it has a pitch of its own; what the caller
plays is read from the sound. Several calls on one edge, which is killed with SIGKILL in the middle of what they are told.
"""

from __future__ import annotations

import array
import asyncio
import json
import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.bench.report import Figure
from tests.bench.support import deployed
from voxplane import AsyncCaller, AsyncClient

RATE_HZ, FRAME_MS, SAMPLES = 16_000, 20, 320
LENGTH_MS, CUT_MS = 6_000, 2_500
CALLS, CALLS_FULL = 5, 20
WITHIN_S = 30.0


def coded(number: int) -> bytes:
    """20 ms: the number in its first two samples, then a tone of its second."""
    hz = 300 + 100 * (number * FRAME_MS // 1000)
    tone = [
        round(9_000 * math.sin(2 * math.pi * hz * (number * SAMPLES + i) / RATE_HZ))
        for i in range(SAMPLES - 2)
    ]
    return array.array("h", [20_000, number, *tone]).tobytes()


STORY = [coded(number) for number in range(LENGTH_MS // FRAME_MS)]


def number_of(frame: bytes) -> int | None:
    """None where these are not 20 ms of the story, as it was told."""
    first, number, *_ = array.array("h", frame)
    known = first == 20_000 and 0 <= number < len(STORY)
    return number if known and frame == STORY[number] else None


@asynccontextmanager
async def teller() -> AsyncIterator[str]:
    """A native backend that names its utterance, and goes on with it where it was cut."""

    async def socket(socket: ServerConnection) -> None:
        try:
            async for message in socket:
                if isinstance(message, bytes) or json.loads(message)["type"] != "start":
                    continue
                cut: dict[str, Any] | None = json.loads(message).get("cut")
                from_ms = 0 if cut is None else cut["offset_ms"]
                await socket.send(json.dumps({"type": "utterance", "id": "story", **(cut or {})}))
                await socket.send(b"".join(STORY)[from_ms * SAMPLES // FRAME_MS * 2 :])
                await socket.send(json.dumps({"type": "turn.ended", "data": {"role": "agent"}}))
        except ConnectionClosed:
            return

    async with serve(socket, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


async def measure(*, full: bool) -> list[Figure]:
    async with deployed(regions=2) as deployment, teller() as url:
        _, key = await deployment.create_project("bench")
        first = next(iter(deployment.regions.values()))
        async with AsyncClient(deployment.api_urls, key) as client:
            heard: list[list[int | None]] = [[] for _ in range(CALLS_FULL if full else CALLS)]
            calls = [asyncio.create_task(_hear(client, url, first.place.id, into)) for into in heard]
            async with asyncio.timeout(WITHIN_S):
                while min(map(len, heard)) < CUT_MS // FRAME_MS:
                    await asyncio.sleep(0.01)
            os.kill(first.edge.pid, signal.SIGKILL)
            gaps = [gap for found in await asyncio.gather(*calls) for gap in found]
    skips = [abs(b - a - 1) * FRAME_MS for numbers in map(_known, heard) for a, b in pairwise(numbers)]
    whole = sum(_known(numbers)[-1] == len(STORY) - 1 for numbers in heard)
    strange = sum(n is None for numbers in heard for n in numbers)
    gap_ms = sorted(gaps)[len(gaps) // 2] * 1000
    how = f"{len(heard)} utterances cut by SIGKILL, {whole} heard to their end; the gap p50 {gap_ms:.0f} ms"
    if strange or whole < len(heard):
        how += f"; {strange} FRAMES ARE NOT AS THEY WERE SENT"
    return [
        Figure(family="media", name="media.resume_skip_max_ms", value=max(skips), unit="ms", how=how,
               target=40.0, at_most=True),
    ]  # fmt: skip


def _known(numbers: list[int | None]) -> list[int]:
    return [n for n in numbers if n is not None]


async def _hear(client: AsyncClient, url: str, region: str, into: list[int | None]) -> list[float]:
    """Until the story is over; the gaps that its caller has noted."""
    agent = {"url": url, "dialect": "native"}
    call = await client.create_call(agent, regions={"pin": region})
    async with AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller:
        speaking = asyncio.create_task(_breathe(caller))
        try:
            async with asyncio.timeout(WITHIN_S):
                async for frame in caller.frames():
                    if not frame.filler:
                        into.append(number_of(frame.samples))
                    if into and into[-1] == len(STORY) - 1:
                        break
        finally:
            speaking.cancel()
        await caller.hangup()
        return [gap.audio_gap_s for gap in caller.gaps if gap.audio_gap_s is not None]


async def _breathe(caller: AsyncCaller) -> None:
    while True:
        await caller.send(b"\0" * SAMPLES * 2)
        await asyncio.sleep(FRAME_MS / 1000)
