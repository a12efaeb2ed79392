"""The page in a real Chromium, with a microphone made of a file: audio both ways, an edge that dies, one that hangs, a move.

What was measured goes to ``build/browser.json``, the pictures beside it. No length of a gap is asserted: a busy machine makes it
longer.
"""

from __future__ import annotations

import array
import asyncio
import base64
import json
import math
import os
import shutil
import signal
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.local.deployment import Deployment
from app.local.folder import temporary_folder
from app.local.talk import page_urls
from tests.support.chromium import Chromium
from tests.support.deployed import deployed
from tests.support.engines import Engines
from voxplane import AsyncClient

pytestmark = [pytest.mark.browser]

BUILD = Path(__file__).parents[2] / "build"
LOUD_MULAW = 0x40
"""A byte whose lower seven bits are below it is louder than -20 dB or so."""
NEAR = [{"region": name, "rtt_ms": ms} for name, ms in (("us-east", 10), ("eu-west", 90), ("ap-south", 200))]
MEASURED: dict[str, Any] = {}


class Bot:
    """Plays a tone on every socket, in time, and counts the loud frames that it hears."""

    def __init__(self) -> None:
        self.url = ""
        self.loud = 0
        self.frames = 0
        self.sent_ms: list[int] = []
        """Of the tone, per socket."""
        payload = bytes([0x10, 0x10, 0x10, 0x10, 0x90, 0x90, 0x90, 0x90]) * 20
        self._media = json.dumps({"event": "media", "media": {"payload": base64.b64encode(payload).decode()}})

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Bot]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        tone: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    self.sent_ms.append(0)
                    tone = asyncio.create_task(self._tone(socket, len(self.sent_ms) - 1))
                elif message["event"] == "media":
                    samples = base64.b64decode(message["media"]["payload"])
                    self.frames += 1
                    self.loud += sum((b & 0x7F) < LOUD_MULAW for b in samples) > len(samples) // 8
        except ConnectionClosed:
            pass
        finally:
            if tone is not None:
                tone.cancel()

    async def _tone(self, socket: ServerConnection, number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                await socket.send(self._media)
                self.sent_ms[number] += 20
                due += 0.02
                await asyncio.sleep(max(0.0, due - loop.time()))
        except ConnectionClosed:
            return


@pytest.fixture(scope="module")
async def deployment(engines: Engines) -> AsyncIterator[Deployment]:
    async with deployed(engines, talk_page=True, webrtc=True) as running:
        yield running


@pytest.fixture(autouse=True)
async def whole(deployment: Deployment) -> None:
    await deployment.mend()
    async with deployment.operator() as operator:
        await deployment.until_healthy(operator)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = temporary_folder("voxplane-browser")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def measured() -> Iterator[None]:
    yield
    BUILD.mkdir(exist_ok=True)
    (BUILD / "browser.json").write_text(json.dumps(MEASURED, indent=2) + "\n")


def microphone(path: Path) -> Path:
    """Something like syllables: a buzz of 140 Hz with harmonics, four times a second. What is steady is taken for noise."""
    rate, samples = 48_000, array.array("h")
    for i in range(rate * 4):
        t = i / rate
        buzz = sum(math.sin(2 * math.pi * 140 * k * t) / k for k in range(1, 12))
        samples.append(int(9_000 * buzz * max(0.0, math.sin(2 * math.pi * 2 * t))))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


class Talking:
    def __init__(self, browser: Chromium, bot: Bot, client: AsyncClient, call: dict[str, Any]) -> None:
        self.browser, self.bot, self.client, self.call = browser, bot, client, call

    async def region(self) -> str:
        return await self.browser.text("region")

    async def until_heard(self) -> None:
        await self.browser.until("document.getElementById('theirs').value > 0.1")

    async def gap(self, reason: str) -> dict[str, float]:
        """Milliseconds of the newest gap with that reason: `heard` in the loudspeaker, `arrival` of its frames."""
        data = "document.getElementById('gap').dataset"
        await self.browser.until(f"{data}.reason === {reason!r} && {data}.arrivalMs")
        heard, arrival = await self.browser.value(f"[{data}.heardMs, {data}.arrivalMs].map(Number)")
        return {"heard_ms": heard, "arrival_ms": arrival}

    async def events(self) -> list[dict[str, Any]]:
        """Of the call, once it is over."""
        async with asyncio.timeout(30):
            while (await self.client.get_call(self.call["id"]))["state"] != "completed":
                await asyncio.sleep(0.02)
        return await self.client.events_of(self.call["id"])


@asynccontextmanager
async def talking(
    deployment: Deployment, folder: Path, name: str, kind: str = "websocket"
) -> AsyncIterator[Talking]:
    """A call of us-east in the page, whose bot is heard and hears."""
    _, key = await deployment.create_project(name)
    async with (
        Bot().run() as bot,
        AsyncClient(deployment.api_urls, key) as client,
        Chromium(folder / "profile", microphone=microphone(folder / "said.wav")) as browser,
    ):
        async with asyncio.timeout(30):  # an edge that the test before has killed is started again
            while "us-east" not in (pages := page_urls(await client.regions())):
                await asyncio.sleep(0.05)
        page = pages["us-east"]
        # the bot is not to be interrupted: its tone is what gaps are measured by
        call = await client.create_call(bot.url, latencies=NEAR, turns={"mode": "off"}, caller={"kind": kind})
        await browser.open(f"{page}#ticket={call['ticket']}")
        await browser.until("!document.getElementById('talk').disabled")
        assert await browser.value("location.hash") == "", "the ticket does not stay in the address"
        await browser.click("talk")
        talk = Talking(browser, bot, client, call)
        await browser.until("document.getElementById('status').dataset.state === 'attached'")
        await talk.until_heard()
        await until(lambda: bot.loud > 10, "the microphone was not heard")
        assert await talk.region() == "us-east"
        yield talk
        assert [
            c
            for c in browser.complaints
            if "WebSocket connection" not in c and "ERR_CONNECTION_REFUSED" not in c
        ] == []


async def until(true: Any, what: str, within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_the_edge_is_killed_and_the_page_goes_on(deployment: Deployment, folder: Path) -> None:
    async with talking(deployment, folder, "browser-kill") as talk:
        await talk.browser.until("document.getElementById('rtt').dataset.ms")
        MEASURED["round_trip_ms"] = float(
            await talk.browser.value("document.getElementById('rtt').dataset.ms")
        )
        await talk.browser.screenshot(BUILD / "talk-light.png")
        os.kill(deployment.regions["us-east"].edge.pid, signal.SIGKILL)
        MEASURED["killed"] = await talk.gap("closed")
        await talk.until_heard()
        heard = talk.bot.loud
        await until(lambda: talk.bot.loud > heard + 10, "the microphone was not heard afterwards")
        assert await talk.region() == "eu-west"
        assert await talk.browser.text("epoch") == "2"
        await talk.browser.dark(True)
        await talk.browser.screenshot(BUILD / "talk-dark.png")
        await talk.browser.click("hangup")
        await talk.browser.until("document.getElementById('status').dataset.state === 'over'")
        assert "caller_hung_up" in await talk.browser.text("said")
        events = await talk.events()
        kinds = [e["type"] for e in events]
        assert kinds.count("call.reconnecting") == kinds.count("call.reconnected") == 1
        assert events[-1]["data"]["end_reason"] == "caller_hung_up"
        cuts = [e["data"] for e in events if e["type"] == "playback.interrupted"]
        assert [(cut["utterance"], cut["by"]) for cut in cuts] == [(1, "edge_lost"), (2, "end")]
        assert 0 < cuts[0]["offset_ms"] <= talk.bot.sent_ms[0], (
            f"what was heard was told, and no more: {cuts}, {talk.bot.sent_ms}"
        )


async def test_the_edge_hangs_and_silence_is_what_is_heard(deployment: Deployment, folder: Path) -> None:
    async with talking(deployment, folder, "browser-hang") as talk:
        edge = deployment.regions["us-east"].edge.pid
        os.kill(edge, signal.SIGSTOP)
        try:
            MEASURED["hung"] = await talk.gap("silent")
            await talk.until_heard()
            assert await talk.region() == "eu-west"
        finally:
            os.kill(edge, signal.SIGCONT)
        await talk.browser.click("hangup")
        await talk.browser.until("document.getElementById('status').dataset.state === 'over'")


async def test_a_planned_move_keys_and_mute(deployment: Deployment, folder: Path) -> None:
    async with talking(deployment, folder, "browser-move") as talk:
        await talk.client.request(
            "POST", f"/v1/calls/{talk.call['id']}/move", {"region": "eu-west", "within_s": 1}
        )
        MEASURED["moved"] = await talk.gap("planned")
        assert await talk.region() == "eu-west"
        await talk.browser.key("5")
        await talk.browser.key("m")
        assert await talk.browser.text("talk") == "Unmute"
        frames = talk.bot.frames
        await until(lambda: talk.bot.frames > frames + 50, "frames go on while it is muted")
        loud = talk.bot.loud
        frames = talk.bot.frames
        await until(lambda: talk.bot.frames > frames + 50, "frames go on while it is muted")
        assert talk.bot.loud == loud, "and nothing is in them"
        await talk.browser.click("hangup")
        await talk.browser.until("document.getElementById('status').dataset.state === 'over'")
        events = await talk.events()
        assert [e["data"]["digit"] for e in events if e["type"] == "dtmf.received"] == ["5"]
        assert "call.moved" in [e["type"] for e in events]
        assert "call.reconnecting" not in [e["type"] for e in events]


async def test_over_webrtc_the_edge_is_killed_and_the_page_goes_on(
    deployment: Deployment, folder: Path
) -> None:
    async with talking(deployment, folder, "browser-rtc", "webrtc") as talk:
        assert "WebRTC" in await talk.browser.text("way")
        await talk.browser.screenshot(BUILD / "talk-webrtc.png")
        os.kill(deployment.regions["us-east"].edge.pid, signal.SIGKILL)
        # a peer that has died closes nothing: its silence is what is heard
        MEASURED["webrtc_killed"] = await talk.gap("silent")
        await talk.until_heard()
        heard = talk.bot.loud
        await until(lambda: talk.bot.loud > heard + 10, "the microphone was not heard afterwards")
        assert (await talk.region(), await talk.browser.text("epoch")) == ("eu-west", "2")
        await talk.client.request(
            "POST", f"/v1/calls/{talk.call['id']}/move", {"region": "ap-south", "within_s": 1}
        )
        MEASURED["webrtc_moved"] = await talk.gap("planned")
        assert await talk.region() == "ap-south"
        await talk.browser.key("5")
        await talk.browser.click("hangup")
        await talk.browser.until("document.getElementById('status').dataset.state === 'over'")
        events = await talk.events()
        kinds = [e["type"] for e in events]
        assert kinds.count("call.reconnecting") == kinds.count("call.moved") == 1
        assert [e["data"]["digit"] for e in events if e["type"] == "dtmf.received"] == ["5"]
        assert events[-1]["data"]["end_reason"] == "caller_hung_up"
        cut = next(e for e in events if e["type"] == "playback.interrupted")
        assert (cut["data"]["utterance"], cut["data"]["by"]) == (1, "edge_lost")
        assert 0 < cut["data"]["offset_ms"] <= talk.bot.sent_ms[0], "what was sent was told, and no more"


async def test_a_page_without_a_ticket_asks_for_one_and_says_what_is_wrong_with_it(
    deployment: Deployment, folder: Path
) -> None:
    _, key = await deployment.create_project("browser-paste")
    async with (
        AsyncClient(deployment.api_urls, key) as client,
        Chromium(folder / "profile", microphone=microphone(folder / "said.wav")) as browser,
    ):
        async with asyncio.timeout(30):  # an edge that the test before has killed is started again
            while "us-east" not in (pages := page_urls(await client.regions())):
                await asyncio.sleep(0.05)
        page = pages["us-east"]
        await browser.open(f"{page}#ticket=nonsense")
        assert "this is not a ticket" in await browser.text("problem")
        call = await client.create_call("ws://127.0.0.1:9/", latencies=NEAR)
        forged = call["ticket"][:-8] + "AAAAAAAA"
        await browser.value(f"document.getElementById('ticket').value = {forged!r}")
        await browser.value("document.getElementById('paste').requestSubmit()")
        await browser.until("!document.getElementById('talk').disabled")
        await browser.click("talk")
        await browser.until("document.getElementById('problem').textContent.includes('forged')")
        assert not await browser.value("document.getElementById('talk').disabled"), "it can be tried again"
        assert browser.complaints == []
