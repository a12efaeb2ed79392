"""Placement through HTTP, on the real database: what is learned, what a preview shows, and what nobody stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from regions.wire.measuring import Leg, Measured, Mesh
from tests.support.api import Api, Project, problem
from tests.support.placement import (
    FAR,
    REGIONS,
    another_instance,
    body,
    create,
    exchange,
    learned,
    preview,
    probes,
    project_uuid,
    region_of,
    rows,
    six_regions,
    witnessed,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await six_regions(api)


@pytest_asyncio.fixture(loop_scope="module")
async def second(api: Api) -> AsyncIterator[Api]:
    async with another_instance(api) as served:
        yield served


# ------------------------------------------------------------------------------------------------- what is learned


async def test_what_edges_witnessed_of_a_network_places_its_next_caller(api: Api, project: Project) -> None:
    before = (await preview(project.client, "198.51.100.7")).json()
    assert {c["source"] for c in before["candidates"]} == {"prior"}
    await learned(api, "198.51.100.0/24", eu_north=12.0, eu_west=30.0, ap_south=200.0)
    placed = (await create(project.client, "198.51.100.7")).json()["placement"]
    near = {c["region"]: c for c in placed["candidates"]}
    assert placed["region"] == "eu-north"
    assert placed["standbys"][0]["region"] == "eu-west"
    assert (near["eu-north"]["source"], near["us-east"]["source"]) == ("history", "prior")
    assert near["eu-north"]["confidence"] > near["us-east"]["confidence"]
    await learned(api, "198.51.100.0/24", ap_east=1.0, eu_north=90.0)
    theirs = (await api.project()).client
    assert await region_of(theirs, "198.51.100.200") == "ap-east"
    assert (await preview(theirs, "198.51.101.7")).json()["candidates"][0]["source"] == "prior"


async def test_another_instance_knows_it_after_one_turn(api: Api, second: Api, project: Project) -> None:
    client = await second.client(project.key)
    await learned(api, "198.51.102.0/24", us_west=9.0, us_east=70.0)
    await exchange(second)
    assert await region_of(client, "198.51.102.9") == "us-west"
    second.control.learning.heard("ap-south", witnessed("198.51.102.0/24", 1.0))
    second.control.learning.heard(
        "us-east", Measured(mesh=[Mesh(region="us-west", rtt_ms=61.5, jitter_ms=1, loss=0)])
    )
    await exchange(second)
    await exchange(api)
    assert await region_of(project.client, "198.51.102.9") == "ap-south"
    ways = (await project.client.get("/v1/regions/matrix")).json()["ways"]
    assert {(w["from"], w["to"]): w["rtt_ms"] for w in ways}["us-east", "us-west"] == 61.5


async def test_what_the_caller_measured_beats_what_was_learned(api: Api, project: Project) -> None:
    await learned(api, "198.51.103.0/24", eu_west=10.0, us_east=90.0)
    mine = [{"region": "us-east", "rtt_ms": 5}, {"region": "eu-west", "rtt_ms": 95}]
    assert await region_of(project.client, "198.51.103.1") == "eu-west"
    placed = (await create((await api.project()).client, "198.51.103.1", latencies=mine)).json()["placement"]
    assert placed["region"] == "us-east"
    assert {c["region"]: c["source"] for c in placed["candidates"]}["us-east"] == "measured"


async def test_the_way_to_the_backend_counts(api: Api, project: Project) -> None:
    agent = {"url": "wss://bot.example.com/agent"}
    near = [{"region": "us-east", "rtt_ms": 20}, {"region": "eu-west", "rtt_ms": 50}]
    api.control.learning.heard(
        "us-east", Measured(backends=[Leg(host="bot.example.com:443", rtt_ms=90, jitter_ms=0, failures=0)])
    )
    api.control.learning.heard(
        "eu-west", Measured(backends=[Leg(host="bot.example.com:443", rtt_ms=3, jitter_ms=0, failures=0)])
    )
    placed = (await create(project.client, agent=agent, latencies=near)).json()["placement"]
    assert placed["region"] == "eu-west"
    assert {c["region"]: c["backend_ms"] for c in placed["candidates"]}["us-east"] == 90.0
    other = (await create(project.client, latencies=near)).json()["placement"]
    assert (other["region"], other["candidates"][0]["backend_ms"]) == ("us-east", None)
    asked = [
        t.host
        for e in api.control.fleet.now.edges
        if (m := api.control.learning.measure_for(e.id))
        for t in m.backends
    ]
    assert "bot.example.com:443" in asked


async def test_a_telephone_number_says_roughly_where_its_caller_is(api: Api, project: Project) -> None:
    for region, latitude, longitude in (("ap-south", 19.0, 73.0), ("eu-north", 60.0, 25.0)):
        where = "update vx.regions set latitude = $2, longitude = $3 where id = $1"
        await rows(api, where, region, latitude, longitude)
    await api.control.fleet.refresh()
    caller = {"from": "+911234567890"}
    placed = (await create(project.client, caller=caller)).json()["placement"]
    assert (placed["region"], placed["candidates"][0]["source"]) == ("ap-south", "geography")


async def move_to(api: Api, region: str, **values: Any) -> dict[str, Any]:
    shown = await api.operator.get(f"/admin/v1/regions/{region}")
    changed = await api.operator.patch(
        f"/admin/v1/regions/{region}", json=values, headers={"If-Match": shown.headers["etag"]}
    )
    assert changed.status_code == 200, changed.text
    found: dict[str, Any] = changed.json()
    return found


# --------------------------------------------------------------------------------------------------------- previews


async def test_a_preview_is_what_a_create_would_do_and_does_nothing(api: Api, project: Project) -> None:
    asked = {
        "latencies": [{"region": r, "rtt_ms": 20 + 40 * i} for i, r in enumerate(REGIONS)],
        "regions": {"jurisdictions": ["us", "eu"], "rtt_ms_max": 150},
        "webhook_url": "http://127.0.0.1:9/hook",
    }
    shown = await preview(project.client, "198.51.108.1", **asked)
    assert shown.status_code == 200, shown.text
    for table in ("calls", "events", "idempotency", "webhooks", "deliveries"):
        assert await rows(api, f"select from vx.{table} where project_id = $1", project_uuid(project)) == []
    made = (await create(project.client, "198.51.108.1", **asked)).json()
    assert made["placement"] == shown.json()
    assert {c["region"]: c["reason"] for c in made["placement"]["candidates"]} == {
        "us-east": "chosen", "us-west": "costlier", "eu-west": "costlier", "eu-north": "costlier", "ap-south": "not_allowed",
        "ap-east": "not_allowed",
    }  # fmt: skip
    assert made["placement"]["rtt_ms_cap"] == 150


async def test_a_preview_is_refused_as_a_create_would_be(project: Project) -> None:
    for wrong in (
        {"regions": {"jurisdictions": ["ch"]}},
        {"regions": {"pin": "us-east", "allow": ["us-west"]}},
        {"latencies": FAR, "regions": {"rtt_ms_max": 10}},
        {"agent": {"url": "http://127.0.0.1:9"}},
    ):
        shown, made = await preview(project.client, **wrong), await create(project.client, **wrong)
        assert problem(shown) == problem(made)
        assert shown.json()["detail"] == made.json()["detail"]


# ------------------------------------------------------------------------------------------------- what nobody stores


async def test_no_address_of_a_caller_is_written_anywhere(api: Api, project: Project) -> None:
    address, six = "203.0.113.77", "2001:db9:aaaa:bbbb::77"
    for one in (address, six, f"::ffff:{address}"):
        assert (await create(project.client, one, latencies=FAR)).status_code == 201
        assert (await probes(project.client, one, us_east=11.0)).status_code == 200
        await preview(project.client, one)
    await learned(api, "203.0.113.0/24", us_east=20.0)
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        tables = await connection.fetch(
            "select c.oid::regclass::text as name from pg_class c where relnamespace = 'vx'::regnamespace and relkind in ('r', 'p')"
        )
        everything = []
        for table in tables:
            found = await connection.fetch(f"select to_jsonb(t)::text as row from {table['name']} t")
            everything += [r["row"] for r in found]
    finally:
        await connection.close()
    text = "\n".join(everything)
    assert project.id and "us-east" in text and len(tables) > 30
    for trace in (address, "113.77", six, "aaaa:bbbb", "cb00714d"):
        assert trace not in text


async def test_the_same_create_from_another_address_is_the_same_create(project: Project) -> None:
    key = {"Idempotency-Key": "moved to another network"}
    first = await project.client.post("/v1/calls", json=body("198.51.109.1"), headers=key)
    again = await project.client.post("/v1/calls", json=body("203.0.113.5"), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert "address" not in first.json()["caller"]


# ------------------------------------------------------------------------------------------------ regions' settings


async def test_an_operators_settings_of_a_region_change_where_calls_go(api: Api) -> None:
    near = [{"region": "us-east", "rtt_ms": 20}, {"region": "us-west", "rtt_ms": 45}]

    async def placed(**more: Any) -> dict[str, Any]:
        fresh = await api.project()
        found: dict[str, Any] = (await create(fresh.client, latencies=near, **more)).json()["placement"]
        return found

    try:
        assert (await placed())["region"] == "us-east"
        await move_to(api, "us-east", price_ms=40.0)
        dear = await placed()
        assert dear["region"] == "us-west"
        assert {c["region"]: c["cost_ms"] for c in dear["candidates"]}["us-east"] == 60.0
        await move_to(api, "us-east", price_ms=0.0, weight=0.0)
        ramping = await placed()
        assert ramping["region"] == "us-west"
        assert {c["region"]: c["reason"] for c in ramping["candidates"]}["us-east"] == "ramping"
        assert "us-east" in [s["region"] for s in ramping["standbys"]]
        assert (await placed(regions={"allow": ["us-east"]}))["region"] == "us-east"  # nothing else is left
        for region in ("us-east", "us-west"):
            changed = await move_to(api, region, weight=1.0, proximity="north-america")
        assert (changed["proximity"], changed["weight"]) == ("north-america", 1.0)
        grouped = await placed()
        assert {c["region"]: c["reason"] for c in grouped["candidates"]}["us-west"] == "two_choices"
    finally:
        for region in ("us-east", "us-west"):
            await move_to(api, region, weight=1.0, proximity="", price_ms=0.0)


@pytest.mark.parametrize(
    "values",
    [
        {"weight": -0.1},
        {"weight": 1.1},
        {"weight": "1"},
        {"price_ms": -1},
        {"price_ms": 1e9},
        {"proximity": "x" * 200},
    ],
    ids=str,
)
async def test_settings_of_a_region_that_are_none_are_refused(api: Api, values: dict[str, Any]) -> None:
    shown = await api.operator.get("/admin/v1/regions/us-west")
    refused = await api.operator.patch(
        "/admin/v1/regions/us-west", json=values, headers={"If-Match": shown.headers["etag"]}
    )
    assert problem(refused)[0] in (400, 422)
    assert (await api.operator.get("/admin/v1/regions/us-west")).headers["etag"] == shown.headers["etag"]


async def test_the_matrix_has_every_way_that_was_measured(api: Api, project: Project) -> None:
    mesh = [
        Mesh(region="us-east", rtt_ms=82.25, jitter_ms=1.5, loss=0.1),
        Mesh(region="nowhere", rtt_ms=1, jitter_ms=0, loss=0),
    ]
    api.control.learning.heard("eu-north", Measured(mesh=mesh))
    found = (await project.client.get("/v1/regions/matrix")).json()
    assert found["regions"] == sorted(REGIONS)
    [way] = [w for w in found["ways"] if w["from"] == "eu-north"]
    assert 0 <= way.pop("age_s") < 60
    assert way == {"from": "eu-north", "to": "us-east", "rtt_ms": 82.25, "jitter_ms": 1.5, "loss": 0.1}
