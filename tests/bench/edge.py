"""How many calls one core carries: the largest number at which 99 of 100 turns begin at most 10 ms after they are due.

The edge has one core, everything else of ours the others: the load generator, the control plane, the engines. Calls are
added until the edge is late twice in a row, then in smaller steps from the last number that was good. A machine that runs
something else on the edge's core shows in how long the edge waited for it, and such a measurement is repeated. How late is
counted by the edge itself, turn by turn (`voxplane_edge_turns_total`), and cross-checked at the callers by the gaps between
frames. A step counts only where every single caller and every single backend was given (nearly) all of the other's audio.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.local.deployment import RegionUp
from tests.bench.report import Figure
from tests.bench.support import Generator, cpu_s, deployed, generator
from voxplane import AsyncClient

CALLS_MAX, STEP, FINE_STEP = 300, 20, 5
SETTLE_S, MEASURE_S = 1.5, 4.0
LATE_MS, LATE_SHARE = 10, 0.01
TRIES, TRIES_DISTURBED, WAITED_MAX = 2, 4, 0.05
FRAMES_PER_S_MIN = 47.5
"""Of 50."""


@dataclass(frozen=True, slots=True)
class Step:
    """One number of calls. `late`: the share of turns that began later than 10 ms. `p99_ms`: the bucket it lies in.
    `cpu`, `waited`: of the edge, shares of the time: running, and ready to run while another process had its core.
    `lag_ms`: of the load generator, its 99th percentile."""

    calls: int
    late: float
    p99_ms: str
    cpu: float
    waited: float
    jitter_ms: float
    lag_ms: float
    frames_per_s: float
    cleared: int

    @property
    def good(self) -> bool:
        return self.late <= LATE_SHARE and self.frames_per_s >= FRAMES_PER_S_MIN

    @property
    def disturbed(self) -> bool:
        return self.waited > WAITED_MAX

    def __str__(self) -> str:
        return (
            f"{self.calls:4} calls: {self.late:7.2%} late, p99 {self.p99_ms:>6} ms, "
            f"edge runs {self.cpu:4.0%} and waits {self.waited:3.0%}, "
            f"callers' jitter p99 {self.jitter_ms:5.1f} ms, generator's lag p99 {self.lag_ms:5.1f} ms, "
            f"least {self.frames_per_s:.1f} frames/s, {self.cleared} interruptions"
        )


async def measure(*, full: bool) -> list[Figure]:
    with apart() as core:
        async with (
            deployed(regions=1, capacity_calls=2 * CALLS_MAX) as deployment,
            generator("tests.bench.media_load") as load,
        ):
            (region,) = deployment.regions.values()
            pin(region.edge.pid, {core})
            _, key = await deployment.create_project("bench")
            agent = f"ws://127.0.0.1:{(await load.answer())['port']}/"
            async with AsyncClient(deployment.api_urls, key) as client:
                (known,) = await client.regions()
                http_url = known["probes"][0]["http"].removesuffix("/probe")
                ramp = Ramp(load, region, client, agent, http_url)
                best, over = await ramp.climb(fine_step=1 if full else FINE_STEP)
    if best is None:
        raise RuntimeError(f"not even {STEP} calls were carried")
    how = f"p99 ≤ {LATE_MS} ms at the edge's pacer; callers' jitter {best.jitter_ms:.0f} ms"
    if over is not None:
        how += f"; at {over.calls} {over.late:.1%} late with {over.cpu:.0%} of the core"
        if over.disturbed:
            how += f", DISTURBED: it waited {over.waited:.0%} of the time for its core"
        if over.lag_ms > LATE_MS / 2:
            how += f", THE GENERATOR LAGS {over.lag_ms:.0f} ms"
    return [
        Figure(family="edge", name="edge.calls_per_core", value=best.calls, unit="calls", how=how, target=50.0),
        Figure(family="edge", name="edge.cpu_us_per_turn", value=best.cpu * 1e6 / (50 * best.calls), unit="µs",
               how="of the edge's processor time, for 20 ms of a call in both directions"),
    ]  # fmt: skip


@dataclass(slots=True)
class Ramp:
    load: Generator
    region: RegionUp
    client: AsyncClient
    agent: str
    http_url: str
    calls: int = 0

    async def climb(self, fine_step: int) -> tuple[Step | None, Step | None]:
        """The best step that was good, and the first that was not."""
        best, over = await self._up(None, STEP)
        if over is not None and best is not None:
            fine, finer_over = await self._up(best, fine_step, below=over.calls)
            best, over = fine or best, finer_over or over
        return best, over

    async def _up(
        self, best: Step | None, step: int, below: int = CALLS_MAX + 1
    ) -> tuple[Step | None, Step | None]:
        wanted = (best.calls if best is not None else 0) + step
        while wanted < below:
            await self._carry(wanted)
            found = await self._measured()
            tries = 1
            while not found.good and tries < (TRIES_DISTURBED if found.disturbed else TRIES):
                found = await self._measured()
                tries += 1
            print(f"  {found}", flush=True)
            if not found.good:
                return best, found
            best, wanted = found, wanted + step
        return best, None

    async def _carry(self, calls: int) -> None:
        if calls < self.calls:
            await self.load.ask({"hang_up": self.calls - calls})
        elif calls > self.calls:
            # a caller that silences its agent would be given less than all of it
            turns = {"barge_in": "off"}
            made = [await self.client.create_call(self.agent, turns=turns) for _ in range(calls - self.calls)]
            await self.load.ask({"attach": [(call["attach"][0], call["ticket"]) for call in made]})
        self.calls = calls
        await asyncio.sleep(SETTLE_S)

    async def _measured(self) -> Step:
        async with httpx.AsyncClient(base_url=self.http_url, trust_env=False) as client:
            pid = self.region.edge.pid
            before, cpu_before, waited_before = await turns(client), cpu_s([pid]), waited_s(pid)
            found = await self.load.ask({"measure": MEASURE_S})
            after, cpu, waited = await turns(client), cpu_s([pid]) - cpu_before, waited_s(pid) - waited_before
        new = {bound: after[bound] - before[bound] for bound in after}
        total = new["+Inf"]
        return Step(
            calls=found["calls"],
            late=1 - new[str(LATE_MS)] / total,
            p99_ms=next(f"≤ {bound}" for bound, count in new.items() if count >= (1 - LATE_SHARE) * total),
            cpu=cpu / MEASURE_S,
            waited=waited / MEASURE_S,
            jitter_ms=found["jitter_p99_ms"],
            lag_ms=found["lag_p99_ms"],
            frames_per_s=min(found["to_caller_per_s"], found["to_backend_per_s"]),
            cleared=found["cleared"],
        )


async def turns(client: httpx.AsyncClient) -> dict[str, int]:
    """How many turns began at most so many milliseconds late, since the edge has started."""
    text = (await client.get("/metrics")).text
    return {b: int(n) for b, n in re.findall(r'voxplane_edge_turns_total\{late_ms_max="(.+?)"\} (\d+)', text)}


def waited_s(pid: int) -> float:
    """How long the main thread of this process was ready to run and did not; 0 where the kernel does not count it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


@contextmanager
def apart() -> Iterator[int]:
    """A core for the edge alone: this process, and what it starts, keep to the others."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        raise RuntimeError("the edge and its load need a core each")
    core = max(cores)
    pin(os.getpid(), cores - {core})
    try:
        yield core
    finally:
        pin(os.getpid(), cores)


def pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)
