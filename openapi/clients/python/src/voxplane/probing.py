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


LATE = 3.0
"""A sample counts as lost once it has been out for so many times the region's least round trip."""


@dataclass(slots=True)
class Samples:
    """What one region has answered. `out_since_ms`: when the sample that is still out was sent."""

    rtts_ms: list[float] = field(default_factory=list)
    out_since_ms: float | None = None

    def loss(self, now_ms: float) -> float:
        """Share that did not come back; what may still come back is neither."""
        late = self.out_since_ms is not None and now_ms - self.out_since_ms > LATE * min(self.rtts_ms)
        return late / (len(self.rtts_ms) + late)


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
    found: dict[str, Samples] = {}
    opened = asyncio.Event()
    tasks = [
        asyncio.create_task(
            _probe(region["probes"][0]["ws"], found.setdefault(region["id"], Samples()), samples, opened)
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
    now, now_ms = datetime.now(UTC).isoformat(), _now_ms()
    measured = [
        Latency(name, min(s.rtts_ms), max(s.rtts_ms) - min(s.rtts_ms), s.loss(now_ms), now)
        for name, s in found.items()
        if s.rtts_ms
    ]
    return sorted(measured, key=lambda m: m.rtt_ms)


async def _probe(url: str, into: Samples, samples: int, opened: asyncio.Event) -> None:
    try:
        async with connect(url, open_timeout=5, ping_interval=None, compression=None, proxy=None) as socket:
            opened.set()
            for i in range(samples):
                into.out_since_ms = began_ms = _now_ms()
                await socket.send(str(i))
                await socket.recv()
                into.out_since_ms = None
                into.rtts_ms.append(_now_ms() - began_ms)
    except (WebSocketException, OSError, TimeoutError):
        return


def _now_ms() -> float:
    return time.perf_counter() * 1000
