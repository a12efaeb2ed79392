"""The client's reader of the WebSocket: every event once, acknowledged, over broken connections; and what it gives up on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from app.log import socket as server
from tests.support.api import Api, Project
from tests.support.fleet import three_regions
from tests.support.hooks import make_call
from voxplane import ApiError, AsyncClient

WITHIN_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@asynccontextmanager
async def cutting(port: int) -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A way to the instance whose connections can be cut."""
    open_: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        open_.extend((writer, forth))
        await asyncio.gather(carry(reader, forth), carry(back, writer))

    async with await asyncio.start_server(one, "127.0.0.1", 0) as listener:
        try:
            yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", open_
        finally:
            for writer in open_:
                writer.transport.abort()


async def test_every_event_comes_once_over_broken_connections(api: Api, project: Project) -> None:
    async with cutting(api.port) as (url, open_), AsyncClient(url, project.key) as client:
        began: list[None] = []
        await make_call(project)  # before: it does not come
        seen = []
        reading = client.follow_events(types=["call.*"], window=2, opened=lambda: began.append(None))
        async with asyncio.timeout(WITHIN_S), aclosing(reading):
            first = asyncio.ensure_future(anext(reading))
            while not began:
                await asyncio.sleep(0.01)
            calls = [await make_call(project) for _ in range(6)]
            seen.append((await first)["call_id"])
            for n in range(1, 6):
                if n in (2, 4):
                    for writer in open_:
                        writer.transport.abort()
                seen.append((await anext(reading))["call_id"])
        assert seen == calls
        assert len(began) >= 3


async def test_it_acknowledges_so_a_small_window_is_enough(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    acked: list[str] = []
    before = server.FeedSocket._acknowledged

    def seen(self: server.FeedSocket, cursor: str) -> None:
        acked.append(cursor)
        before(self, cursor)

    monkeypatch.setattr(server.FeedSocket, "_acknowledged", seen)
    page = (await project.client.get("/v1/events")).json()
    calls = [await make_call(project) for _ in range(8)]
    async with AsyncClient(api.url, project.key) as client, asyncio.timeout(WITHIN_S):
        reading = client.follow_events(page["next_cursor"], window=1)
        found = [(await anext(reading))["call_id"] for _ in range(8)]
        await reading.aclose()
    assert found == calls
    assert len(acked) == 7, "the last one was not dealt with"


async def test_it_begins_by_time_and_goes_to_the_next_instance(api: Api, project: Project) -> None:
    began = datetime.now(UTC) - timedelta(minutes=1)
    call = await make_call(project)
    async with AsyncClient(["http://127.0.0.1:9", api.url], project.key) as client, asyncio.timeout(WITHIN_S):
        reading = client.follow_events(since=began.isoformat())
        assert (await anext(reading))["call_id"] == call
        await reading.aclose()


async def test_what_is_of_no_use_is_not_tried_again(api: Api, project: Project) -> None:
    async with asyncio.timeout(WITHIN_S):
        other = project.key[:-1] + ("y" if project.key.endswith("x") else "x")
        for key, cursor, status in ((project.key, "nonsense", 400), (other, None, 401)):
            async with AsyncClient(api.url, key) as client:
                with pytest.raises(ApiError) as refused:
                    await anext(client.follow_events(cursor))
                assert refused.value.status == status
                assert refused.value.fix
