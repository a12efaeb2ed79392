"""A replay of a million events beside live deliveries: ``make bench ONLY=backlog``. How late are first attempts with it and without?

The backlog is written by SQL, as calls of two hours ago, and replayed to an endpoint of another project than the live one: what is
shared are the instances, the workers and the database. It runs for 100 s, not to its end: `how` says how many were sent
again meanwhile. BACKLOG=n writes another number of events.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx

from app.local.deployment import Deployment
from regions.wire import ids
from tests.bench.report import Figure
from tests.bench.support import Generator, deployed, generator

EVENTS = 1_000_000
EVENTS_PER_CALL = 10
CALLS_AT_ONCE = 5_000
PER_S = 50
NAMED_PER_S = 20
ENDPOINTS = 100
WINDOW_S = 10.0
WITHOUT, WITH = 4, 10

CALLS = """
insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by, seq,
                      feed_xid, request, placement, max_duration_s, created_at, ended_at, end_reason)
select vx.first_uuid_at($2::timestamptz + make_interval(secs => i / 1000.0)), $1, 'completed', 2, 1, '{}', '{}', $2, $2, $5, 1, '{}',
       '{}', 60, $2, $2, 'caller_hung_up' from generate_series($3::integer, $4::integer) i
"""
EVENTS_OF_CALLS = """
insert into vx.events (call_id, seq, project_id, id, type, epoch, source, region, at, data, hash, feed_xid, stored_at)
select vx.first_uuid_at($2::timestamptz + make_interval(secs => i / 1000.0)), s, $1, gen_random_uuid(), 'speech.started', 1, 'edge',
       'us-east', $2, '{"offset_ms": 1, "barge_in": false}', '\\x00', 1, $2
  from generate_series($3::integer, $4::integer) i, generate_series(1, $5::integer) s
"""


async def measure(*, full: bool) -> list[Figure]:
    events = int(os.environ.get("BACKLOG", "") or EVENTS)
    async with (
        generator("tests.bench.hook_receiver") as live,
        generator("tests.bench.hook_receiver") as again,
        deployed(regions=3, instances=2) as deployment,
    ):
        where, replayed_to = await live.answer(), await again.answer()
        hook, client = await _backlog(deployment, f"{replayed_to['url']}/again", events)
        async with aclosing(client):
            return await _compare(deployment, live, again, where["url"], client, hook, events)


async def _backlog(deployment: Deployment, url: str, events: int) -> tuple[str, httpx.AsyncClient]:
    name, key = await deployment.create_project("replayed")
    project = ids.decode(ids.PROJECT, name)
    began = time.monotonic()
    connection = await asyncpg.connect(deployment.database_url)
    try:
        at = datetime.now(UTC) - timedelta(hours=2)
        calls = max(1, events // EVENTS_PER_CALL)
        for first in range(0, calls, CALLS_AT_ONCE):
            upto = min(calls, first + CALLS_AT_ONCE) - 1
            for statement in (CALLS, EVENTS_OF_CALLS):
                await connection.execute(statement, project, at, first, upto, EVENTS_PER_CALL)
        await connection.execute("analyze vx.calls, vx.events")
        # what was just written goes to the disk now, and not while the live deliveries are measured
        await connection.execute("checkpoint")
    finally:
        await connection.close()
    print(f"  {calls * EVENTS_PER_CALL:,} events written in {time.monotonic() - began:.0f} s", flush=True)
    client = httpx.AsyncClient(
        base_url=deployment.api_urls[0], trust_env=False, headers={"Authorization": f"Bearer {key}"}
    )
    made = await client.post("/v1/webhooks", json={"url": url})
    made.raise_for_status()
    return str(made.json()["id"]), client


async def _compare(
    deployment: Deployment,
    live: Generator,
    again: Generator,
    url: str,
    client: httpx.AsyncClient,
    hook: str,
    events: int,
) -> list[Figure]:
    _, key = await deployment.create_project("live")
    port = deployment.api_urls[0].rpartition(":")[2]
    async with generator("tests.bench.paced_load", port, key, "16") as paced:

        async def window(per_s: int = PER_S) -> dict[str, Any]:
            await paced.ask({"per_s": per_s, "seconds": WINDOW_S, "urls": [[f"{url}/h", ENDPOINTS]]})
            await asyncio.sleep(0.5)
            return await live.ask({})

        # every URL is new once
        await window(NAMED_PER_S)
        without = [await window() for _ in range(WITHOUT)]
        since = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
        begun = await client.post(f"/v1/webhooks/{hook}/recover", json={"since": since})
        begun.raise_for_status()
        await again.ask({})
        began = time.monotonic()
        beside = [await window() for _ in range(WITH)]
        seconds = time.monotonic() - began
        sent = await again.ask({})
        state = (await client.get(f"/v1/webhooks/{hook}/replays/{begun.json()['id']}")).json()
    how = (
        f"{PER_S}/s live beside a replay of {events:,} events, {sent['count']:,} of them sent in {seconds:.0f} s"
        f" ({state['state']})"
    )
    middle = {
        f"{side}_{name}": statistics.median(w[name] for w in windows)
        for side, windows in (("without", without), ("beside", beside))
        for name in ("p50_ms", "p99_ms")
    }
    return [
        _figure("backlog_per_s", sent["count"] / seconds, "/s", how),
        _figure("backlog_p50_ms", middle["beside_p50_ms"], "ms", f"without: {middle['without_p50_ms']:.1f}"),
        _figure("backlog_p99_ms", middle["beside_p99_ms"], "ms", f"without: {middle['without_p99_ms']:.1f}"),
        _figure(
            "backlog_ratio",
            middle["beside_p99_ms"] / middle["without_p99_ms"],
            "×",
            f"p99 of first attempts, medians of {WITH} and {WITHOUT} windows of {WINDOW_S:g} s",
        ),
    ]


def _figure(name: str, value: float, unit: str, how: str) -> Figure:
    return Figure(family="webhooks", name=f"webhooks.{name}", value=value, unit=unit, how=how)
