"""The detector's word moves calls: begun once by two instances, explained, ended with the verdict; an operator's word goes before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.fleet.registration import Registration
from app.log.append import EdgeIdentity
from app.settings import Settings
from regions.edge.identity import Identity
from regions.wire import ids
from regions.wire.observations import Failure
from regions.wire.uplink import EdgeListeners, RegisterRequest
from tests.support.api import Api, Project, serving
from tests.support.calls import WrittenCall, event
from tests.support.fleet import add_region
from tests.support.witness import Witness, edge_id, health

REGIONS = ("us-east", "eu-west", "ap-south", "us-west")
WITHIN_S = 20.0


@dataclass
class Fleet:
    """Two instances, four edges on paper, and a witness that says how they are."""

    api: Api
    other: Api
    project: Project
    edges: dict[str, EdgeIdentity]
    witness: Witness

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.api.settings.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def call(self, region: str) -> WrittenCall:
        """In progress there."""
        body = {"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"prefer": [region]}}
        made = await self.project.client.post(
            "/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())}
        )
        assert made.json()["region"] == region, made.text
        call = WrittenCall(made.json()["id"], [self.edges[region]], self.project, made.json()["ticket"])
        await call.append(self.api, 1, event(1, "call.answered", encoding="pcm16", sample_rate=16_000))
        return call

    async def get(self, path: str, api: Api | None = None) -> Any:
        answer = await (api or self.api).operator.get(f"/admin/v1/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def told(self, region: str) -> list[str]:
        """The kinds of commands to its edge, in their order."""
        rows = await self.sql(
            "select kind from vx.desired where edge_id = $1 order by version", self.edges[region].edge_id
        )
        return [r["kind"] for r in rows]

    async def until(self, true: Any, what: str) -> Any:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not (found := await true()):
                    await asyncio.sleep(0.02)
                return found
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None

    async def held(self, region: str, *verdicts: str) -> None:
        async def both() -> bool:
            edge = self.edges[region].edge_id
            return {health(a, edge) for a in (self.api, self.other)} <= set(verdicts)

        await self.until(both, f"{region} is {verdicts}")

    async def drain(self, region: str, **wanted: Any) -> dict[str, Any]:
        """The newest drain of its edge, once it is as wanted."""
        what = f"edges/{edge_id(self.edges[region].edge_id)}/drain"

        async def found() -> dict[str, Any] | None:
            answer = await self.other.operator.get(f"/admin/v1/{what}")
            shown: dict[str, Any] = answer.json()
            return shown if answer.status_code == 200 and wanted.items() <= shown.items() else None

        drain: dict[str, Any] = await self.until(found, f"a drain with {wanted}")
        return drain


@pytest.fixture
async def fleet(settings: Settings) -> AsyncIterator[Fleet]:
    async with serving(settings) as api, serving(replace(settings, port=0)) as other:
        edges: dict[str, EdgeIdentity] = {}
        for region in REGIONS:
            edge, incarnation = await add_region(api, region, capacity=10)
            edges[region] = EdgeIdentity(edge, incarnation, region)
        witness = Witness(api, {region: e.edge_id for region, e in edges.items()})
        task = asyncio.create_task(witness.run())
        try:
            made = Fleet(api, other, await api.project(), edges, witness)
            for region in REGIONS:
                await made.held(region, "healthy")
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_verdict_moves_calls_until_it_ends_and_touches_nothing_of_the_operators(fleet: Fleet) -> None:
    call = await fleet.call("eu-west")
    edge = fleet.edges["eu-west"].edge_id
    fleet.witness.outcomes[edge] = "refused"
    await fleet.held("eu-west", "down")
    shown = await fleet.drain("eu-west", by="detector", under_way=1)
    assert (shown["kind"], shown["state"], shown["total"]) == ("evacuate", "running", 1)
    assert [r["by"] for r in (await fleet.get("drains"))["data"]] == ["detector"]
    assert await fleet.told("eu-west") == ["drain", "move"]
    for instance in (fleet.api, fleet.other):
        region = await fleet.get("regions/eu-west/health", instance)
        assert region["edges"][0]["evacuation"]["by"] == "detector"
        assert (await fleet.get("regions/eu-west", instance))["admin_state"] == "active"
        assert (await fleet.get(f"edges/{edge_id(edge)}", instance))["admin_state"] == "active"
    fleet.witness.outcomes.clear()
    await fleet.held("eu-west", "probation")
    ended = await fleet.drain("eu-west", state="recovered")
    assert ended["ended_at"] is not None
    await fleet.until(lambda: _told(fleet, ["drain", "move", "undrain", "move"]), "the edge is told")
    commands = await fleet.api.control.fleet_store.commands(edge, 0)
    kinds = [c.kind for c, _ in await fleet.api.control.draining.orders.complete(commands)]
    assert kinds == ["drain", "stay", "undrain", "stay"]
    [row] = await fleet.sql("select count(*) as drains, max(verdict) as verdict from vx.drains")
    assert (row["drains"], row["verdict"]) == (1, 1), "two instances have begun one"
    events = (await fleet.get("events?limit=200"))["data"]
    [said] = [e for e in events if e["type"] == "edge.evacuating"]
    assert (said["edge"], said["data"]["by"], said["data"]["calls"]) == (edge_id(edge), "detector", 1)
    assert said["data"]["case"] == "refused"
    assert said["data"]["signals"]["probes"]["says"] == "refused"
    assert (await call.append(fleet.api, 1, event(2))).status == "durable", "it stays where it was"


async def _told(fleet: Fleet, wanted: list[str]) -> bool:
    return await fleet.told("eu-west") == wanted


async def test_an_operators_drain_goes_before_and_outlives_the_verdict(fleet: Fleet) -> None:
    edge = fleet.edges["us-west"].edge_id
    drain = f"/admin/v1/edges/{edge_id(edge)}/drain"
    fleet.witness.outcomes[edge] = "refused"
    await fleet.drain("us-west", by="detector", state="drained")
    cordoned = await fleet.api.operator.post(f"/admin/v1/edges/{edge_id(edge)}/cordon")
    assert (cordoned.status_code, cordoned.json()["admin_state"]) == (200, "cordoned")
    assert (await fleet.get(f"edges/{edge_id(edge)}/drain"))["ended_at"] is None, "a cordon leaves it be"
    begun = await fleet.api.operator.post(drain, json={"within_s": 60})
    assert (begun.status_code, begun.json()["by"], begun.json()["kind"]) == (202, "operator", "drain")
    fleet.witness.outcomes.clear()
    await fleet.held("us-west", "probation")
    assert (await fleet.get(f"edges/{edge_id(edge)}/drain"))["ended_at"] is None
    assert (await fleet.told("us-west"))[-1] == "drain", "it does not take calls again"
    fleet.witness.outcomes[edge] = "refused"
    await fleet.held("us-west", "down")
    [row] = await fleet.sql("select count(*) from vx.drains")
    assert row["count"] == 1, "where an operator's runs, the detector begins none"
    await fleet.api.operator.post(f"/admin/v1/edges/{edge_id(edge)}/uncordon")
    assert (await fleet.told("us-west"))[-1] == "drain", "the detector's word still stands"


async def test_nothing_is_asked_of_an_edge_that_is_not_heard(fleet: Fleet) -> None:
    call = await fleet.call("ap-south")
    edge = fleet.edges["ap-south"].edge_id
    await fleet.sql("update vx.edges set seen_at = seen_at - interval '1 hour' where id = $1", edge)
    fleet.witness.outcomes[edge] = "refused"
    await fleet.drain("ap-south", by="detector", left=1)
    await fleet.sql("update vx.drains set claimed_until = '-infinity'")
    for _ in range(3):
        await fleet.other.control.draining.worker.round()
        await fleet.sql("update vx.drains set claimed_until = '-infinity'")
    assert "move" not in await fleet.told("ap-south"), "its caller leaves by itself"
    [row] = await fleet.sql("select epoch_granted from vx.calls where id = $1", ids.decode(ids.CALL, call.id))
    assert row["epoch_granted"] == 3, "what its ticket grants"


async def test_callers_that_leave_every_edge_evacuate_a_third_of_them(fleet: Fleet) -> None:
    """Or all calls would be sent round in circles."""
    fleet.witness.failures = [
        Failure(call=ids.encode(ids.CALL, uuid4()), edge=edge_id(e.edge_id), reason="silent", age_ms=5)
        for e in fleet.edges.values()
        for _ in range(25)
    ]

    async def all_suspect() -> bool:
        rows = await fleet.sql("select from vx.health where kind = 'edge' and verdict = 'suspect'")
        return len(rows) == len(REGIONS)

    await fleet.until(all_suspect, "all are suspected")
    rows = await fleet.sql("select action, reason from vx.health where kind = 'edge' order by action")
    assert [tuple(r) for r in rows] == [("evacuate", "failing")] + [("quarantine", "held")] * 3


async def test_an_edge_that_starts_where_nobody_is_to_come_is_told_so(fleet: Fleet, tmp_path: Any) -> None:
    await fleet.api.operator.post("/admin/v1/regions/us-east/drain", json={"within_s": 60})
    enrolled = (await fleet.api.operator.post("/admin/v1/regions/us-east/enrol")).json()["token"]
    identity = Identity(tmp_path)
    body = RegisterRequest(
        name="new", region="us-east", incarnation=identity.incarnation, public_key=identity.public_key, capacity_calls=5,
        listeners=EdgeListeners(media_url="ws://127.0.0.1:9", http_url="http://127.0.0.1:9"),
    )  # fmt: skip
    registration: Registration = fleet.other.control.registration
    edge, _ = await registration.register(enrolled, body)
    rows = await fleet.sql("select kind from vx.desired where edge_id = $1", edge)
    assert [r["kind"] for r in rows] == ["drain"]
