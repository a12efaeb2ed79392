"""How long a takeover waits for a tail: the edge's own reader, a real Valkey, tails of full size, while they are being written.

The reads are of calls at random, one at a time with a pause, as takeovers come; the writer is another process, as the control
plane is, and writes with its own code (`tests/bench/tail_load.py`). All of it shares the machine.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from pathlib import Path

import msgspec

from app.local.folder import temporary_folder
from app.local.valkey import Valkey
from regions.edge.tails import TailReader
from regions.edge.valkey import RegionValkey
from regions.wire import ids
from regions.wire.keeping import opening
from tests.bench.report import Figure
from tests.bench.support import quantile
from tests.bench.tail_load import FLEET_KEY, call_of

CALLS = 200
WRITES_PER_S = 300.0
READS = 1_000
PAUSE_S = 0.005
DEADLINE_S = 60.0


async def measure(*, full: bool) -> list[Figure]:
    folder = temporary_folder("voxplane-bench")
    try:
        async with Valkey(Path(folder) / "valkey") as valkey:
            return await _measure(valkey.url, READS * (5 if full else 1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(url: str, reads: int) -> list[Figure]:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.tail_load", url, str(CALLS), str(WRITES_PER_S),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    valkey = RegionValkey(url)
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert (await writer.stdout.readline()).strip() == b"ready"
        took_ms, sizes, missed = await _read(TailReader(valkey, opening(lambda: dict([FLEET_KEY]))), reads)
        writer.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            written = float(await writer.stdout.readline())
            await writer.wait()
    finally:
        await valkey.close()
        if writer.returncode is None:
            writer.kill()
            await writer.wait()
    size_kib = quantile(sizes, 0.5) / 1024
    how = f"{reads} reads of {size_kib:.0f} KiB, {written:.0f} tails/s being written, {missed} over 50 ms"
    return [
        _figure("takeover_read_ms", quantile(took_ms, 0.99), "ms", f"p99 of {how}", 5.0),
        _figure("takeover_read_p50_ms", quantile(took_ms, 0.5), "ms", "the same, p50", None),
        _figure("size_kib", size_kib, "KiB", "a tail's turns as JSON, median", None),
    ]


async def _read(reader: TailReader, reads: int) -> tuple[list[float], list[float], int]:
    """A read that does not come within its deadline counts as 50 ms and more: it is what a takeover would have waited."""
    chance = random.Random(11)
    took_ms: list[float] = []
    sizes: list[float] = []
    missed = 0
    await reader.read(ids.encode(ids.CALL, call_of(0)))
    for _ in range(reads):
        call = ids.encode(ids.CALL, call_of(chance.randrange(CALLS)))
        began = time.perf_counter()
        tail = await reader.read(call)
        took_ms.append((time.perf_counter() - began) * 1000)
        if tail is None:
            missed += 1
        else:
            sizes.append(len(msgspec.json.encode(tail.turns)))
        await asyncio.sleep(PAUSE_S)
    return took_ms, sizes, missed


def _figure(name: str, value: float, unit: str, how: str, target: float | None) -> Figure:
    return Figure(
        family="tail", name=f"tail.{name}", value=value, unit=unit, how=how, target=target, at_most=True
    )
