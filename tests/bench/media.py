"""How soon the agent falls silent, when a turn ends, what the edge adds to audio, how many calls with voice activity a core carries.

Real edge processes and a client that speaks in real time. *Turns*: callers speak over an agent that never stops by itself, and then
say a sentence with pauses in it; the backend knows the text extension, and its frames say in their samples which they are. *Added*:
frames that say which they are, both ways, in calls that go on at the same time. *Capacity*: as `edge.calls_per_core`, with speech.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.bench import media_resume, media_rtc, media_words
from tests.bench.edge import LATE_MS, Ramp, apart, pin
from tests.bench.media_talk import Added, Bot, Talker, added
from tests.bench.report import Figure
from tests.bench.spoken import clips
from tests.bench.support import deployed, generator, quantile
from voxplane import AsyncClient

FAMILY = "media"
CALLS, ROUNDS, ROUNDS_FULL = 6, 4, 25
ADDED_CALLS, ADDED_S = 10, 12
BUFFERS_MS = (0, 60)


async def measure(*, full: bool) -> list[Figure]:
    with apart() as core:
        figures = await _turns(ROUNDS_FULL if full else ROUNDS, core)
    figures += [*await media_words.measure(), *await media_resume.measure(full=full)]
    figures += await media_rtc.measure(full=full)
    return [*figures, *([await _capacity()] if full else [])]


async def _turns(rounds: int, core: int) -> list[Figure]:
    what, spoken = clips()
    async with deployed(regions=1) as deployment, Bot().serve() as bot:
        (region,) = deployment.regions.values()
        pin(region.edge.pid, {core})
        _, key = await deployment.create_project("bench")
        async with AsyncClient(deployment.api_urls, key) as client:
            talkers = []
            for i in range(CALLS):
                call = await client.create_call(bot.url)
                buffer_ms = BUFFERS_MS[i % len(BUFFERS_MS)]
                talkers.append(Talker(call["attach"][0], call["ticket"], spoken, random.Random(i), buffer_ms))
            async with asyncio.TaskGroup() as group:
                for talker in talkers:
                    group.create_task(talker.run(rounds, bot))
            found = await _added(client, bot)
            memory_mb = _memory_mb(region.edge.pid)
    silent = [ms for t in talkers for ms in t.silent_after_ms]
    errors = [ms for t in talkers for ms in t.position_error_ms]
    ends = [ms for t in talkers for ms in t.turn_end_ms]
    splits, after = sum(t.splits for t in talkers), sum(t.after_clear for t in talkers)
    if after:
        raise RuntimeError(f"{after} frames of the agent came after a clear")
    print("  silent after, ms: " + " ".join(f"{ms:.0f}" for ms in sorted(silent)), flush=True)
    many = f"{what}, {len(silent)} interruptions"
    return [
        Figure(family=FAMILY, name="media.barge_in_ws_p95_ms", value=quantile(silent, 0.95), unit="ms",
               how=f"{many}; p50 {quantile(silent, 0.5):.0f}; no frame after the clear",
               target=100.0, at_most=True),
        Figure(family=FAMILY, name="media.position_error_ms", value=max(errors), unit="ms",
               how=f"the worst, of callers that play at once or 60 ms late; p50 {quantile(errors, 0.5):.0f}",
               target=20.0, at_most=True),
        Figure(family=FAMILY, name="media.end_of_turn_ms", value=quantile(ends, 0.95), unit="ms",
               how=f"p95 of {len(ends)} sentences with pauses of 150 and 300 ms; p50 {quantile(ends, 0.5):.0f}",
               target=350.0, at_most=True),
        Figure(family=FAMILY, name="media.split_sentences", value=splits, unit="",
               how=f"of {len(ends)}, {what}, taken for ended at such a pause", target=0.0, at_most=True),
        Figure(family=FAMILY, name="media.added_p99_ms", value=found.p99_ms - 20, unit="ms",
               how=f"one way beyond one frame, the worse direction; the client's own lag, p99: {quantile(found.lag_ms, 0.99):.1f} ms",
               target=10.0, at_most=True),
        Figure(family=FAMILY, name="edge.memory_mb", value=memory_mb, unit="MB",
               how=f"resident, after {CALLS + ADDED_CALLS} calls", target=150.0, at_most=True),
    ]  # fmt: skip


async def _added(client: AsyncClient, bot: Bot) -> Added:
    made = [await client.create_call(bot.url, turns={"mode": "off"}) for _ in range(ADDED_CALLS)]
    return await added([(call["attach"][0], call["ticket"]) for call in made], bot, ADDED_S)


def _memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


async def _capacity() -> Figure:
    with apart() as core:
        async with (
            deployed(regions=1, capacity_calls=600) as deployment,
            generator("tests.bench.media_load", "spoken") as load,
        ):
            (region,) = deployment.regions.values()
            pin(region.edge.pid, {core})
            _, key = await deployment.create_project("bench")
            agent = f"ws://127.0.0.1:{(await load.answer())['port']}/"
            async with AsyncClient(deployment.api_urls, key) as client:
                (known,) = await client.regions()
                http_url = known["probes"][0]["http"].removesuffix("/probe")
                ramp = Ramp(load, region, client, agent, http_url)
                best, over = await ramp.climb(fine_step=5)
                memory = f"{_memory_mb(region.edge.pid):.0f} MB with {ramp.calls}"
    if best is None:
        raise RuntimeError("not even the first step was carried")
    how = f"p99 ≤ {LATE_MS} ms, each speaks a third of the time; {best.cpu:.0%} of the core; {memory}"
    if over is not None and over.disturbed:
        how += f", DISTURBED: it waited {over.waited:.0%} of the time for its core"
    if over is not None and over.lag_ms > LATE_MS / 2:
        how += f", THE GENERATOR LAGS {over.lag_ms:.0f} ms"
    return Figure(
        family="edge", name="edge.vad_calls_per_core", value=best.calls, unit="calls", how=how, target=100.0
    )
