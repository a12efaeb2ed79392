"""``python -m tests.bench.tail_load URL CALLS PER_S``: writes full-size tails into a region as the control plane does, until
its standard input closes. It prints ``ready`` once every call has one, and at the end how many were written per second.

Every other write says something new and carries all turns; the rest move the place alone.
"""

from __future__ import annotations

import asyncio
import sys
import time
from uuid import UUID

import msgspec

from app.clock import SystemClock
from app.log.tail_region import Packed, TailRegion, pack
from regions.wire import ids
from regions.wire.keeping import sealing
from regions.wire.snapshot import Tail, Turn, bounded

FLEET_KEY = ("fk_load", bytes(32))
SEAL = sealing(lambda: FLEET_KEY)


def full_turns(seed: int) -> list[Turn]:
    """As many bytes as a tail may have: turns of a talkative conversation, and tools with a key from before."""
    tools = [
        Turn(role="tool", id=f"t{i}", key=f"k{i}", name="look_up", done=True, result="r" * 200, seq=i + 2, at_ms=1)
        for i in range(40)
    ]  # fmt: skip
    said = [
        Turn(role=("caller", "agent")[i % 2], text=f"{seed} {i} " + "w" * 560, seq=100 + i, at_ms=1_700_000_000_000)
        for i in range(64)
    ]  # fmt: skip
    return bounded(tools + said)


def call_of(i: int) -> UUID:
    return UUID(int=(0x01900000 << 96) | (7 << 76) | (2 << 62) | i)


async def main(url: str, calls: int, per_s: float) -> None:
    region = TailRegion("load", url, SystemClock(), lambda: None)
    stop = asyncio.Event()
    worker = asyncio.create_task(region.worker(stop))
    kept: list[Packed] = []
    for i in range(calls):
        turns = full_turns(i)
        tail = Tail(
            call=ids.encode(ids.CALL, call_of(i)), seq=200, epoch=1, n=199, turns=turns, said_seq=200, at_ms=1
        )
        kept.append(pack(tail, None, SEAL))
        region.put(call_of(i), kept[i], time.monotonic())
    while region.waiting:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    began, written = time.monotonic(), 0
    while not ended.done():
        due = round((time.monotonic() - began) * per_s) - written
        for _ in range(max(0, due)):
            i, says = written % calls, (written // calls) % 2 == 0
            before = kept[i]
            seq = before.tail.seq + 1
            turns = full_turns(seq) if says else before.tail.turns
            tail = msgspec.structs.replace(
                before.tail, seq=seq, n=seq - 1, turns=turns, said_seq=seq if says else before.tail.said_seq
            )
            kept[i] = pack(tail, before, SEAL)
            region.put(call_of(i), kept[i], time.monotonic())
            written += 1
        await asyncio.sleep(0.002)
    took_s = time.monotonic() - began
    while region.waiting:
        await asyncio.sleep(0.01)
    stop.set()
    await worker
    print(f"{written / took_s:.0f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
