"""The console's map: what its event stream tells of calls that move, from which moment on, and to whom."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from typing import Any

import pytest

from app.log.append import EdgeIdentity
from regions.wire import ids
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, create_call, event, owners_in
from tests.support.people import Browser, signed_in


@pytest.fixture(scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, ("us-west", "eu-west"))


class Stream:
    """Of server-sent events: (event, data)."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines

    async def next(self, kind: str) -> str:
        async with asyncio.timeout(20):
            event_, data = "", []
            async for line in self._lines:
                if line.startswith("event: "):
                    event_ = line[7:]
                elif line.startswith("data: "):
                    data.append(line[6:])
                elif not line:
                    if event_ == kind:
                        return "\n".join(data)
                    event_, data = "", []
        raise AssertionError(f"the stream ended without {kind}")


async def test_the_map_shows_a_failover_as_it_happens(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await create_call(project, owners)
    came, _ = await signed_in(api, "map@c.example", {project.id: "viewer"})
    shown = (await came.get(f"/console/p/{project.id}/map")).text
    assert "Calls now, 1 not answered yet</dt><dd>1</dd>" in shown
    await call.append(api, 1, event(1, "call.answered"))
    foreign = await api.project()
    elsewhere, _ = await signed_in(api, "foreign@c.example", {foreign.id: "viewer"})
    operator, _ = await signed_in(api, "world@c.example", operator=True)
    assert "<dd>0</dd>" in (await elsewhere.get(f"/console/p/{foreign.id}/map")).text
    paths = {came: f"/console/p/{project.id}/map/live", operator: "/console/map/live"}
    both = asyncio.Barrier(len(paths))
    async with asyncio.TaskGroup() as group:
        for who, path in paths.items():
            group.create_task(_sees_a_failover(who, path, api, call, both))


async def _sees_a_failover(
    who: Browser, path: str, api: Api, call: WrittenCall, both: asyncio.Barrier
) -> None:
    """A stream tells what has moved since its own first look: the call is to move when both have looked."""
    async with who.client.stream("GET", path) as answer:
        stream = Stream(answer.aiter_lines())
        assert "map-figures" in await stream.next("html")
        if await both.wait() == 0:
            await call.append(api, 2, event(1, "call.reconnecting", reason="edge_lost"))
        moved = await stream.next("moved")
        assert '"kind":"failover"' in moved and '"calls":1' in moved
        assert call.owners[0].region in moved and call.owners[1].region in moved


async def test_a_stream_of_the_map_begins_with_what_has_moved_since_its_page(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    """As when the instance that served it dies with the region: the page connects to another, and has missed the failover."""
    call = await create_call(project, owners)
    await call.append(api, 1, event(1, "call.answered"))
    came, _ = await signed_in(api, "recalls@c.example", {project.id: "viewer"})
    operator, _ = await signed_in(api, "recalls-all@c.example", operator=True)
    pages = {came: f"/console/p/{project.id}/map", operator: "/console/map"}
    streams = {who: live_of((await who.get(path)).text) for who, path in pages.items()}
    moved = {"reason": "silent", "from_epoch": 1, "to_epoch": 2, "history": "tail"}
    await call.append(api, 2, event(1, "call.reconnecting", **moved))
    await looked_at(api, call, owner_of=2)
    shown = f"<strong>{call.owners[0].region}</strong> → <strong>{call.owners[1].region}</strong>"
    for who, path in streams.items():
        assert shown in await first_happened(who, path), path
    bare = pages[came] + "/live"
    for query in ("", "?since=99999999999999", "?since=9999999999999", "?since=-1", "?since=x"):
        assert "Nothing has moved" in await first_happened(came, bare + query), query


async def looked_at(api: Api, call: WrittenCall, *, owner_of: int) -> None:
    """A look serves several readers for a quarter of a second: the next one of each kind has the call with this epoch."""
    id_ = ids.decode(ids.CALL, call.id)
    async with asyncio.timeout(20):
        for scope in (ids.decode(ids.PROJECT, call.project.id), None):
            while (await api.control.live_calls.look(scope))[id_].epoch != owner_of:
                await asyncio.sleep(0.01)


def live_of(page: str) -> str:
    found = re.search(r'sse-connect="([^"]+)"', page)
    assert found is not None
    return unescape(found.group(1))


async def first_happened(who: Browser, path: str) -> str:
    async with who.client.stream("GET", path) as answer:
        assert answer.status_code == 200
        stream = Stream(answer.aiter_lines())
        while "map-happened" not in (part := await stream.next("html")):
            pass
        return part
