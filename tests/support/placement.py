"""Placement through HTTP: six regions on paper, what is asked of them, and what two instances tell each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx

from app.placement.claims import Claim
from regions.wire import ids
from regions.wire.measuring import Measured, Witnessed
from tests.conftest import make_settings
from tests.support.api import Api, Project, serving
from tests.support.edges import until
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


async def six_regions(api: Api) -> None:
    for region, jurisdiction in REGIONS.items():
        await add_region(api, region, jurisdiction)


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


@asynccontextmanager
async def another_instance(api: Api) -> AsyncIterator[Api]:
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
