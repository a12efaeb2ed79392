"""Bots that hang up over Twilio's REST API when a socket of theirs dies, on real processes: the call that is taken over lives."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.local.caller_script import Talker
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from tests.support.edges import until
from voxplane import AsyncCaller, AsyncClient, watch

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.usefixtures("patient"),
]

RATE_HZ = 16_000


class Bot:
    """Posts `Status=completed` whenever a socket of it is gone, as Pipecat's serializer does. `answers`: by socket."""

    def __init__(self, base_url: str, key: str) -> None:
        self.base_url, self.key = base_url, key
        self.starts: list[dict[str, Any]] = []
        self.answers: dict[int, httpx.Response] = {}
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Bot]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def hang_up(self, socket: int) -> httpx.Response:
        start = self.starts[socket]
        path = f"/2010-04-01/Accounts/{start['accountSid']}/Calls/{start['callSid']}.json"
        async with httpx.AsyncClient(base_url=self.base_url, trust_env=False, timeout=20) as client:
            return await client.post(path, data={"Status": "completed"}, auth=(start["accountSid"], self.key))

    async def _call(self, socket: ServerConnection) -> None:
        number = -1
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    number = len(self.starts)
                    self.starts.append(message["start"])
                elif message["event"] == "media" and number >= 0:
                    await socket.send(json.dumps({"event": "media", "media": message["media"]}))
        except ConnectionClosed:
            pass
        self.answers[number] = await self.hang_up(number)


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    folder = temporary_folder("voxplane-e2e-hang-up")
    try:
        async with Deployment(folder, places=PLACES[:2], instances=1, fsync=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a call moves because a socket closes; a busy machine may be silent for a while."""
    monkeypatch.setattr(watch, "PREPARE_AFTER_MS", 20_000)
    monkeypatch.setattr(watch, "TAKE_AFTER_MS", 25_000)


async def test_a_bot_whose_edge_has_died_ends_nothing_and_the_one_after_it_does(
    deployment: Deployment,
) -> None:
    _, key = await deployment.create_project("e2e-hang-up")
    async with Bot(deployment.api_urls[0], key).run() as bot, AsyncClient(deployment.api_urls, key) as client:
        near = [{"region": "us-east", "rtt_ms": 10}, {"region": "eu-west", "rtt_ms": 90}]
        call = await client.create_call(bot.url, latencies=near)
        async with (
            AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
            Talker(caller, RATE_HZ) as talker,
        ):
            await talker.until_heard(since=0.0)
            os.kill(deployment.regions["us-east"].edge.pid, signal.SIGKILL)
            await talker.until_moved()
            await talker.until_notice("call.reconnected")
            await until(lambda: 0 in bot.answers, "what the first socket's bot was answered", 30)
            assert (bot.answers[0].status_code, bot.answers[0].json()["code"]) == (404, 20404)
            again = await bot.hang_up(0)
            assert (again.status_code, again.json()["code"]) == (404, 20404)
            assert (await client.get_call(call["id"]))["state"] == "in_progress"
            assert (caller.epoch, caller.end_reason) == (2, None)

            answer = await bot.hang_up(1)
            assert (answer.status_code, answer.json()["status"]) == (200, "completed"), answer.text
            async with asyncio.timeout(20):
                while caller.end_reason is None:
                    await asyncio.sleep(0.01)
            assert caller.end_reason == "agent_hung_up"
        shown = await client.get_call(call["id"])
        assert (shown["state"], shown["end_reason"]) == ("completed", "agent_hung_up")
        await until(lambda: 1 in bot.answers, "what the second socket's bot was answered")
        assert bot.answers[1].json()["code"] == 20404
