"""A process of its own that follows a project's stream: ``python -m tests.bench.stream_load HOST PORT KEY``.

Says ``{"ready": true}`` once it listens. From then on it notes of each event of an edge how long ago it happened, by the
event's own time, when it is read here. A line ``{"events": n}`` says how many there are: once it has them, or has waited for
long, it prints how many it has, and order statistics, and ends.
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

CONNECT_WITHIN_S = 20.0
WAITED_FOR_S = 30.0


class Seen(msgspec.Struct):
    type: str
    timestamp: datetime


async def follow(host: str, port: int, key: str, ready: asyncio.Event, late_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    head = f"GET /v1/events/stream HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    decode = msgspec.json.Decoder(Seen).decode
    while line := await reader.readline():
        if line.startswith(b"retry:"):
            ready.set()
        elif line.startswith(b"data: "):
            seen = decode(line[6:])
            if not seen.type.startswith("call."):
                late_ms.append((time.time() - seen.timestamp.timestamp()) * 1000)
    raise SystemExit("the stream has ended")


async def main(host: str, port: int, key: str) -> None:
    commands = await stdin()
    ready, late_ms = asyncio.Event(), list[float]()
    following = asyncio.create_task(follow(host, port, key, ready, late_ms))
    async with asyncio.timeout(CONNECT_WITHIN_S):
        await ready.wait()
    say({"ready": True})
    wanted = json.loads(await commands.readline())["events"]
    deadline_s = time.monotonic() + WAITED_FOR_S
    while len(late_ms) < wanted and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    following.cancel()
    say(
        {"events": len(late_ms), "p50_ms": quantile(late_ms, 0.5), "p99_ms": quantile(late_ms, 0.99)}
        if late_ms
        else {"events": 0}
    )


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
