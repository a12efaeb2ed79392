"""A drain of the fleet, carried out by every cell for its own calls, and counted in all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.log.append import EdgeIdentity
from app.settings import Settings
from regions.wire import ids
from regions.wire.uplink import CallEvents
from tests.support import calls as written
from tests.support.api import Api, Project, serving
from tests.support.cells import (
    EveryEdge,
    count,
    create,
    edge_of,
    event,
    known_everywhere,
    project_in,
    settings_of,
)
from tests.support.engines import Engines
from tests.support.fleet import add_region
from tests.support.hooks import until


@dataclass
class Fleet:
    """`edge` is the only one of us-east, `other` stands on paper in us-west."""

    urls: list[str]
    api: Api
    projects: list[Project]
    edge: EveryEdge
    other: EdgeIdentity

    async def answered(self, cell: int) -> str:
        """A call of the cell, in progress on `edge`."""
        made = await create(self.projects[cell].client, regions={"pin": "us-east"})
        assert made.status_code == 201, made.text
        (result,) = await self.edge.append((made.json()["id"], [event(1, "call.answered")]))
        assert result["status"] == "durable"
        return str(made.json()["id"])

    async def progress(self) -> dict[str, Any]:
        shown: dict[str, Any] = (await self.api.operator.get("/admin/v1/regions/us-east/drain")).json()
        return shown

    async def events(self, type_: str) -> int:
        """How many the fleet's own log has, in whichever cell."""
        return sum([await count(url, "fleet_events", "type", type_) for url in self.urls])

    async def take(self, call: str) -> None:
        """As the caller would: the edge that was granted the newest epoch of the move writes that the call is its own."""
        (move,) = [c for c in self.edge.commands if (c["kind"], c["call"]) == ("move", call)]
        assert move["body"]["ticket"]
        call_id = ids.decode(ids.CALL, call)
        control = self.api.control.cells.of(call_id)
        assert control is not None
        (stored,) = await control.calls.store.get_many([call_id])
        epoch = max(n for n, edge in enumerate(stored.grant_edges, start=1) if edge == self.other.edge_id)
        moved = written.event(1, "call.moved", from_epoch=1, to_epoch=epoch, reason="planned", history="tail")
        run = CallEvents(call=call, epoch=epoch, events=[moved])
        (status,) = await self.api.control.uplinks.appends.append(self.other, [run])
        assert status.status == "durable", status


@pytest.fixture
async def fleet(engines: Engines, settings: Settings, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        urls = [settings.database_url, await stack.enter_async_context(engines.database())]
        api = await stack.enter_async_context(serving(settings_of(settings, urls, ["us", "eu"])))
        edge = await stack.enter_async_context(edge_of(api, "us-east", "us", tmp_path / "edge"))
        other = EdgeIdentity(*await add_region(api, "us-west"), "us-west")
        await known_everywhere(api)
        projects = [await project_in(api, cell=n) for n in (0, 1)]
        yield Fleet(urls, api, projects, edge, other)


async def test_a_drain_moves_the_calls_of_every_cell_and_is_done_when_the_last_has_left(fleet: Fleet) -> None:
    ours, theirs = await fleet.answered(0), await fleet.answered(1)
    begun = await fleet.api.operator.post("/admin/v1/regions/us-east/drain", json={"within_s": 600})
    assert begun.status_code in (200, 202), begun.text
    assert begun.json()["total"] == 2

    async def told() -> bool:
        return all("move" in fleet.edge.told(call) for call in (ours, theirs))

    await until(told)
    for url, call in zip(fleet.urls, (ours, theirs), strict=True):
        assert await count(url, "moves", "call_id", ids.decode(ids.CALL, call)) == 1

    await fleet.take(ours)

    async def left() -> tuple[int, int, str]:
        shown = await fleet.progress()
        return shown["left"], shown["moved"], shown["state"]

    async def one_left() -> bool:
        return await left() == (1, 1, "running")

    await until(one_left)
    assert await fleet.events("edge.drained") == 0
    await fleet.take(theirs)

    async def none_left() -> bool:
        return await left() == (0, 2, "drained")

    await until(none_left)
    assert await fleet.events("edge.drained") == 1

    assert (await fleet.api.operator.post("/admin/v1/regions/us-east/uncordon")).status_code == 200

    async def over() -> bool:
        return [await count(url, "drains", "outcome", "canceled") for url in fleet.urls] == [1, 1]

    await until(over)
