"""The main job, on real processes: an edge is killed in the middle of a call, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.local.caller_script import Talker
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import works_in
from app.local.proof import check_events, check_webhooks
from app.local.receiver import WebhookReceiver
from voxplane import AsyncCaller, AsyncClient, watch

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("patient")]

RATE_HZ = 16_000


class ToneBackend:
    """Plays a tone on every socket it is given, says what it says, and keeps every `start`."""

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.acks: list[dict[str, Any]] = []
        self.newest: ServerConnection | None = None
        self.url = ""

    @property
    def acked(self) -> list[str]:
        return [m["data"]["id"] for m in self.acks if m["type"] == "ack"]

    async def call_tool(self, id_: str) -> None:
        assert self.newest is not None
        data = {"id": id_, "name": "look", "arguments": {}}
        await self.newest.send(json.dumps({"event": "voxplane", "type": "tool.called", "data": data}))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[ToneBackend]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        tone: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    self.newest = socket
                    self.starts.append(message["start"])
                    tone = asyncio.create_task(self._tone(socket, len(self.starts)))
                elif message["event"] == "voxplane":
                    self.acks.append(message)
        except ConnectionClosed:
            pass
        finally:
            if tone is not None:
                tone.cancel()

    async def _tone(self, socket: ServerConnection, number: int) -> None:
        async def tell(kind: str, data: dict[str, Any]) -> None:
            await socket.send(json.dumps({"event": "voxplane", "type": kind, "data": data}))

        try:
            await tell("turn.ended", {"role": "caller", "text": f"question {number}"})
            await tell("tool.called", {"id": f"t{number}", "name": "look", "arguments": {"n": number}})
            await tell("tool.result", {"id": f"t{number}", "result": {"found": number}})
            await tell("transcript.final", {"role": "agent", "text": f"answer {number}"})
            while True:
                payload = base64.b64encode(bytes([0x10, 0x90]) * 80).decode()
                await socket.send(json.dumps({"event": "media", "media": {"payload": payload}}))
                await asyncio.sleep(0.02)
        except ConnectionClosed:
            return


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    folder = temporary_folder("voxplane-e2e")
    try:
        async with Deployment(folder, places=PLACES[:3], instances=2, fsync=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may hold an edge up for half a second. Here a call moves because a socket closes, and silence is waited out."""
    monkeypatch.setattr(watch, "PREPARE_AFTER_MS", 20_000)
    monkeypatch.setattr(watch, "TAKE_AFTER_MS", 25_000)


async def until(true: Any, what: str, within_s: float = 15.0) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not true():
        assert loop.time() < deadline, what
        await asyncio.sleep(0.01)


async def test_a_call_survives_the_death_of_its_edge_and_of_an_instance(deployment: Deployment) -> None:
    _, key = await deployment.create_project("e2e")
    async with (
        ToneBackend().run() as backend,
        WebhookReceiver() as receiver,
        AsyncClient(deployment.api_urls, key) as client,
    ):
        receiver.secret = (await client.create_webhook(receiver.url))["secret"]
        near = [
            {"region": "us-east", "rtt_ms": 10},
            {"region": "eu-west", "rtt_ms": 90},
            {"region": "ap-south", "rtt_ms": 200},
        ]
        call = await client.create_call(backend.url, latencies=near)
        async with (
            AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
            Talker(caller, RATE_HZ) as talker,
        ):
            await talker.until_heard(since=0.0)
            await until(lambda: backend.acks, "the tool call was not acknowledged")
            assert backend.acks[0]["type"] == "ack"
            assert (caller.region, caller.epoch) == ("us-east", 1)

            os.kill(deployment.apis[0].pid, signal.SIGKILL)
            os.kill(deployment.regions["us-east"].edge.pid, signal.SIGKILL)
            await talker.until_moved()
            assert (caller.region, caller.epoch) == ("eu-west", 2)
            await talker.until_notice("call.reconnected")
            await until(lambda: caller.gaps[-1].audio_gap_s is not None, "no audio after the failover")
            await until(lambda: len(backend.acks) > 1, "the second tool call was not acknowledged")
            await caller.hangup()
        assert caller.end_reason == "caller_hung_up"

        resumed = backend.starts[1]["customParameters"]
        assert (resumed["voxplane_resumed"], resumed["voxplane_epoch"]) == ("true", "2")
        turns = json.loads(resumed["voxplane_conversation"])["turns"]
        assert turns[0] == {"role": "caller", "text": "question 1"}
        assert (turns[1]["role"], turns[1]["result"]) == ("tool", {"found": 1})
        assert (turns[2]["role"], turns[2]["interrupted"]) == ("agent", True)

        async def ended() -> bool:
            return (await client.get_call(call["id"]))["state"] == "completed"

        for _ in range(500):
            if await ended():
                break
            await asyncio.sleep(0.02)
        events = await client.events_of(call["id"])

        def heard() -> list[dict[str, Any]]:
            """Once each: what the instance that was killed had under way comes again, under the same id."""
            return list({e["id"]: e for e in receiver.received}.values())

        await until(lambda: len(heard()) >= len(events), "webhooks are missing", 30)
        assert check_events(await client.get_call(call["id"]), events) == []
        assert check_webhooks(events, heard(), receiver.faults) == []
        kinds = [e["type"] for e in events]
        assert kinds[-2:] == ["turn.interrupted", "call.ended"], "what was heard of the last answer is kept"
        assert kinds.count("call.reconnecting") == kinds.count("call.reconnected") == 1
        assert [e["data"]["text"] for e in events if e["type"] == "turn.ended"] == [
            "question 1",
            "question 2",
        ]


async def test_an_edge_that_is_told_to_stop_hands_its_calls_over(deployment: Deployment) -> None:
    _, key = await deployment.create_project("e2e-stop")
    async with ToneBackend().run() as backend, AsyncClient(deployment.api_urls, key) as client:
        call = await client.create_call(backend.url, regions={"pin": "ap-south"})
        async with (
            AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
            Talker(caller, RATE_HZ) as talker,
        ):
            await talker.until_heard(since=0.0)
            edge = deployment.regions["ap-south"].edge
            edge.send_signal(signal.SIGTERM)
            await talker.until_moved()
            assert caller.region == "eu-west"
            await caller.hangup()
        assert caller.end_reason == "caller_hung_up"
        await until(lambda: edge.poll() is not None, "the edge did not stop", 60.0)
        assert edge.returncode == 0


@pytest.mark.slow
async def test_an_instance_that_hangs_is_left_for_the_other(deployment: Deployment) -> None:
    """Stopped, not killed: its sockets stay open and take what is sent. Whichever carries the uplink is among the two. That
    events come to the log is not enough, for the spool sees to that: the edge itself must hear of it."""
    _, key = await deployment.create_project("e2e-hang")
    await deployment.mend()
    async with deployment.operator() as operator:
        await deployment.until_healthy(operator)
    async with ToneBackend().run() as backend, AsyncClient(deployment.api_urls, key) as client:
        call = await client.create_call(backend.url, regions={"pin": "us-east"})
        async with AsyncCaller(call["ticket"], sample_rate=RATE_HZ) as caller:
            await until(lambda: backend.acked, "the log was never reached")
            for hung, tool in enumerate(("first", "second")):
                os.kill(deployment.apis[hung].pid, signal.SIGSTOP)
                try:
                    await backend.call_tool(tool)
                    await until(lambda tool=tool: tool in backend.acked, "no acknowledgement", 30.0)
                finally:
                    os.kill(deployment.apis[hung].pid, signal.SIGCONT)
            assert (caller.region, caller.epoch) == ("us-east", 1)
            await caller.hangup()


@pytest.mark.slow
async def test_what_an_edge_wrote_while_the_log_was_away_outlives_the_edge(deployment: Deployment) -> None:
    """PostgreSQL dies, the edge goes on and then dies too, its caller leaves: only the spool still has the digits."""
    _, key = await deployment.create_project("e2e-spool")
    postgres, region = deployment.postgres, deployment.regions["us-east"]
    assert postgres is not None and region.valkey is not None
    await deployment.mend()
    async with deployment.operator() as operator:
        await deployment.until_healthy(operator)
    async with ToneBackend().run() as backend, AsyncClient(deployment.api_urls, key) as client:
        call = await client.create_call(backend.url, regions={"pin": "us-east"})
        async with (
            AsyncCaller(call["ticket"], sample_rate=RATE_HZ) as caller,
            Talker(caller, RATE_HZ) as talker,
        ):
            await talker.until_heard(since=0.0)
            await until(lambda: backend.acks, "the log was never reached")
            assert caller.region == "us-east"
            os.kill(postgres.pid, signal.SIGKILL)
            data = postgres.folder / "data"
            # those of its processes that are in the middle of a statement still commit it
            await until(
                lambda: not any(works_in(int(p), data) for p in os.listdir("/proc") if p.isdigit()),
                "a backend",
            )
            for digit in "1234":
                await caller.dtmf(digit)
            await until_spooled(region.valkey.url, 4)
            os.kill(region.edge.pid, signal.SIGKILL)
            region.edge.wait()
            await caller.close()
        await deployment.mend()

        async def digits() -> list[str]:
            events = await client.events_of(call["id"])
            return [e["data"]["digit"] for e in events if e["type"] == "dtmf.received"]

        async with asyncio.timeout(30):
            while await digits() != list("1234"):
                await asyncio.sleep(0.1)


async def until_spooled(url: str, count: int) -> None:
    async with redis.from_url(url) as client, asyncio.timeout(20):
        while True:
            kept = [await client.hlen(k) async for k in client.scan_iter("spool:*call_*")]
            if sum(kept) >= count:
                return
            await asyncio.sleep(0.05)
