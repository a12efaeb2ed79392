"""The list of a project's calls by each filter and by two together: the first page over HTTP, of 10⁶ calls (FULL=1: 10⁷) in 13 weeks.

The calls are written by SQL, in the shape of one that was created, with the states, numbers and metadata of a mixed day: what is
asked for is in nearly all of them, in some, in a few, or in none. All rows are of one project; one page is asked for at a time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from regions.wire import ids
from tests.bench.report import Figure

DAYS = 90
PER_BATCH = 125_000
HANDS = 2
ASKED_EACH = 200
PAGE = 50
SEARCHED = 5
"""Of the pairs without a call in common, those that are not half of all calls on both sides: a search of these takes minutes."""
TARGET_MS = 50.0

FILL = """
insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by,
  n, seq, feed_xid, region, edge_id, request, placement, metadata, max_duration_s, created_at, answered_at, ended_at, end_reason)
select (lpad(to_hex((extract(epoch from m.at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(i % 4096), 3, '0')
        || '8' || lpad(to_hex(i), 15, '0'))::uuid,
  c.project_id, m.state, 2, 1, c.grant_edges, c.grant_incarnations, m.at + interval '30 days', m.at, 0, 1, 1,
  m.region, c.edge_id,
  jsonb_set(c.request, '{caller}', jsonb_build_object(
    'kind', 'websocket', 'from', '+1415555' || 1000 + i % 20,
    'to', case when m.region = 'eu-west' and i % 20 <> 3 and m.draw % 2 = 0 then '+12065550100'
               else '+1206' || 6000000 + i % 99991 end)),
  c.placement, jsonb_build_object(
    'env', case when i % 100 = 1 then 'test' else 'prod' end,
    'tier', case when m.region = 'us-east' then 'gold' else 'silver' end,
    'campaign', case when i < $4 / 50 then 'launch' when m.region = 'us-east' and m.draw % 3 = 0 then 'spring'
                     else (i % 997)::text end,
    'customer', (i / 5)::text),
  3600, m.at, m.at, case when m.state <> 'in_progress' then m.at + interval '2 minutes' end, 'caller_hung_up'
from vx.calls c cross join generate_series($2::bigint, $3::bigint) i cross join lateral (
  select r.at, r.region, r.draw, case
      when $4 - i < 1000 then 'in_progress' when i < $4 / 100 and i % 10 = 7 then 'canceled' when i % 1000 = 13 then 'busy'
      when r.region = 'us-east' and r.draw % 25 = 0 then 'failed' when r.region = 'eu-west' and i % 8 = 1 then 'no_answer'
      else 'completed' end as state
    from (select now() - ($4::bigint - i) * $5::interval / $4 as at, d.draw, case
              when i % 100000 = 7 then 'ap-south' when i < $4 / 3 and d.draw % 5 = 4 then 'sa-east'
              when d.draw % 10 < 6 then 'us-east' else 'eu-west' end as region
            from (select (i * 2654435761 % 4294967296 / 65536)::integer as draw) d) r) m
where c.id = $1
"""
"""Drawn and yet the same each time. What is common and never together: `failed` and eu-west, `no_answer` and us-east, us-east and
tier=silver, tier=silver and campaign=spring, the big number and us-east or the caller 1003, `busy` and every caller but 1013.
What is only among the oldest: canceled (and never env=test), sa-east, campaign=launch. No call has more events than one, and no
grant is over: the log of a call that is alive would else be looked for, for its tails, every few seconds, where there is none."""
LABEL = """
insert into vx.call_labels (label, call_id, project_id)
select vx.label_of(c.project_id, m.key, m.value), c.id, c.project_id from vx.calls c cross join lateral jsonb_each_text(c.metadata) m
 where c.id >= $1 and c.id < $2
"""
INDEXES = """
select indexname, indexdef from pg_indexes where schemaname = 'vx' and tablename = 'calls' and indexname <> 'calls_pkey'
"""
PARTITIONS = """
select i.inhrelid::regclass::text from pg_inherits i where i.inhparent = any(array['vx.calls'::regclass, 'vx.call_labels'::regclass])
"""


async def measure(*, full: bool) -> list[Figure]:
    return await _measure(10_000_000) if full else []


async def _measure(calls: int) -> list[Figure]:
    folder = temporary_folder("voxplane-bench")
    try:
        async with Deployment(folder, places=PLACES[:3], fsync=False) as deployment:
            _, key = await deployment.create_project("bench")
            async with httpx.AsyncClient(
                base_url=deployment.api_urls[0],
                headers={"Authorization": f"Bearer {key}"},
                trust_env=False,
                timeout=30,
            ) as client:
                await _fill(deployment.database_url, await _one(client), calls)
                return await _ask(client, calls)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _one(client: httpx.AsyncClient) -> str:
    made = await client.post(
        "/v1/calls", json={"agent": {"url": "ws://127.0.0.1:9/"}}, headers={"Idempotency-Key": str(uuid4())}
    )
    made.raise_for_status()
    return str(made.json()["id"])


async def _fill(url: str, model: str, calls: int) -> None:
    """Without indexes, which are made at the end as they were, and without a log of what is written: a table is read the same way
    whether a crash would empty it or not. On two connections."""
    call, span = ids.decode(ids.CALL, model), timedelta(days=DAYS)
    async with AsyncExitStack() as stack:
        hands = [await stack.enter_async_context(_hand(url)) for _ in range(HANDS)]
        first = hands[0]
        await first.execute("select vx.ensure_partitions(now() - $1::interval, 16)", span + timedelta(days=7))
        for (name,) in await first.fetch(PARTITIONS):
            await first.execute(f"alter table {name} set unlogged")
        began = time.monotonic()
        indexes = await first.fetch(INDEXES)
        for name, _ in indexes:
            await first.execute(f"drop index vx.{name}")
        await first.execute("alter table vx.call_labels drop constraint call_labels_pkey")
        batches = [
            (FILL, (call, n, min(n + PER_BATCH - 1, calls), calls, span))
            for n in range(1, calls + 1, PER_BATCH)
        ]
        await _share(hands, batches)
        print(f"  {calls:,} calls written in {time.monotonic() - began:.0f} s", flush=True)
        end = datetime.now(UTC)
        weeks = [end - timedelta(days=7 * n) for n in range(14, -1, -1)]
        bounds = [await first.fetchval("select vx.first_uuid_at($1)", at) for at in weeks]
        await _share(hands, [(LABEL, pair) for pair in pairwise(bounds)])
        print(f"  and their labels in {time.monotonic() - began:.0f} s", flush=True)
        key = "alter table vx.call_labels add primary key (label, call_id) include (project_id)"
        orders = [text.replace(" ON ONLY ", " ON ") for _, text in indexes]
        await _share(hands, [(order, ()) for order in [key, *orders]])
        await _share(hands, [("vacuum analyze vx.call_labels", ()), ("vacuum analyze vx.calls", ())])
        # what was written so fast is on the disk before anybody asks: a page that waits for its turn there is another figure
        await first.execute("checkpoint", timeout=900)
        await asyncio.to_thread(os.sync)
        print(f"  and their indexes in {time.monotonic() - began:.0f} s", flush=True)


@asynccontextmanager
async def _hand(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "set synchronous_commit = off; set maintenance_work_mem = '512MB'; set max_parallel_maintenance_workers = 0"
        )
        yield connection
    finally:
        await connection.close()


async def _share(hands: list[asyncpg.Connection[Any]], orders: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Each takes the next order when it has done one."""
    left = iter(orders)

    async def work(hand: asyncpg.Connection[Any]) -> None:
        for text, values in left:
            await hand.execute(text, *values, timeout=900)

    await asyncio.gather(*(work(hand) for hand in hands))


def _wanted(calls: int) -> list[dict[str, str]]:
    def ago(days: int) -> str:
        return (datetime.now(UTC) - timedelta(days=days)).isoformat()

    prod, spring, launch = (
        {"metadata.env": "prod"},
        {"metadata.campaign": "spring"},
        {"metadata.campaign": "launch"},
    )
    customer = {"metadata.customer": str(calls // 3 // 5)}
    big, small = {"to": "+12065550100"}, {"to": "+12066000004"}
    busy_from, other_from = {"from": "+14155551013"}, {"from": "+14155551003"}
    us, eu, rare, gone, none = (
        {"region": r} for r in ("us-east", "eu-west", "ap-south", "sa-east", "mars-north")
    )
    single: list[dict[str, str]] = [
        {},
        *({"state": s} for s in ("queued", "in_progress", "completed", "failed", "busy", "canceled")),
        *(us, rare, gone, none),
        {"created_after": ago(3)},
        {"created_before": ago(60)},
        {"created_after": ago(31), "created_before": ago(30)},
        *(big, small, {"to": "+12066999999"}, other_from),
        *(
            prod,
            {"metadata.env": "test"},
            {"metadata.campaign": "13"},
            launch,
            customer,
            {"metadata.customer": "nobody"},
        ),
    ]
    pairs: list[dict[str, str]] = [
        *({"state": "busy"} | other for other in (rare, prod, busy_from, big)),
        *({"state": "completed"} | other for other in (launch, gone, eu, small, {"metadata.campaign": "13"})),
        *({"state": "failed"} | other for other in (us, prod, customer)),
        *({"state": "canceled"} | other for other in (prod, gone, {"created_after": ago(30)})),
        *({"state": "in_progress"} | other for other in (us, rare, customer)),
        *(
            prod | other
            for other in (rare, other_from, launch, customer, spring, big, {"created_before": ago(60)})
        ),
        *(us | spring, eu | big, gone | launch, none | other_from, rare | launch),
        *(other_from | small, small | {"metadata.campaign": "13"}, small | {"created_after": ago(2)}),
        *({"created_before": ago(60)} | other for other in ({"state": "busy"}, rare, gone)),
    ]
    return single + pairs + [*_never(), _never()[0] | prod]


def _never() -> list[dict[str, str]]:
    """Pairs without a call in common, each of them common."""
    us, silver, big = {"region": "us-east"}, {"metadata.tier": "silver"}, {"to": "+12065550100"}
    return [
        us | silver,
        silver | {"metadata.campaign": "spring"},
        us | big,
        big | {"metadata.campaign": "spring"},
        big | {"from": "+14155551003"},
        us | {"state": "no_answer"},
        {"state": "failed", "region": "eu-west"},
        {"state": "no_answer", "metadata.tier": "gold"},
        {"state": "failed", "metadata.tier": "silver"},
        {"state": "busy", "from": "+14155551003"},
        {"state": "canceled", "metadata.env": "test"},
    ]


async def _ask(client: httpx.AsyncClient, calls: int) -> list[Figure]:
    found: dict[str, list[float]] = {}
    asked, short = _wanted(calls), set[str]()
    gc.collect()
    gc.freeze()  # or whoever asks looks at all that it has imported, now and then, while a page is on its way
    for round_ in range(ASKED_EACH + 1):
        for wanted in asked:
            began = time.perf_counter()
            page = await _page(client, wanted)
            took_ms = (time.perf_counter() - began) * 1000
            if round_:  # the first fills the caches
                found.setdefault(_named(wanted), []).append(took_ms)
                short |= {_named(wanted)} if page["next_cursor"] and len(page["data"]) < PAGE else set()
    by_p99 = sorted(((_p99(times), name) for name, times in found.items()), reverse=True)
    for p99, name in by_p99:
        mark = "short" if name in short else ""
        print(
            f"  {p99:7.1f} ms  {statistics.median(found[name]):7.1f} ms in the middle  {name}  {mark}",
            flush=True,
        )
    everything: list[float] = [ms for times in found.values() for ms in times]
    searches = [(await _searched_s(client, wanted), _named(wanted)) for wanted in _never()[-SEARCHED:]]
    for took_s, name in searches:
        print(f"  {took_s:7.2f} s   until it is known that there is none  {name}", flush=True)
    return [
        Figure(
            family="admin",
            name="calls_list.p99_ms",
            value=by_p99[0][0],
            unit="ms",
            how=f"first page of {calls:,} calls over HTTP, the slowest of {len(by_p99)} filters and pairs ({by_p99[0][1]});"
            f" all together p99 {_p99(everything):.1f} ms; {len(short)} pairs look on in a second page",
            target=TARGET_MS,
            at_most=True,
        ),
        Figure(
            family="admin",
            name="calls_list.search_s",
            value=max(searches)[0],
            unit="s",
            how=f"page after page to the end, the slowest of {len(searches)} pairs without a call in common ({max(searches)[1]})",
        ),
    ]


async def _page(client: httpx.AsyncClient, wanted: dict[str, str]) -> dict[str, Any]:
    answer = await client.get("/v1/calls", params=wanted)
    assert answer.status_code == 200, f"{wanted}: {answer.text}"
    page: dict[str, Any] = answer.json()
    return page


async def _searched_s(client: httpx.AsyncClient, wanted: dict[str, str]) -> float:
    began, page = time.perf_counter(), await _page(client, wanted)
    while page["next_cursor"]:
        assert not page["data"], "there is one after all"
        page = await _page(client, wanted | {"cursor": page["next_cursor"]})
    return time.perf_counter() - began


def _named(wanted: dict[str, str]) -> str:
    return " + ".join(f"{k}={v}" for k, v in wanted.items()) or "none"


def _p99(times: list[float]) -> float:
    ordered: list[Any] = sorted(times)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))])
