"""What projects claim of their callers' round trips: for whom it counts, for how long, and what is asked for next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest_asyncio

from app.placement.service import PROBES_BURST
from tests.support.api import Api, Project, problem
from tests.support.placement import (
    REGIONS,
    another_instance,
    exchange,
    learned,
    preview,
    probes,
    project_uuid,
    region_of,
    rows,
    six_regions,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await six_regions(api)


@pytest_asyncio.fixture(loop_scope="module")
async def second(api: Api) -> AsyncIterator[Api]:
    async with another_instance(api) as served:
        yield served


async def test_a_claim_counts_for_its_own_project_and_for_nobody_else(
    api: Api, second: Api, project: Project
) -> None:
    await learned(api, "198.51.104.0/24", eu_west=20.0, us_east=80.0)
    claimed = await probes(project.client, "198.51.104.66", us_east=2.0, eu_west=400.0)
    assert claimed.status_code == 200, claimed.text
    assert claimed.json()["network"] == "198.51.104.0/24"
    assert claimed.json()["estimates"][0] == {
        "region": "us-east",
        "rtt_ms": 2.0,
        "source": "measured",
        "confidence": 1.0,
    }
    assert await region_of(project.client, "198.51.104.1") == "us-east"
    theirs = await api.project()
    assert await region_of(theirs.client, "198.51.104.1") == "eu-west"
    await exchange(second)
    assert await region_of(await second.client(project.key), "198.51.104.1") == "us-east"
    assert await region_of(await second.client(theirs.key), "198.51.104.1") == "eu-west"


async def test_a_claim_from_two_minutes_ago_reaches_the_other_instance_and_an_older_one_changes_nothing(
    api: Api, second: Api, project: Project
) -> None:
    now = datetime.now(UTC)
    asked = {
        "address": "198.51.105.1",
        "latencies": [
            {"region": "eu-west", "rtt_ms": 3, "at": (now - timedelta(seconds=120)).isoformat()},
            {"region": "eu-west", "rtt_ms": 500, "at": (now - timedelta(seconds=150)).isoformat()},
            {"region": "us-east", "rtt_ms": 1, "at": (now - timedelta(hours=1)).isoformat()},
            {"region": "us-west", "rtt_ms": 1, "at": "0001-01-01T00:00:00+14:00"},
        ],
    }
    assert (await project.client.post("/v1/probes", json=asked)).status_code == 200
    asked["latencies"] = [
        {"region": "eu-west", "rtt_ms": 900, "at": (now - timedelta(seconds=180)).isoformat()}
    ]
    assert (await project.client.post("/v1/probes", json=asked)).status_code == 200
    stored = await rows(
        api, "select region, rtt_ms from vx.probes where project_id = $1", project_uuid(project)
    )
    assert [tuple(r) for r in stored] == [("eu-west", 3.0)]
    await exchange(second)
    assert await region_of(await second.client(project.key), "198.51.105.9") == "eu-west"


async def test_without_an_address_nothing_is_kept_and_the_caller_is_answered(
    api: Api, project: Project
) -> None:
    for address in (None, "10.1.2.3", "127.0.0.1", "fe80::1"):
        answer = (await probes(project.client, address, eu_west=7.0)).json()
        assert answer["network"] is None
        assert answer["estimates"][0]["region"] == "eu-west"
    assert await rows(api, "select from vx.probes where project_id = $1", project_uuid(project)) == []


async def test_probes_are_suggested_in_rounds(api: Api, project: Project) -> None:
    first = (await probes(project.client, "198.51.106.1")).json()
    assert set(first["probe_next"]) == set(REGIONS)  # nothing is known of anybody: all of them, once
    assert first["ttl_s"] > 0
    answered = dict.fromkeys((r.replace("-", "_") for r in first["probe_next"]), 50.0)
    assert (await probes(project.client, "198.51.106.1", **answered)).json()["probe_next"] == []
    await learned(api, "198.51.107.0/24", eu_west=10.0, eu_north=15.0, us_east=90.0, ap_south=150.0)
    seen = (await probes(project.client, "198.51.107.1")).json()["probe_next"]
    assert set(seen) == {"eu-west", "eu-north"}
    done = await probes(project.client, "198.51.107.1", eu_west=11.0, eu_north=14.0)
    assert done.json()["probe_next"] == []


async def test_a_region_that_takes_no_calls_is_not_worth_a_probe(api: Api, project: Project) -> None:
    await api.operator.post("/admin/v1/regions/ap-east/cordon")
    try:
        assert "ap-east" not in (await probes(project.client)).json()["probe_next"]
    finally:
        await api.operator.post("/admin/v1/regions/ap-east/uncordon")


async def test_a_flood_of_probes_is_told_when_to_go_on(api: Api) -> None:
    flooding, other = await api.project(), await api.project()
    assert (await probes(flooding.client)).status_code == 200
    asked, ahead_s = api.control.calls.placer.asked, api.control.clock.monotonic_s() + 60
    assert sum(asked.take(project_uuid(flooding), ahead_s) for _ in range(2 * PROBES_BURST)) == PROBES_BURST
    refused = await probes(flooding.client, "198.51.113.1", us_east=1.0)
    assert problem(refused) == (429, "quota_exceeded")
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit"] == '"probes";r=0;t=1'
    assert refused.headers["ratelimit-policy"] == '"probes";q=200;w=2'
    assert await rows(api, "select from vx.probes where project_id = $1", project_uuid(flooding)) == []
    assert (await probes(other.client)).status_code == 200


async def test_whoever_may_only_read_asks_for_previews_and_reports_nothing(
    api: Api, project: Project
) -> None:
    viewer = await api.key(project, "viewer")
    assert problem(await probes(viewer, eu_west=1.0)) == (403, "forbidden")
    assert (await preview(viewer)).status_code == 200
    assert (await viewer.get("/v1/regions/matrix")).status_code == 200
    nobody = await api.client()
    for answer in (await probes(nobody), await preview(nobody), await nobody.get("/v1/regions/matrix")):
        assert problem(answer) == (401, "unauthenticated")
