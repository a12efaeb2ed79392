"""A deployment with several cells: a database for each, instances that serve all of them, and an edge with calls of every cell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from websockets.asyncio.client import ClientConnection, connect

from app.cells.settings import CellSettings
from app.ids import new_id
from app.settings import Settings
from regions.edge.identity import Identity
from regions.wire import ids
from tests.support.api import Api, Project
from tests.support.hooks import until

AT_MS = 1_700_000_000_000


def settings_of(base: Settings, urls: list[str], places: list[str], **more: Any) -> Settings:
    """Cells 0, 1, … in the order of their URLs."""
    cells = tuple(
        CellSettings(number=n, jurisdiction=place, url=url, home=n == 0)
        for n, (url, place) in enumerate(zip(urls, places, strict=True))
    )
    given = {name: getattr(base, name) for name in Settings.__slots__}
    return Settings(**given | {"database_url": urls[0], "cells": cells} | more)


async def project_in(api: Api, **where: Any) -> Project:
    """With its first owner key."""
    made = await api.operator.post("/admin/v1/projects", json={"name": "a project"} | where)
    assert made.status_code == 201, made.text
    key = await api.operator.post(
        f"/admin/v1/projects/{made.json()['id']}/keys", json={"name": "first", "role": "owner"}
    )
    assert key.status_code == 201, key.text
    secret = key.json()["secret"]
    return Project(made.json()["id"], secret, "test", await api.client(secret))


async def create(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}} | more
    return await client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})


async def count(url: str, table: str, column: str, value: UUID | str) -> int:
    connection = await asyncpg.connect(url)
    try:
        found: int = await connection.fetchval(f"select count(*) from vx.{table} where {column} = $1", value)
        return found
    finally:
        await connection.close()


def event(n: int, type_: str = "speech.started", **data: Any) -> dict[str, Any]:
    return {
        "n": n, "id": ids.encode(ids.EVENT, new_id()), "type": type_, "at_ms": AT_MS + n, "data": data,
    }  # fmt: skip


@dataclass
class EveryEdge:
    """One edge with a real uplink to one instance, and calls of whatever cell. Answers commands with `done`; keeps them."""

    api: Api
    identity: Identity
    region: str
    socket: ClientConnection
    commands: list[dict[str, Any]] = field(default_factory=list)
    acks: dict[int, dict[str, Any]] = field(default_factory=dict)
    batch: int = 0

    async def listen(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            if message["type"] == "ack":
                self.acks[message["batch"]] = message
            elif message["type"] == "desired":
                self.commands += message["commands"]
                version = message["commands"][-1]["version"]
                await self.socket.send(json.dumps({"type": "done", "version": version}))

    async def beat(self) -> None:
        while True:
            await self.socket.send(json.dumps({"type": "heartbeat", "at_ms": 1, "load": LOAD}))
            await asyncio.sleep(1)

    async def append(self, *runs: tuple[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """One batch; the results of its acknowledgement."""
        self.batch += 1
        number = self.batch
        calls = [{"call": call, "epoch": 1, "events": run} for call, run in runs]
        await self.socket.send(json.dumps({"type": "events", "batch": number, "calls": calls}))
        await until(lambda: _is(number in self.acks))
        results: list[dict[str, Any]] = self.acks[number]["results"]
        return results

    def told(self, call: str) -> list[str]:
        return [c["kind"] for c in self.commands if c["call"] == call]


LOAD = {"calls": 0, "capacity_calls": 50}


async def _is(value: bool) -> bool:
    return value


@asynccontextmanager
async def edge_of(api: Api, region: str, jurisdiction: str, folder: Path) -> AsyncIterator[EveryEdge]:
    """The only one of its region, known to every cell of every instance that `api` is one of."""
    await api.operator.post("/admin/v1/regions", json={"id": region, "jurisdiction": jurisdiction})
    token = (await api.operator.post(f"/admin/v1/regions/{region}/enrol")).json()["token"]
    identity = Identity(folder)
    body = {
        "name": "edge-1",
        "region": region,
        "incarnation": identity.incarnation,
        "listeners": {"media_url": "ws://127.0.0.1:9", "http_url": "http://127.0.0.1:9"},
        "capacity_calls": 50,
        "public_key": identity.public_key,
    }
    client = await api.client()
    answer = await client.post("/edge/v1/register", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    identity.registered(answer.json()["edge_id"])
    headers = {"Authorization": f"Bearer {identity.token(region)}"}
    url = api.url.replace("http", "ws") + "/edge/v1/uplink"
    async with connect(url, additional_headers=headers, ping_interval=None, max_size=4 << 20) as socket:
        hello = {"type": "hello", "incarnation": identity.incarnation, "desired_version": 0, "load": LOAD}
        await socket.send(json.dumps(hello))
        edge = EveryEdge(api, identity, region, socket)
        tasks = [asyncio.create_task(edge.listen()), asyncio.create_task(edge.beat())]
        try:
            await known_everywhere(api)
            yield edge
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def known_everywhere(*apis: Api) -> None:
    """Until every cell that answers has a copy of the fleet's edges."""

    async def known() -> bool:
        return all(
            control.calls.fleet.now.edges and not any(e.draining for e in control.calls.fleet.now.edges)
            for api in apis
            for control in api.control.cells
        )

    await until(known)
