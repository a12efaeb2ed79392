"""Placement through HTTP, on the real database: what is learned, what is claimed, what is refused, and what nobody stores."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from app.fleet.detector import DOWN_AFTER_S
from app.placement.claims import Claim
from app.placement.service import PROBES_BURST, UNKNOWN_RETRY_AFTER_S
from regions.wire import ids
from regions.wire.measuring import Leg, Measured, Mesh, Witnessed
from tests.conftest import make_settings
from tests.support.api import Api, Project, problem, serving
from tests.support.edges import until
from tests.support.engines import Engines
from tests.support.fleet import add_region

REGIONS = {
    "us-east": "us",
    "us-west": "us",
    "eu-west": "eu",
    "eu-north": "eu",
    "ap-south": "in",
    "ap-east": "sg",
}
FAR = [{"region": r, "rtt_ms": 300} for r in REGIONS]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> dict[str, UUID]:
    return {region: (await add_region(api, region, of))[0] for region, of in REGIONS.items()}


def body(address: str | None = None, **more: Any) -> dict[str, Any]:
    caller = {"caller": {"address": address}} if address else {}
    return {"agent": {"url": "ws://127.0.0.1:9/agent"}} | caller | more


async def create(client: httpx.AsyncClient, address: str | None = None, **more: Any) -> httpx.Response:
    return await client.post(
        "/v1/calls", json=body(address, **more), headers={"Idempotency-Key": str(uuid4())}
    )


async def preview(client: httpx.AsyncClient, address: str | None = None, **more: Any) -> httpx.Response:
    return await client.post("/v1/placements/preview", json=body(address, **more))


async def probes(client: httpx.AsyncClient, address: str | None = None, **rtts: float) -> httpx.Response:
    latencies = [{"region": r.replace("_", "-"), "rtt_ms": rtt} for r, rtt in rtts.items()]
    asked: dict[str, Any] = {"latencies": latencies} | ({"address": address} if address else {})
    return await client.post("/v1/probes", json=asked)


async def region_of(client: httpx.AsyncClient, address: str, **more: Any) -> str:
    made = await create(client, address, **more)
    assert made.status_code == 201, made.text
    region: str = made.json()["region"]
    return region


def witnessed(network: str, rtt_ms: float) -> Measured:
    return Measured(callers=[Witnessed(network=network, rtt_ms=rtt_ms, jitter_ms=1.0, samples=5)])


async def learned(api: Api, network: str, **rtts: float) -> None:
    for region, rtt_ms in rtts.items():
        api.control.learning.heard(region.replace("_", "-"), witnessed(network, rtt_ms))
    await exchange(api)


async def exchange(api: Api) -> None:
    """One turn of the workers."""
    assert api.control.learning.store is not None
    since = await api.control.learning.store.now() - timedelta(minutes=1)
    await api.control.learning.exchange(since)
    await api.control.calls.placer.claimed.read(since)


@pytest_asyncio.fixture(loop_scope="module")
async def second(api: Api) -> AsyncIterator[Api]:
    """Another instance over the same database, whose first turn, which looks a day back, is over."""
    marker, network = project_uuid(await api.project()), api.control.learning.network("198.51.114.1")
    assert network is not None
    claim = Claim("us-east", 1.0, 0.0, 0.0, api.control.clock.now())
    await api.control.calls.placer.claimed.say(marker, network, [claim])
    other = make_settings(api.settings.database_url, api.settings.redis_urls, api.settings.data)
    async with serving(other) as served:
        await served.control.fleet.refresh()
        claims, clock = served.control.calls.placer.claimed.claims, served.control.clock
        await until(lambda: claims.recall(marker, network.number, clock.now()), "its first turn")
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


# ----------------------------------------------------------------------------------------------------------- claims


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


# ---------------------------------------------------------------------------------------------------------- wishes


async def test_a_cap_gives_way_step_by_step_and_no_further(project: Project) -> None:
    near = [{"region": r, "rtt_ms": 60 + 100 * i} for i, r in enumerate(REGIONS)]
    relaxed = await create(
        project.client, latencies=near, regions={"rtt_ms_max": 30, "rtt_ms_relax": [50, 80, 200]}
    )
    assert relaxed.json()["placement"]["rtt_ms_cap"] == 80
    assert relaxed.json()["region"] == "us-east"
    assert {c["region"]: c["reason"] for c in relaxed.json()["placement"]["candidates"]}[
        "us-west"
    ] == "too_far"
    never = await create(project.client, latencies=near, regions={"rtt_ms_max": 30, "rtt_ms_relax": [50]})
    assert problem(never) == (422, "latency_unsatisfiable")
    assert never.json()["candidates"][0] == {"region": "us-east", "rtt_ms": 60.0, "reason": "too_far"}


@pytest.mark.parametrize(
    ("regions", "code", "pointer"),
    [
        ({"pin": "us-east", "allow": ["us-west"]}, "invalid", "/regions/pin"),
        ({"pin": "us-east", "jurisdictions": ["eu"]}, "invalid", "/regions/pin"),
        ({"pin": "mars"}, "invalid", "/regions/pin"),
        ({"allow": ["us-east", "mars"]}, "invalid", "/regions/allow/1"),
        ({"prefer": ["mars"]}, "invalid", "/regions/prefer/0"),
        ({"allow": ["us-east"], "jurisdictions": ["eu"]}, "residency_unsatisfiable", None),
        ({"jurisdictions": ["mars"]}, "residency_unsatisfiable", None),
        ({"rtt_ms_relax": [50]}, "invalid", "/regions/rtt_ms_relax"),
        ({"rtt_ms_max": 80, "rtt_ms_relax": [50]}, "invalid", "/regions/rtt_ms_relax"),
        ({"rtt_ms_max": 80, "rtt_ms_relax": [120, 100]}, "invalid", "/regions/rtt_ms_relax"),
        ({"rtt_ms_max": 0}, "invalid", "/regions/rtt_ms_max"),
        ({"rtt_ms_max": -1}, "invalid", "/regions/rtt_ms_max"),
        ({"rtt_ms_max": "fast"}, "invalid", "/regions/rtt_ms_max"),
        ({"nearest": True}, "invalid", "/regions/nearest"),
    ],
    ids=str,
)
async def test_wishes_that_contradict_or_name_nothing_are_refused_by_name(
    project: Project, regions: dict[str, Any], code: str, pointer: str | None
) -> None:
    refused = await create(project.client, regions=regions)
    assert problem(refused) == (422, code)
    if pointer is None:
        assert refused.json()["allowed_regions"] == sorted(REGIONS)
    else:
        assert [e["pointer"] for e in refused.json()["errors"]] == [pointer]


# ------------------------------------------------------------------------------------------------------- bad input


BAD_LATENCIES = {
    "negative": '[{"region":"us-east","rtt_ms":-1}]',
    "zero": '[{"region":"us-east","rtt_ms":0}]',
    "minus zero": '[{"region":"us-east","rtt_ms":-0.0}]',
    "too long": '[{"region":"us-east","rtt_ms":10001}]',
    "infinite": '[{"region":"us-east","rtt_ms":Infinity}]',
    "infinite by exponent": '[{"region":"us-east","rtt_ms":1e999}]',
    "not a number": '[{"region":"us-east","rtt_ms":NaN}]',
    "string": '[{"region":"us-east","rtt_ms":"20"}]',
    "null": '[{"region":"us-east","rtt_ms":null}]',
    "true": '[{"region":"us-east","rtt_ms":true}]',
    "list": '[{"region":"us-east","rtt_ms":[20]}]',
    "no figure": '[{"region":"us-east"}]',
    "no region": '[{"rtt_ms":20}]',
    "jitter": '[{"region":"us-east","rtt_ms":20,"jitter_ms":-1}]',
    "loss": '[{"region":"us-east","rtt_ms":20,"loss":1.01}]',
    "time without a zone": '[{"region":"us-east","rtt_ms":20,"at":"2026-01-01T00:00:00"}]',
    "no time": '[{"region":"us-east","rtt_ms":20,"at":"yesterday"}]',
    "unknown field": '[{"region":"us-east","rtt_ms":20,"hops":3}]',
    "no id of a region": '[{"region":"US East!","rtt_ms":20}]',
    "an object": '{"us-east":20}',
    "a hundred and one": json.dumps([{"region": "us-east", "rtt_ms": 20}] * 101),
    "ten thousand": json.dumps([{"region": "us-east", "rtt_ms": 20}] * 10_000),
}  # fmt: skip


@pytest.mark.parametrize("what", list(BAD_LATENCIES))
async def test_latencies_that_are_none_are_refused_and_nothing_is_learned(
    api: Api, project: Project, what: str
) -> None:
    raw = BAD_LATENCIES[what]
    key = {"Idempotency-Key": str(uuid4()), "content-type": "application/json"}
    known = len(api.control.learning.history)
    asked = {
        "/v1/calls": f'{{"agent":{{"url":"ws://127.0.0.1:9/"}},"latencies":{raw}}}',
        "/v1/placements/preview": f'{{"agent":{{"url":"ws://127.0.0.1:9/"}},"latencies":{raw}}}',
        "/v1/probes": f'{{"address":"198.51.110.1","latencies":{raw}}}',
    }
    for path, content in asked.items():
        refused = await project.client.post(path, content=content, headers=key)
        status, _ = problem(refused)
        assert status in (400, 413, 422), refused.text
        if status == 422:
            assert refused.json()["errors"][0]["pointer"].startswith("/latencies"), refused.text
    assert await rows(api, "select from vx.probes where project_id = $1", project_uuid(project)) == []
    assert len(api.control.learning.history) == known


@pytest.mark.parametrize(
    "address", ["", "1", "300.1.1.1", "example.com", "203.0.113.7/24", "203.0.113.7:80", "x" * 46, 7]
)
async def test_an_address_that_is_none_is_refused_without_being_repeated(
    project: Project, address: Any
) -> None:
    asked = body() | {"caller": {"address": address}}
    key = {"Idempotency-Key": str(uuid4())}
    made = await project.client.post("/v1/calls", json=asked, headers=key)
    told = await project.client.post("/v1/probes", json={"address": address})
    assert (problem(made)[0], problem(told)[0]) == (422, 422)
    assert made.json()["errors"][0]["pointer"] == "/caller/address"
    assert told.json()["errors"][0]["pointer"] == "/address"
    if len(str(address)) > 1:
        assert str(address) not in made.text + told.text


async def test_unknown_regions_are_refused_in_probes_and_passed_over_in_a_create(project: Project) -> None:
    """A region may have been taken away between the listing and the create: a hint that is stale costs nobody a call."""
    refused = await project.client.post(
        "/v1/probes",
        json={"latencies": [{"region": "us-east", "rtt_ms": 9}, {"region": "mars", "rtt_ms": 1}]},
    )
    assert problem(refused) == (422, "invalid")
    assert [e["pointer"] for e in refused.json()["errors"]] == ["/latencies/1/region"]
    made = await create(
        project.client, latencies=[{"region": "mars", "rtt_ms": 1}, {"region": "ap-south", "rtt_ms": 40}]
    )
    assert made.json()["region"] == "ap-south"
    assert "mars" not in {c["region"] for c in made.json()["placement"]["candidates"]}


async def test_the_same_region_twice_counts_once(api: Api, project: Project) -> None:
    twice = {"address": "198.51.111.1", "latencies": [{"region": "us-east", "rtt_ms": 9}] * 100}
    answer = await project.client.post("/v1/probes", json=twice)
    assert answer.status_code == 200, answer.text
    assert len(await rows(api, "select from vx.probes where project_id = $1", project_uuid(project))) == 1


async def test_whatever_a_project_says_of_anothers_network_nothing_is_learned_of_it(
    api: Api, project: Project
) -> None:
    await learned(api, "198.51.112.0/24", eu_north=14.0, ap_east=190.0)
    honest = await api.project()
    for i in range(20):
        lies = {r.replace("-", "_"): 0.01 if r == "ap-east" else 9_999.0 for r in REGIONS}
        assert (await probes(project.client, f"198.51.112.{i}", **lies)).status_code == 200
        await create(project.client, f"198.51.112.{i}", latencies=[{"region": "ap-east", "rtt_ms": 0.01}])
    await exchange(api)
    placed = (await create(honest.client, "198.51.112.5")).json()["placement"]
    assert placed["region"] == "eu-north"
    assert {c["region"]: c["source"] for c in placed["candidates"]}["eu-north"] == "history"
    windows = await rows(
        api, "select distinct region from vx.round_trips where network = $1", (1 << 60) | 0xC63370
    )
    assert {r["region"] for r in windows} == {"eu-north", "ap-east"}


# -------------------------------------------------------------------------------------------------- nothing is left


async def test_where_all_allowed_regions_are_down_the_answer_says_when_the_first_could_be_back(
    engines: Engines, api: Api
) -> None:
    async with (
        engines.database() as url,
        serving(make_settings(url, engines.redis_urls, api.settings.data)) as own,
    ):
        edges = {r: (await add_region(own, r))[0] for r in ("us-east", "us-west", "eu-west")}
        client = (await own.project()).client
        connection = await asyncpg.connect(url)
        await connection.execute(
            "update vx.edges set seen_at = clock_timestamp() - make_interval(secs => $1) where region = 'us-east'",
            2 * DOWN_AFTER_S + 60,
        )
        await own.control.fleet.refresh()
        wanted = {"allow": ["us-east"]}
        down = await create(client, regions=wanted)
        assert problem(down) == (503, "no_healthy_region")
        edge = own.control.fleet.now.edge(edges["us-east"])
        assert edge is not None and edge.returns_in_s is not None
        assert down.headers["retry-after"] in ("1", "2")  # a heartbeat and a second in order
        assert {c["region"]: c["reason"] for c in down.json()["candidates"]} == {
            "us-east": "unhealthy", "us-west": "not_allowed", "eu-west": "not_allowed",
        }  # fmt: skip
        assert (await preview(client, regions=wanted)).headers["retry-after"] in ("1", "2")
        assert (await create(client)).status_code == 201

        await own.operator.post("/admin/v1/regions/us-west/cordon")
        cordoned = await create(client, regions={"allow": ["us-west"]})
        assert problem(cordoned) == (503, "no_healthy_region")
        assert cordoned.headers["retry-after"] == str(UNKNOWN_RETRY_AFTER_S)

        await connection.execute("update vx.edges set calls = capacity_calls where region = 'eu-west'")
        await connection.close()
        await own.control.fleet.refresh()
        full = await create(client, regions={"allow": ["us-east", "eu-west"]})
        assert problem(full) == (503, "temporary-reduced-capacity")
        assert int(full.headers["retry-after"]) >= 1


# ------------------------------------------------------------------------------------------------------------ helpers


def project_uuid(project: Project) -> UUID:
    found = ids.decode(ids.PROJECT, project.id)
    assert found is not None
    return found


async def rows(api: Api, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()
