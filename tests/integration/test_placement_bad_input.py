"""Wishes that contradict, latencies that are none, lies, and regions of which none is left: named, and nothing learned of them."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from app.fleet.detector import DOWN_AFTER_S
from app.placement.service import UNKNOWN_RETRY_AFTER_S
from tests.conftest import make_settings
from tests.support.api import Api, Project, problem, serving
from tests.support.engines import Engines
from tests.support.fleet import add_region
from tests.support.placement import (
    REGIONS,
    body,
    create,
    exchange,
    learned,
    preview,
    probes,
    project_uuid,
    rows,
    six_regions,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await six_regions(api)


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
