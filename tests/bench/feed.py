"""How soon readers hear: 1,000 streams over 100 projects of one instance, while 100 events a second become durable in all.

An edge's uplink writes them, round the projects; each bears the time at which it happened, so what is measured includes its way
into the log. The database, the edge and the readers share the machine. Also: what a reader costs in memory.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from app.local.deployment import Deployment
from tests.bench.report import Figure
from tests.bench.scripted import placed, uplink
from tests.bench.support import cpu_s, deployed, generator, idle

PROJECTS = 100
READERS_EACH = 10
PER_S = 100
SECONDS = 15.0
AT_ONCE = 10


async def measure(*, full: bool) -> list[Figure]:
    seconds = SECONDS * (4 if full else 1)
    async with deployed(regions=2) as deployment, uplink(deployment) as edge:
        keys = await projects(deployment)
        calls = [call for key in keys for call in await placed(deployment, key, edge.id, 1)]
        await edge.load.tell({"calls": calls})
        api = urlsplit(deployment.api_urls[0])
        (pid,) = (a.pid for a in deployment.apis)
        await idle([pid])
        before = resident_bytes(pid)
        async with generator("tests.bench.feed_load", str(api.hostname), str(api.port)) as readers:
            await readers.ask({"keys": keys, "each": READERS_EACH})
            await idle([pid])
            each_kib = (resident_bytes(pid) - before) / (PROJECTS * READERS_EACH) / 1024
            used_s = cpu_s([pid])
            wrote = await edge.load.ask({"per_s": PER_S, "seconds": seconds})
            used_s = cpu_s([pid]) - used_s
            heard = await readers.ask({"heard": wrote["events"] * READERS_EACH})
            each_after_kib = (resident_bytes(pid) - before) / (PROJECTS * READERS_EACH) / 1024
    if heard["heard"] != wrote["events"] * READERS_EACH:
        raise RuntimeError(f"{wrote['events']} events are durable, the readers have {heard['heard']} in all")
    who = f"{PROJECTS * READERS_EACH:,} streams over {PROJECTS} projects"
    return [
        Figure(family="feed", name="feed.p99_ms", value=heard["p99_ms"], unit="ms", at_most=True, target=100.0,
               how=f"happened to heard, {PER_S} events/s in all, {who}, p50 {heard['p50_ms']:.0f}"),
        Figure(family="feed", name="feed.reader_kib", value=max(each_kib, each_after_kib), unit="KiB", at_most=True,
               how=f"resident memory of the instance for each of {who}"),
        Figure(family="feed", name="feed.core_share", value=used_s / wrote["seconds"], unit="core", at_most=True,
               how=f"of the instance, {PER_S * READERS_EACH:,} events/s to readers"),
    ]  # fmt: skip


async def projects(deployment: Deployment) -> list[str]:
    """Their keys."""
    keys: list[str] = []
    for i in range(0, PROJECTS, AT_ONCE):
        made = [deployment.create_project(f"feed {i + n}") for n in range(AT_ONCE)]
        keys += [key for _, key in await asyncio.gather(*made)]
    return keys


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")
