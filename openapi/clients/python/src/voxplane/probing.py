"""Measures the round trip to regions, in parallel, on the path the audio will take.

Decides how many samples whom, and what counts as lost; which regions are worth it is the caller's, or `prober`'s. Every region
gets one sample; what comes back first is nearest, and the nearest few get more that overlap, so that a budget of 300 ms holds
several even where one takes 80. Where the edge speaks ``voxplane.probe.v1`` each echo is answered at once with its nonce, by which
the edge measures as well. A clock that is set meanwhile changes no round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from voxplane import trust

BUDGET_MS = 300
CONNECT_MS = 2_000
SAMPLES = 8
"""For each of the most promising."""
SAMPLES_FAR = 3
PROMISING = 3
AT_ONCE = 3
"""Samples of one region under way at the same time."""
SPACING_S = 0.012
FIRST_MAX = 4
REGIONS_MAX = 32
EDGES_MAX = 2
"""So many edges of a region are tried, where the first does not let us in."""
PROBE_PROTOCOL = Subprotocol("voxplane.probe.v1")
MESSAGE_BYTES_MAX = 256
LATE = 3.0
"""A sample counts as lost once it has been out for so many times the region's least round trip."""


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
class Samples:
    """What one region has answered. `out_ms`: the samples that are still out, and when each was sent."""

    rtts_ms: list[float] = field(default_factory=list)
    out_ms: dict[str, float] = field(default_factory=dict)

    def loss(self, now_ms: float) -> float:
        """Share that did not come back; what may still come back is neither."""
        late = sum(now_ms - sent_ms > LATE * min(self.rtts_ms) for sent_ms in self.out_ms.values())
        return late / (len(self.rtts_ms) + late)


async def probe_regions(
    regions: Iterable[dict[str, Any]],
    *,
    first: list[str] | None = None,
    samples: int = SAMPLES,
    budget_ms: float = BUDGET_MS,
    connect_ms: float = CONNECT_MS,
) -> list[Latency]:
    """What has come back within `budget_ms` after the first socket stood open (`connect_ms` for that); nearest first.

    `regions` as `GET /v1/regions` lists them. `first`: measure these alone, `FIRST_MAX` at most, in this order of interest; else
    all, `REGIONS_MAX` at most. Regions that did not answer are left out; no socket outlives the call, also where it is cancelled.
    """
    race = _Race(samples)
    tasks = [asyncio.create_task(race.probe(region)) for region in chosen(regions, first)]
    try:
        if tasks and await _within(connect_ms, race.opened.wait()):
            await asyncio.wait(tasks, timeout=budget_ms / 1000)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    now, now_ms = datetime.now(UTC).isoformat(), _now_ms()
    measured = [
        Latency(name, min(s.rtts_ms), max(s.rtts_ms) - min(s.rtts_ms), s.loss(now_ms), now)
        for name, s in race.found.items()
        if s.rtts_ms
    ]
    return sorted(measured, key=lambda m: m.rtt_ms)


def chosen(regions: Iterable[dict[str, Any]], first: list[str] | None) -> list[dict[str, Any]]:
    """The regions to measure: those with somewhere to send a probe to, each once."""
    by_name = {region["id"]: region for region in regions if region.get("probes")}
    if first is None:
        return list(by_name.values())[:REGIONS_MAX]
    return [by_name[name] for name in dict.fromkeys(first) if name in by_name][:FIRST_MAX]


class _Race:
    """All regions that are measured together: who is among the nearest is seen from the others."""

    def __init__(self, samples: int) -> None:
        self._samples = max(1, samples)
        self.opened = asyncio.Event()
        self.found: dict[str, Samples] = {}

    async def probe(self, region: dict[str, Any]) -> None:
        into = self.found.setdefault(region["id"], Samples())
        for target in region["probes"][:EDGES_MAX]:
            try:
                await self._probe(target["ws"], into)
            except (WebSocketException, OSError, TimeoutError, ValueError):
                into.out_ms.clear()
            if into.rtts_ms:
                return

    async def _probe(self, url: str, into: Samples) -> None:
        async with connect(
            url, open_timeout=5, ping_interval=None, compression=None, proxy=None, max_size=MESSAGE_BYTES_MAX,
            subprotocols=[PROBE_PROTOCOL], **trust.secured(url),
        ) as socket:  # fmt: skip
            self.opened.set()
            chains: set[asyncio.Task[None]] = set()
            try:
                await self._exchange(socket, into, chains)
            finally:
                for chain in chains:
                    chain.cancel()
                # a peer that hangs is not waited for
                socket.transport.abort()

    async def _exchange(self, socket: ClientConnection, into: Samples, more: set[asyncio.Task[None]]) -> None:
        """Each echo that comes back sends the next sample on its way; a promising region gets more beside it."""
        sent, wanted = 1, 1
        await _send(socket, into, "0", "")
        while into.out_ms:
            number, _, nonce = str(await socket.recv()).partition(" ")
            sent_ms = into.out_ms.pop(number, None)
            if sent_ms is None:
                continue
            into.rtts_ms.append(_now_ms() - sent_ms)
            near = self._is_promising(into)
            wanted = max(wanted, self._samples if near else min(SAMPLES_FAR, self._samples))
            if sent < wanted:
                await _send(socket, into, str(sent), nonce)
                sent += 1
            elif nonce:
                # this side has enough; the other has not seen how long it took
                await socket.send(f"z {nonce}")
            beside = min(AT_ONCE - len(into.out_ms), wanted - sent) if near else 0
            for i in range(max(0, beside)):
                # they are counted as out from the beginning, so that nobody leaves before them
                into.out_ms[str(sent)] = _now_ms() + (i + 1) * SPACING_S * 1000
                more.add(asyncio.create_task(_send_later(socket, into, str(sent), (i + 1) * SPACING_S)))
                sent += 1

    def _is_promising(self, mine: Samples) -> bool:
        """Among the `PROMISING` least of those that have answered so far."""
        least_ms = min(mine.rtts_ms)
        nearer = sum(
            s is not mine and bool(s.rtts_ms) and min(s.rtts_ms) < least_ms for s in self.found.values()
        )
        return nearer < PROMISING


async def _send(socket: ClientConnection, into: Samples, number: str, nonce: str) -> None:
    into.out_ms[number] = _now_ms()
    await socket.send(f"{number} {nonce}" if nonce else number)


async def _send_later(socket: ClientConnection, into: Samples, number: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    try:
        await _send(socket, into, number, "")
    except WebSocketException:
        return


async def _within(limit_ms: float, work: Any) -> bool:
    try:
        async with asyncio.timeout(limit_ms / 1000):
            await work
    except TimeoutError:
        return False
    return True


def _now_ms() -> float:
    return time.perf_counter() * 1000
