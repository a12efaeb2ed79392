"""Feeds on real processes: readers that are cut while an instance is killed, and words that are heard before they are said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.local.deployment import Deployment
from app.local.proof import check_data
from tests.chaos.feed_cuts import prove
from tests.support.deployed import deployed
from tests.support.engines import Engines
from tests.support.schemas import event_faults
from voxplane import AsyncCaller, AsyncClient

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WITHIN_S = 30.0


@pytest.fixture(scope="module")
async def deployment(engines: Engines) -> AsyncIterator[Deployment]:
    async with deployed(engines, regions=1) as running:
        yield running


async def test_no_reader_misses_an_event_or_has_one_twice(deployment: Deployment) -> None:
    verdict = await prove(deployment, readers=24, projects=3, seconds=5.0, kills=1, mean_s=0.5, seed=11)
    assert verdict.faults == []
    assert verdict.events > 50
    assert verdict.cuts > 24


async def mutter(socket: ServerConnection) -> None:
    """A backend that hears words before it is sure of them."""

    async def say(type_: str, **data: Any) -> None:
        await socket.send(json.dumps({"event": "voxplane", "type": type_, "data": data}))

    heard = 0
    async for message in socket:
        if json.loads(message)["event"] != "media":
            continue
        heard += 1
        if heard % 10 == 0:
            await say("transcript.partial", role="caller", text=f"where is {heard}", sure=0.5)
        if heard == 100:
            await say("turn.ended", role="caller", text="where is my order")


async def test_partial_words_are_heard_on_the_other_instance_and_kept_nowhere(deployment: Deployment) -> None:
    _, key = await deployment.create_project("words")
    live: list[dict[str, Any]] = []
    open_ = asyncio.Event()

    async def listen() -> None:
        async with AsyncClient(deployment.api_urls[1], key) as client:
            async for event in client.stream_events(volatile=True, opened=open_.set):
                live.append(event)  # noqa: PERF401  it never ends

    async with serve(mutter, "127.0.0.1", 0) as backend, AsyncClient(deployment.api_urls, key) as client:
        listening = asyncio.create_task(listen())
        await open_.wait()
        port = next(iter(backend.sockets)).getsockname()[1]
        call = await client.create_call(f"ws://127.0.0.1:{port}/")
        async with AsyncCaller(call["ticket"]) as caller, asyncio.timeout(WITHIN_S):
            while not any(e["type"] == "turn.ended" for e in live):
                await caller.send(b"\0" * 640)
                await asyncio.sleep(0.02)
            await caller.hangup()
        async with asyncio.timeout(WITHIN_S):
            while live[-1]["type"] != "call.ended":
                await asyncio.sleep(0.02)
        listening.cancel()
        stored = await client.events_of(call["id"])
    partial = [e for e in live if e["type"] == "transcript.partial"]
    assert partial
    assert all(e["call_id"] == call["id"] and "seq" not in e and "id" not in e for e in partial)
    assert partial[-1]["data"]["text"].startswith("where is ")
    assert [e for e in live if e not in partial] == stored
    assert [fault for e in stored + partial for fault in event_faults(e)] == []
    assert check_data(stored) == []
