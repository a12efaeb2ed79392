"""Whoever reads while things break: followers of the event stream, and somebody who looks at single calls over REST.

Decides nothing; keeps what it was given, in the order in which it came.
"""

from __future__ import annotations

import asyncio
import random
import time

from tests.chaos.callers import Load
from tests.chaos.history import Read
from voxplane import ApiError, AsyncClient, Unavailable

LOOK_EVERY_S = 0.15
MEMORY = 40
"""So many calls, newest first, are looked at again and again, also after their end."""


async def follow(urls: list[str], key: str, seen: list[tuple[str, int, str]], opened: asyncio.Event) -> None:
    """Until cancelled. The library resumes by its cursor, on the next instance, whenever the stream breaks."""
    async with AsyncClient(urls, key) as client:
        async for event in client.stream_events(opened=opened.set):
            seen.append((event["call_id"], event["seq"], event["id"]))  # noqa: PERF401  it never ends


async def look(urls: list[str], key: str, load: Load, reads: list[Read], seed: int) -> None:
    """Until cancelled: reads the events of some call from some instance, and where it has ended its state too."""
    chance = random.Random(seed)
    clients = [AsyncClient(url, key, timeout_s=5.0) for url in urls]
    try:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            recent = list(load.calls.values())[-MEMORY:]
            if not recent:
                continue
            call, client = chance.choice(recent), chance.choice(clients)
            began_s = time.monotonic()
            try:
                events = await client.events_of(call.id)
                ended_s = time.monotonic()
                state = await client.get_call(call.id)
            except (ApiError, Unavailable):
                continue
            reads.append(Read(call.id, began_s, ended_s, [(e["seq"], e["id"]) for e in events]))
            if state["end_reason"] is not None:
                call.ends_seen.append(state["end_reason"])
    finally:
        for client in clients:
            await client.close()
