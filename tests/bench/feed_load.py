"""A process of its own that is many readers of feeds: ``python -m tests.bench.feed_load HOST PORT``.

The first line of its input, ``{"keys": […], "each": n}``, opens `n` streams with each key; it says ``{"ready": true}`` once all
have begun. From then on it notes of each event of an edge how long ago it happened, by the event's own time, when a reader has
it. A line ``{"heard": n}`` says how many that are of all readers together: once it has them, or has waited for long, it prints
how many it has, and order statistics, and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime

import msgspec
import uvloop

from tests.bench.support import quantile, say, stdin

CONNECT_WITHIN_S = 60.0
CONNECTING = 50
WAITED_FOR_S = 30.0


class Seen(msgspec.Struct):
    type: str
    timestamp: datetime


decode = msgspec.json.Decoder(Seen).decode


async def follow(host: str, port: int, key: str, begun: asyncio.Semaphore, late_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 18)
    head = f"GET /v1/events/stream HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    while line := await reader.readline():
        if line.startswith(b"retry:"):
            begun.release()
        elif line.startswith(b"data: "):
            now_s = time.time()
            seen = decode(line[6:])
            if not seen.type.startswith("call."):
                late_ms.append((now_s - seen.timestamp.timestamp()) * 1000)
    raise SystemExit("a stream has ended")


async def main(host: str, port: int) -> None:
    commands = await stdin()
    asked = json.loads(await commands.readline())
    begun, late_ms = asyncio.Semaphore(0), list[float]()
    keys = [key for key in asked["keys"] for _ in range(asked["each"])]
    following: list[asyncio.Task[None]] = []
    async with asyncio.timeout(CONNECT_WITHIN_S):
        for i in range(0, len(keys), CONNECTING):
            some = keys[i : i + CONNECTING]
            following += [asyncio.create_task(follow(host, port, key, begun, late_ms)) for key in some]
            for _ in some:
                await begun.acquire()
    say({"ready": True})
    wanted = json.loads(await commands.readline())["heard"]
    deadline_s = time.monotonic() + WAITED_FOR_S
    while len(late_ms) < wanted and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    for task in following:
        task.cancel()
    figures = {f"p{round(s * 100)}_ms": quantile(late_ms, s) for s in (0.5, 0.99)} if late_ms else {}
    say({"heard": len(late_ms), **figures})


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
