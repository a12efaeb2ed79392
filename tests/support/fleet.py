"""Edges that exist on paper: rows as a registration would leave them, and a worker of the instance that says it hears them."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg

from app.ids import new_id
from app.supervisor import wait_for_stop
from tests.support.api import Api

WORKER = "test.paper_edges"
HEAR = """
update vx.edges set seen_at = clock_timestamp()
 where public_key = $1 and seen_at > clock_timestamp() - interval '1 minute'
"""
"""One that a test has made silent, an hour ago, stays so."""


def _hear_all(api: Api) -> None:
    async def worker(stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, 0.5):
            await api.control.db.pool("admin").execute(HEAR, b"\0" * 32)

    try:
        api.control.supervisor.add(WORKER, worker)
    except ValueError:
        return  # it hears them already


async def add_region(
    api: Api,
    region: str,
    jurisdiction: str = "us",
    *,
    capacity: int = 100,
    port: int = 9,
    webrtc: bool = True,
) -> tuple[UUID, UUID]:
    """A region with one edge: (edge id, incarnation). Again for a region that is there: another edge in it."""
    edge, incarnation = new_id(), uuid4()
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        await connection.execute(
            "insert into vx.regions (id, jurisdiction) values ($1, $2) on conflict do nothing",
            region,
            jurisdiction,
        )
        await connection.execute(
            "insert into vx.edges (id, region, name, incarnation, public_key, media_url, http_url, capacity_calls, webrtc, seen_at)"
            " values ($1, $2, $8, $3, $4, $5, $6, $7, $9, clock_timestamp())",
            edge, region, incarnation, b"\0" * 32, f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}", capacity,
            f"e{edge.hex[-8:]}", webrtc,
        )  # fmt: skip
    finally:
        await connection.close()
    _hear_all(api)
    await api.control.fleet.refresh()
    return edge, incarnation


async def three_regions(api: Api) -> None:
    for region, jurisdiction in (("us-east", "us"), ("eu-west", "eu"), ("ap-south", "in")):
        await add_region(api, region, jurisdiction)
