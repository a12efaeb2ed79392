"""Verdicts over a real database with two instances: written once, seen by both, explained, followed, and heeded by placement."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest_asyncio

from app.fleet import observations
from app.fleet.events import FLEET_EVENT_TYPES
from regions.wire import ids
from regions.wire.observations import Failure, Neighbours
from tests.support.api import Api, serving
from tests.support.edges import until
from tests.support.fleet import add_region
from tests.support.witness import Witness, edge_id, health

REGIONS = ("us-east", "eu-west", "ap-south", "us-west")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(api: Api) -> dict[str, UUID]:
    return {region: (await add_region(api, region, capacity=10))[0] for region in REGIONS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(api: Api, fleet: dict[str, UUID]) -> AsyncIterator[Api]:
    """A second instance over the same database."""
    async with serving(replace(api.settings, port=0)) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def witness(api: Api, fleet: dict[str, UUID], other: Api) -> AsyncIterator[Witness]:
    """At the end every edge is healthy again, without a past."""
    witness = Witness(api, fleet)
    task = asyncio.create_task(witness.run())
    try:
        yield witness
    finally:
        witness.outcomes.clear()
        witness.failures.clear()
        await until(lambda: all(fine(a, e) for a in (api, other) for e in fleet.values()), "all is fine")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        connection = await asyncpg.connect(api.settings.database_url)
        await connection.execute(
            "update vx.health set verdict = 'healthy', action = 'none', flaps = 0, owed = false, stumbles = 0,"
            " version = version + 1, since = clock_timestamp()"
        )
        await connection.close()
        await until(
            lambda: all(health(a, e) == "healthy" for a in (api, other) for e in fleet.values()), "healthy"
        )


def fine(api: Api, edge: UUID) -> bool:
    return health(api, edge) in ("healthy", "probation")


async def events(api: Api, **params: Any) -> list[dict[str, Any]]:
    found, cursor = [], None
    while (page := (await api.operator.get("/admin/v1/events", params={"cursor": cursor, **params})).json())[
        "data"
    ]:
        found += page["data"]
        cursor = page["next_cursor"]
    return found


async def version(api: Api, edge: UUID) -> int:
    """How often the verdict on it has changed."""
    connection = await asyncpg.connect(api.settings.database_url)
    found = await connection.fetchval(
        "select version from vx.health where kind = 'edge' and subject = $1", str(edge)
    )
    await connection.close()
    return found or 0


async def create(project: Any, **regions: Any) -> Any:
    return await project.client.post(
        "/v1/calls",
        json={"agent": {"url": "ws://127.0.0.1:9/"}, "regions": regions},
        headers={"Idempotency-Key": str(uuid4())},
    )


async def test_two_instances_come_to_one_verdict_and_write_it_once(
    api: Api, other: Api, fleet: dict[str, UUID], witness: Witness
) -> None:
    edge, before = fleet["eu-west"], len(await events(api))
    project, was = await api.project(), await version(api, edge)
    witness.outcomes[edge] = "refused"
    await until(lambda: health(api, edge) == health(other, edge) == "down", "both hold it down")
    placed = await create(project, prefer=["eu-west"])
    assert placed.json()["region"] != "eu-west"
    assert "eu-west" not in [s["region"] for s in placed.json()["placement"]["standbys"]]
    for instance in (api, other):
        said = (await instance.operator.get("/admin/v1/regions/eu-west/health")).json()
        assert (said["verdict"], said["action"], said["panic"]) == ("down", "evacuate", False)
        assert said["detector"] == {"abstains": "", "ejected": 1, "ejected_max": 1}
        found = said["edges"][0]
        assert (found["edge"], found["case"], found["weight"]) == (edge_id(edge), "refused", 0.0)
        assert found["why"]
        assert found["would_change"]
        probes = next(s for s in found["signals"] if s["signal"] == "probes")
        assert probes["says"] == "refused"
        assert sorted(probes["observers"]) == ["ap-south", "us-east", "us-west"]
        assert {b["outcome"] for b in probes["figures"]["ballots"]} == {"refused"}
    witness.outcomes.clear()
    await until(lambda: health(api, edge) == health(other, edge) == "probation", "probation")
    weights = {a.control.fleet.now.edge(edge).weight for a in (api, other)}  # type: ignore[union-attr]
    assert weights <= {0.1, 0.5}
    await until(lambda: api.control.fleet.now.regions["eu-west"].health == "probation", "the region too")

    async def told() -> list[str]:
        return [e["type"] for e in (await events(api))[before:] if e["region"] == "eu-west"]

    async with asyncio.timeout(20):
        while "region.recovered" not in await told():
            await asyncio.sleep(0.05)
    types = await told()
    assert {"edge.lost", "edge.recovered", "region.down"} <= set(types)
    assert (
        len([t for t in types if t in ("edge.lost", "edge.suspect", "edge.recovered")])
        == await version(api, edge) - was
    ), types
    assert await events(other) == await events(api)
    one = await create(project, pin="eu-west")
    assert (one.status_code, one.json()["region"]) == (201, "eu-west")


async def test_an_edge_on_probation_fills_a_part_and_no_more(
    api: Api, other: Api, fleet: dict[str, UUID], witness: Witness
) -> None:
    edge = fleet["us-west"]
    witness.outcomes[edge] = "refused"
    await until(lambda: health(api, edge) == "down", "down")
    witness.outcomes.clear()
    await until(lambda: health(api, edge) == "probation", "probation")
    project = await api.project()
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        await connection.execute("update vx.edges set calls = 5 where id = $1", edge)
        await api.control.fleet.refresh()
        full = await create(project, pin="us-west")
    finally:
        await connection.execute("update vx.edges set calls = 0 where id = $1", edge)
        await connection.close()
    assert (full.status_code, full.json()["code"]) == (503, "temporary-reduced-capacity")


async def test_time_outs_and_callers_only_keep_new_calls_away(
    api: Api, other: Api, fleet: dict[str, UUID], witness: Witness
) -> None:
    edge = fleet["ap-south"]
    witness.outcomes[edge] = "timeout"
    await until(lambda: health(api, edge) == health(other, edge) == "suspect", "unreachable")
    said = (await api.operator.get(f"/admin/v1/edges/{edge_id(edge)}/health")).json()
    assert (said["verdict"], said["action"], said["case"]) == ("suspect", "quarantine", "unreachable")
    assert said["transitions"][0]["data"]["signals"]["probes"]["says"] == "away"
    witness.outcomes.clear()
    await until(lambda: fine(api, edge), "recovered")
    witness.failures = [
        Failure(call=ids.encode(ids.CALL, uuid4()), edge=edge_id(edge), reason="silent", age_ms=5)
        for _ in range(25)
    ]
    await until(lambda: health(api, edge) == health(other, edge) == "suspect", "callers leave it")
    said = (await other.operator.get(f"/admin/v1/edges/{edge_id(edge)}/health")).json()
    assert (said["action"], said["case"]) == ("evacuate", "failing")
    callers = next(s for s in said["signals"] if s["signal"] == "callers")
    assert (callers["figures"]["left"], callers["figures"]["share"]) == (25, 1.0)


async def test_of_a_fleet_that_all_refuse_a_third_is_ejected_and_nobody_is_evacuated_beyond(
    api: Api, other: Api, fleet: dict[str, UUID], witness: Witness
) -> None:
    witness.outcomes = dict.fromkeys(fleet.values(), "refused")
    everybody = fleet.values()
    await until(
        lambda: all(
            sorted(health(a, e) for e in everybody) == ["down"] + ["suspect"] * 3 for a in (api, other)
        ),
        "a third",
    )
    connection = await asyncpg.connect(api.settings.database_url)

    async def written() -> set[tuple[str, str]]:
        rows = await connection.fetch(
            "select action, reason from vx.health where kind = 'edge' and verdict = 'suspect'"
        )
        return {tuple(r) for r in rows}

    try:
        async with asyncio.timeout(20):
            while await written() != {("quarantine", "held")}:
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
    placed = await create(await api.project())
    assert (placed.status_code, placed.json()["code"]) == (503, "no_healthy_region")


async def test_a_fleet_that_all_is_out_of_sight_takes_calls_again(
    api: Api, other: Api, fleet: dict[str, UUID], witness: Witness
) -> None:
    for region in ("eu-west", "ap-south", "us-west"):
        witness.outcomes[fleet[region]] = "timeout"
    await until(lambda: sum(health(api, e) == "suspect" for e in fleet.values()) == 3, "most are suspect")
    placed = (await create(await api.project(), pin="ap-south")).json()
    assert (placed["region"], placed["placement"]["panic"]) == ("ap-south", True)


async def test_events_are_paged_and_followed_over_instances(
    api: Api, other: Api, fleet: dict[str, UUID], witness: Witness
) -> None:
    for instance in (api, other):
        # each twice, and once for all
        for n, type_ in enumerate(("edge.lost", "edge.recovered", "edge.drained", "edge.lost")):
            edge = fleet["us-east"]
            await instance.control.fleet_events.write(f"test:{n}", type_, "us-east", edge, {"n": n})
    first = (await api.operator.get("/admin/v1/events", params={"limit": 2})).json()
    rest = (
        await other.operator.get("/admin/v1/events", params={"cursor": first["next_cursor"], "limit": 200})
    ).json()
    all_ = await events(api)
    assert first["data"] + rest["data"] == all_[: 2 + len(rest["data"])]
    assert len({e["id"] for e in all_}) == len(all_)
    assert {e["type"] for e in all_} <= set(FLEET_EVENT_TYPES)
    lost = await events(api, types=["edge.lost"])
    assert {e["type"] for e in lost} == {"edge.lost"}
    got: list[str] = []

    async def follow(instance: Api, after: str, wanted: Callable[[], bool]) -> str:
        async with instance.operator.stream(
            "GET", "/admin/v1/events/stream", headers={"Last-Event-ID": after}
        ) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    after = line[4:]
                if line.startswith("data: "):
                    got.append(json.loads(line[6:])["id"])
                    if wanted():
                        return after
        raise AssertionError("the stream ended")

    async with asyncio.timeout(20):
        reached = await follow(api, first["next_cursor"], lambda: len(got) == 1)
        await follow(other, reached, lambda: len(got) == len(all_) - 2)
    assert got == [e["id"] for e in all_[2:]]


async def test_only_operators_and_only_what_exists(api: Api, fleet: dict[str, UUID]) -> None:
    project = await api.project()
    for path in ("/admin/v1/regions/us-east/health", "/admin/v1/events", "/admin/v1/events/stream"):
        assert (await project.client.get(path)).status_code == 403
    for path in ("/admin/v1/regions/nowhere/health", "/admin/v1/edges/edge_x/health"):
        assert (await api.operator.get(path)).status_code == 404
    for params, code in (({"cursor": "x"}, "bad_cursor"), ({"types": "edge.gone"}, "unknown_type")):
        answer = await api.operator.get("/admin/v1/events", params=params)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    metrics = (await api.operator.get("/metrics")).text
    assert 'voxplane_region_health{region="us-east",verdict="healthy"}' in metrics


def test_every_edge_is_looked_at_from_several_regions_and_nobody_has_too_many_targets() -> None:
    class Edge(msgspec.Struct, frozen=True):
        id: UUID
        region: str
        health: str = "healthy"
        http_url: str = "http://x"
        media_url: str = "ws://x"

    edges = [Edge(UUID(int=n + 1), f"r{n % 8}") for n in range(40)]
    told: dict[UUID, Neighbours] = {
        e.id: Neighbours(targets=observations.targets_of(e.id, edges)) for e in edges
    }  # type: ignore[arg-type]
    region = {edge_id(e.id): e.region for e in edges}
    for target in edges:
        observers = [o for o, n in told.items() if edge_id(target.id) in [t.edge for t in n.targets]]
        vantages = {region[edge_id(o)] for o in observers}
        assert len(vantages) == observations.VANTAGES
        assert target.region not in vantages
        assert target.id not in observers
    assert max(len(n.targets) for n in told.values()) <= 32
    pair = [*edges[:1], Edge(UUID(int=99), "r0")]
    assert [t.edge for t in observations.targets_of(UUID(int=99), pair)] == [edge_id(edges[0].id)]  # type: ignore[arg-type]
