"""Two PostgreSQL servers, one cell on each; each is killed in its turn, and the other's calls go on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.local.folder import temporary_folder
from app.local.postgres import Postgres
from app.migrate import migrate
from app.preflight import check_instance
from app.settings import Settings
from regions.wire import ids
from tests.conftest import make_settings
from tests.support.api import Api, Project, problem, serving
from tests.support.cells import EveryEdge, create, edge_of, event, known_everywhere, project_in, settings_of
from tests.support.hooks import until

pytestmark = pytest.mark.slow

PLACES = ["us", "eu"]
ISOLATED_WITHIN_S = 8.0
"""What a dead cell may cost the others' batches at the very most: the deadline of one statement, and a loaded machine."""


@dataclass
class Servers:
    postgres: list[Postgres]
    settings: Settings
    api: Api
    edge: EveryEdge
    projects: list[Project]

    def kill(self, cell: int) -> None:
        self.postgres[cell].process.send_signal(signal.SIGKILL)
        self.postgres[cell].process.wait(10)

    async def restart(self, cell: int) -> None:
        await self.postgres[cell].stop()
        await self.postgres[cell].start()

    async def call(self, cell: int) -> str:
        answer = await create(self.projects[cell].client)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def until_served(self, cell: int) -> None:
        async def served() -> bool:
            return (await create(self.projects[cell].client)).status_code == 201

        await until(served, 30)

    async def append(self, *runs: tuple[str, int]) -> list[str]:
        """(call, n) each; the statuses, within the bound that a dead cell may cost."""
        began_s = time.monotonic()
        results = await self.edge.append(
            *((call, [event(n, "call.answered" if n == 1 else "speech.started")]) for call, n in runs)
        )
        assert time.monotonic() - began_s < ISOLATED_WITHIN_S
        return [r["status"] for r in results]


@pytest.fixture
async def servers(redis_urls: dict[str, str], tmp_path: Path) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        folder = temporary_folder("voxplane-cells")
        postgres = [Postgres(folder / f"cell-{n}", fsync=False, database="vx") for n in (0, 1)]
        for server in postgres:
            await stack.enter_async_context(server)
            await migrate(server.dsn)
        urls = [server.dsn for server in postgres]
        settings = settings_of(make_settings(urls[0], redis_urls, tmp_path / "data"), urls, PLACES)
        api = await stack.enter_async_context(serving(settings))
        edge = await stack.enter_async_context(edge_of(api, "us-east", "us", tmp_path / "edge"))
        projects = [await project_in(api, cell=n) for n in (0, 1)]
        yield Servers(postgres, settings, api, edge, projects)


async def test_a_dead_cell_takes_its_own_projects_with_it_and_no_others(servers: Servers) -> None:
    ours, theirs = await servers.call(0), await servers.call(1)
    assert await servers.append((ours, 1), (theirs, 1)) == ["durable", "durable"]
    anyone = await servers.api.client()

    servers.kill(1)
    assert await servers.append((ours, 2), (theirs, 2)) == ["durable", "busy"]
    await servers.call(0)
    refused = await create(servers.projects[1].client)
    assert problem(refused) == (503, "unavailable")
    ready = await anyone.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert [c["ready"] for c in ready.json()["cells"]] == [True, False]
    assert [r.partition(":")[0] for r in ready.json()["reasons"]] == ["cell 1"]
    listed = (await servers.api.operator.get("/admin/v1/projects")).json()
    assert ([p["cell"] for p in listed["data"]], listed["cells_away"]) == ([0], [1])

    # an instance that starts now serves what is there, and the rest when it comes back
    await check_instance(servers.settings)
    async with serving(servers.settings) as late:
        client = await late.client(servers.projects[0].key)
        assert (await create(client)).status_code == 201
        await servers.restart(1)
        await servers.until_served(1)
        await known_everywhere(late)
        assert (await create(await late.client(servers.projects[1].key))).status_code == 201
    # the same numbers again: the outcome was unknown
    await until(lambda: _durable(servers, theirs, 2))
    assert (await anyone.get("/readyz")).json()["status"] == "ready"


async def _durable(servers: Servers, call: str, n: int) -> bool:
    results = await servers.edge.append((call, [event_of(n)]))
    return [r["status"] for r in results] == ["durable"]


def event_of(n: int) -> dict[str, object]:
    """The same whenever it is sent."""
    return event(n) | {"id": ids.encode(ids.EVENT, ids.uuid7(1_700_000_000_000, n))}


async def test_with_the_home_cell_dead_the_others_calls_are_made_and_go_on(servers: Servers) -> None:
    theirs = await servers.call(1)
    assert await servers.append((theirs, 1)) == ["durable"]

    servers.kill(0)
    made = await servers.call(1)
    assert await servers.append((theirs, 2), (made, 1)) == ["durable", "durable"]
    assert problem(await create(servers.projects[0].client)) == (503, "unavailable")
    anyone = await servers.api.client()
    ready = await anyone.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    # the end is in the call's own log at once; the edge is told when the home cell can carry the word
    ended = await servers.projects[1].client.post(f"/v1/calls/{theirs}/end")
    assert (ended.status_code, ended.json()["state"]) == (200, "completed")
    assert servers.edge.told(theirs) == []

    await servers.restart(0)
    await until(lambda: _told(servers, theirs), 30)
    await servers.until_served(0)

    servers.kill(0)
    servers.kill(1)
    assert (await anyone.get("/readyz")).status_code == 503
    await asyncio.gather(servers.restart(0), servers.restart(1))


async def _told(servers: Servers, call: str) -> bool:
    return servers.edge.told(call) == ["end"]
