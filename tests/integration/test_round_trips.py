"""Round trips and claims between instances, in more rows than one page has: none is passed over, and all that is old goes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg

from app.placement.claimed import PAGE as CLAIMS_PAGE
from app.placement.history import window_of
from app.placement.round_trips import PAGE, RoundTrips
from tests.support.api import Api, Project
from tests.support.fleet import add_region
from tests.support.placement import project_uuid

BURST = 2 * max(PAGE, CLAIMS_PAGE) + 500
PUT_VALUES = """
insert into vx.round_trips (network, region, window_n, rtt_ms, at)
select $1::bigint + n, 'us-east', $2::integer, 20, now() from generate_series(1, $3::integer) n
"""
PUT_CLAIMS = """
insert into vx.probes (project_id, network, region, rtt_ms, jitter_ms, loss, at, said_at)
select $1, n, 'us-east', 20, 0, 0, now(), now() - make_interval(secs => $3) from generate_series(1, $2::integer) n
"""
PUT_LEGS = """
insert into vx.legs (region, kind, target, rtt_ms, jitter_ms, loss, at)
select 'us-east', 'backend', 'bot-' || n || '.example:443', 20, 0, 0, now() from generate_series(1, $1::integer) n
"""


async def execute(api: Api, statement: str, *values: Any) -> None:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def count(api: Api, table: str, where: str, *values: Any) -> int:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        found: int = await connection.fetchval(f"select count(*) from vx.{table} where {where}", *values)
    finally:
        await connection.close()
    return found


def window_now(api: Api) -> int:
    return window_of(api.control.clock.now().timestamp())


async def test_a_burst_that_is_larger_than_a_page_is_learned_whole(api: Api) -> None:
    store, history, first = RoundTrips(api.control.db), api.control.learning.history, 1 << 40
    since = await store.now() - timedelta(seconds=1)
    # all of one moment, as one transaction writes them: only the rest of the key tells the pages apart
    await execute(api, PUT_VALUES, first, window_now(api), BURST)
    await api.control.learning.exchange(since)
    known = [first + n for n in range(1, BURST + 1) if history.recall(first + n, window_now(api))]
    assert len(known) == BURST


async def test_as_many_ways_as_a_burst_has_are_read_once_each(api: Api) -> None:
    await add_region(api, "us-east")
    store = RoundTrips(api.control.db)
    since = await store.now() - timedelta(seconds=1)
    await execute(api, PUT_LEGS, BURST)
    legs = [leg async for page in store.new_legs(since, await store.now()) for leg in page]
    assert len(legs) == len({leg.target for leg in legs}) == BURST


async def test_a_burst_of_claims_reaches_the_other_instances_whole(api: Api, project: Project) -> None:
    claimed, of = api.control.calls.placer.claimed, project_uuid(project)
    since = await RoundTrips(api.control.db).now() - timedelta(seconds=1)
    await execute(api, PUT_CLAIMS, of, BURST, 0.0)
    await claimed.read(since)
    now = api.control.clock.now()
    assert all(claimed.claims.recall(of, network, now) for network in range(1, BURST + 1))


async def test_what_is_too_old_goes_however_much_it_is(api: Api, project: Project) -> None:
    store, old = RoundTrips(api.control.db), window_now(api) - 1_000
    await execute(api, PUT_VALUES, 1 << 41, old, BURST)
    await store.forget(old + 1)
    assert await count(api, "round_trips", "window_n <= $1", old) == 0
    await execute(api, PUT_CLAIMS, project_uuid(project), BURST, 660.0)
    await api.control.calls.placer.claimed.forget()
    assert await count(api, "probes", "project_id = $1", project_uuid(project)) == 0


async def test_where_not_all_can_be_loaded_the_newest_hours_are(api: Api) -> None:
    newest = window_now(api) + 100_000  # beyond what other tests have written
    for back in range(4):
        await execute(api, PUT_VALUES, 1 << 42, newest - back, 500)

    async def windows(rows_max: int) -> list[int]:
        pages = RoundTrips(api.control.db, rows_max).all_values(newest - 3)
        return sorted({v.window for values in [page async for page in pages] for v in values})

    assert await windows(1_200) == [newest - 1, newest]
    assert await windows(5_000) == [newest - 3, newest - 2, newest - 1, newest]
    assert await windows(100) == [newest]
