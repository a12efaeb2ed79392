"""Measures the round trip to every region, in parallel, on the path the audio will take."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

BUDGET_MS = 300
SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Latency:
    """One region as measured: least round trip, spread of the samples, share that did not come back."""

    region: str
    rtt_ms: float
    jitter_ms: float
    loss: float
    at: str

    def to_json(self) -> dict[str, Any]:
        return {
            "region": self.region,
            "rtt_ms": round(self.rtt_ms, 2),
            "jitter_ms": round(self.jitter_ms, 2),
            "loss": round(self.loss, 3),
            "at": self.at,
        }


@dataclass(slots=True)
class _Samples:
    sent: int = 0
    rtts_ms: list[float] = field(default_factory=list)


async def probe_regions(
    regions: list[dict[str, Any]],
    *,
    samples: int = SAMPLES,
    budget_ms: float = BUDGET_MS,
    connect_ms: float = 2_000,
) -> list[Latency]:
    """What has come back within `budget_ms` after the sockets stood open (or `connect_ms` for opening them); nearest first.

    `regions` as `GET /v1/regions` lists them. Regions that did not answer are left out.
    """
    found: dict[str, _Samples] = {}
    opened = asyncio.Event()
    tasks = [
        asyncio.create_task(
            _probe(region["probes"][0]["ws"], found.setdefault(region["id"], _Samples()), samples, opened)
        )
        for region in regions
        if region.get("probes")
    ]
    if tasks:
        try:
            async with asyncio.timeout(connect_ms / 1000):
                await opened.wait()
            await asyncio.wait(tasks, timeout=budget_ms / 1000)
        except TimeoutError:
            pass
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    now = datetime.now(UTC).isoformat()
    measured = [
        Latency(name, min(s.rtts_ms), max(s.rtts_ms) - min(s.rtts_ms), 1 - len(s.rtts_ms) / s.sent, now)
        for name, s in found.items()
        if s.rtts_ms
    ]
    return sorted(measured, key=lambda m: m.rtt_ms)


async def _probe(url: str, into: _Samples, samples: int, opened: asyncio.Event) -> None:
    try:
        async with connect(url, open_timeout=5, ping_interval=None, compression=None, proxy=None) as socket:
            opened.set()
            for i in range(samples):
                began = time.perf_counter()
                into.sent += 1
                await socket.send(str(i))
                await socket.recv()
                into.rtts_ms.append((time.perf_counter() - began) * 1000)
    except (WebSocketException, OSError, TimeoutError):
        return
