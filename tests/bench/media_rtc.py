"""Callers over WebRTC: how soon the agent falls silent, what of a voice is left at a tenth of loss, how many calls a core carries.

A real edge process; the callers are libwebrtc as well, in this process, on the other cores. *Loss*: datagrams of both directions go
through a relay that drops a tenth of them. *Capacity*: calls are added until the edge is late; each caller speaks all the time.
"""

from __future__ import annotations

import array
import asyncio
import audioop
import base64
import importlib
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.wire import media as wire
from tests.bench.edge import LATE_MS, LATE_SHARE, apart, pin, turns
from tests.bench.media_talk import until
from tests.bench.report import Figure
from tests.bench.spoken import clips
from tests.bench.support import cpu_s, deployed, quantile
from voxplane import AsyncClient

webrtc: Any = importlib.import_module("webrtc")

RATE_HZ, FRAME_S = 48_000, 0.02
LOUD = 1_000
CALLERS, ROUNDS = 3, 6
LOSS, LOSS_S = 0.1, 12.0
STEPS, SETTLE_S, MEASURE_S = (8, 12, 16, 20, 24, 28), 2.0, 5.0
STORY_S = 8


def tone(seconds: float, hz: int, rate_hz: int) -> bytes:
    """A square wave: every frame of it is loud, whatever a codec makes of it."""
    period = rate_hz // hz
    return array.array(
        "h", [6_000 if i % period < period // 2 else -6_000 for i in range(round(seconds * rate_hz))]
    ).tobytes()


class Bot:
    """Tells a long story when asked; counts the loud frames of each caller."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: dict[str, ServerConnection] = {}
        self.loud: defaultdict[str, int] = defaultdict(int)
        self._story = base64.b64encode(audioop.lin2ulaw(tone(STORY_S, 400, 8_000), 2)).decode()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Bot]:
        async with serve(self._socket, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _socket(self, socket: ServerConnection) -> None:
        call = ""
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "media":
                    pcm = audioop.ulaw2lin(base64.b64decode(message["media"]["payload"]), 2)
                    self.loud[call] += audioop.rms(pcm, 2) > LOUD
                elif message["event"] == "start":
                    call = message["start"]["customParameters"]["voxplane_call"]
                    self.calls[call] = socket
        except ConnectionClosed:
            return

    async def speak(self, call: str) -> None:
        await self.calls[call].send(json.dumps({"event": "media", "media": {"payload": self._story}}))


class Relay(asyncio.DatagramProtocol):
    """Between one caller and one address of the edge's; drops `loss` of what comes, both ways."""

    def __init__(self, edge: tuple[str, int], loss: float, draw: random.Random) -> None:
        self._edge, self._loss, self._draw = edge, loss, draw
        self._transport: Any = None
        self._caller: tuple[str, int] | None = None
        self.losing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.losing and self._draw.random() < self._loss:
            return
        if addr == self._edge:
            if self._caller is not None:
                self._transport.sendto(data, self._caller)
        else:
            self._caller = addr
            self._transport.sendto(data, self._edge)


class Caller:
    """Speaks what stands in `queue` (PCM16, 48 kHz) and silence else; `heard`: when each loud 10 ms came."""

    def __init__(self) -> None:
        self._pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(ice_servers=[]))
        self._out = webrtc.MediaStreamTrackGenerator("audio")
        self._writer = self._out.writable.get_writer()
        self._pc.add_track(self._out)
        self._channel = self._pc.create_data_channel(wire.SUBPROTOCOL)
        self._tasks: list[asyncio.Task[None]] = []
        self.queue = bytearray()
        self.always = b""
        self.heard: list[float] = []
        self.onset_s = 0.0
        self.relay: Relay | None = None

    async def attach(self, call: dict[str, Any], http: httpx.AsyncClient, *, loss: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._pc.on("track", lambda event: self._tasks.append(loop.create_task(self._listen(event.track))))
        self._channel.on("message", lambda event: self._said(json.loads(event.data)))
        await self._pc.set_local_description(await self._pc.create_offer())
        await until(lambda: str(self._pc.ice_gathering_state) == "complete", "candidates")
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {call['ticket']}"}
        offer = self._pc.local_description.sdp
        if loss:  # the edge hears of no address but the relay's
            offer = "".join(
                line + "\r\n" for line in offer.splitlines() if not line.startswith("a=candidate:")
            )
        answer = await http.post(call["attach"][0], content=offer, headers=headers)
        answer.raise_for_status()
        sdp = await self._through_relay(answer.text) if loss else answer.text
        await self._pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="answer", sdp=sdp))
        await until(lambda: str(self._channel.ready_state) == "open", "the channel")
        self._channel.send(json.dumps({"type": "attach", "ticket": call["ticket"], "epoch": 1}))
        self._tasks.append(loop.create_task(self._speak()))

    async def _through_relay(self, sdp: str) -> str:
        """The answer with one candidate, the relay's, which stands for the edge's on loopback."""
        lines = sdp.splitlines()
        mine = next(
            line
            for line in lines
            if line.startswith("a=candidate:") and " udp " in line and " 127.0.0.1 " in line
        )
        port = int(mine.split()[5])
        loop = asyncio.get_running_loop()
        transport, self.relay = await loop.create_datagram_endpoint(
            lambda: Relay(("127.0.0.1", port), LOSS, random.Random(7)), local_addr=("127.0.0.1", 0)
        )
        through = transport.get_extra_info("sockname")[1]
        kept = [line for line in lines if not line.startswith("a=candidate:")]
        at = next(i for i, line in enumerate(kept) if line.startswith("a=ice-ufrag"))
        return "\r\n".join([*kept[:at], mine.replace(f" {port} ", f" {through} "), *kept[at:]]) + "\r\n"

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._pc.close()

    def _said(self, message: dict[str, Any]) -> None:
        if "stamp" in message and str(self._channel.ready_state) == "open":
            self._channel.send(json.dumps({"type": "alive", "stamp": message["stamp"]}))

    async def _speak(self) -> None:
        due, count, size = time.monotonic(), 0, RATE_HZ // 50 * 2
        while True:
            if self.always and len(self.queue) < size:
                self.queue += self.always
            pcm = bytes(self.queue[:size]).ljust(size, b"\0")
            if self.queue and not self.onset_s:
                self.onset_s = due
            del self.queue[:size]
            init = webrtc.AudioDataInit(
                format="s16", sample_rate=RATE_HZ, number_of_frames=size // 2, number_of_channels=1, timestamp=count * 20_000,
                data=pcm,
            )  # fmt: skip
            await self._writer.write(webrtc.AudioData(init))
            count, due = count + 1, due + FRAME_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _listen(self, track: Any) -> None:
        processor = webrtc.MediaStreamTrackProcessor(webrtc.MediaStreamTrackProcessorInit(track))
        options = webrtc.AudioDataCopyToOptions(plane_index=0, format="s16")
        async for data in processor.readable:
            samples = bytearray(data.number_of_frames * data.number_of_channels * 2)
            data.copy_to(samples, options)
            data.close()
            if audioop.rms(samples, 2) > LOUD:
                self.heard.append(time.monotonic())


async def measure(*, full: bool) -> list[Figure]:
    webrtc.allow_loopback()
    what, spoken = clips()
    with apart() as core:
        async with AsyncExitStack() as stack:
            deployment = await stack.enter_async_context(deployed(regions=1, capacity_calls=200, webrtc=True))
            bot = await stack.enter_async_context(Bot().serve())
            (region,) = deployment.regions.values()
            pin(region.edge.pid, {core})
            _, key = await deployment.create_project("bench")
            client = await stack.enter_async_context(AsyncClient(deployment.api_urls, key))
            http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            pieces = [audioop.ratecv(c.pcm, 2, 1, 8_000, RATE_HZ, None)[0] for c in spoken if c.ms >= 300]
            silent = await _barge_in(client, http, bot, pieces)
            rate = await _loss(client, http, bot)
            most = await _capacity(client, http, bot, region.edge.pid) if full else None
    figures = [
        Figure(family="media", name="media.barge_in_webrtc_p95_ms", value=quantile(silent, 0.95), unit="ms",
               how=f"{what}, {len(silent)} interruptions, to the last loud 10 ms at the caller; p50 {quantile(silent, 0.5):.0f}",
               target=160.0, at_most=True),
        Figure(family="media", name="media.frames_at_10pct_loss", value=rate, unit="frames/s",
               how=f"loud frames at the backend of a caller that is never silent, {LOSS:.0%} of all datagrams lost both ways",
               target=49.0),
    ]  # fmt: skip
    if most is not None:
        best, how = most
        figures.append(
            Figure(family="edge", name="edge.webrtc_calls_per_core", value=best, unit="calls", how=how, target=16.0)
        )  # fmt: skip
    return figures


async def _barge_in(
    client: AsyncClient, http: httpx.AsyncClient, bot: Bot, pieces: list[bytes]
) -> list[float]:
    silent: list[float] = []

    async def one(draw: random.Random) -> None:
        call = await client.create_call(bot.url, caller={"kind": "webrtc"})
        caller = Caller()
        await caller.attach(call, http)
        await until(lambda: call["id"] in bot.calls, "the bot")
        await asyncio.sleep(1.0)
        for _ in range(ROUNDS):
            await bot.speak(call["id"])
            before = len(caller.heard)
            await until(lambda before=before: len(caller.heard) > before + 40, "the story")
            await asyncio.sleep(draw.random() * 0.5)
            caller.onset_s = 0.0
            caller.queue += draw.choice(pieces)
            await until(lambda: caller.onset_s and not caller.queue, "the interruption said")
            await asyncio.sleep(1.2)
            silent.append((caller.heard[-1] - caller.onset_s) * 1000)
        caller.close()

    async with asyncio.TaskGroup() as group:
        for i in range(CALLERS):
            group.create_task(one(random.Random(i)))
    return silent


async def _loss(client: AsyncClient, http: httpx.AsyncClient, bot: Bot) -> float:
    call = await client.create_call(bot.url, caller={"kind": "webrtc"}, turns={"mode": "off"})
    caller = Caller()
    caller.always = tone(1.0, 300, RATE_HZ)
    await caller.attach(call, http, loss=True)
    await until(lambda: bot.loud[call["id"]] > 50, "the caller's voice")
    assert caller.relay is not None
    caller.relay.losing = True
    await asyncio.sleep(1.0)
    before, began = bot.loud[call["id"]], time.monotonic()
    await asyncio.sleep(LOSS_S)
    rate = (bot.loud[call["id"]] - before) / (time.monotonic() - began)
    caller.close()
    return rate


async def _capacity(client: AsyncClient, http: httpx.AsyncClient, bot: Bot, pid: int) -> tuple[float, str]:
    callers: list[Caller] = []
    (known,) = await client.regions()
    best, how = 0, "not even the first step was carried"
    async with httpx.AsyncClient(
        base_url=known["probes"][0]["http"].removesuffix("/probe"), trust_env=False
    ) as edge:
        for wanted in STEPS:
            while len(callers) < wanted:
                call = await client.create_call(bot.url, caller={"kind": "webrtc"}, turns={"barge_in": "off"})
                callers.append(Caller())
                callers[-1].always = tone(1.0, 300, RATE_HZ)
                await callers[-1].attach(call, http)
                await until(lambda call=call: call["id"] in bot.calls, "the bot")
                await bot.speak(call["id"])
            await asyncio.sleep(SETTLE_S)
            before, cpu = await turns(edge), cpu_s([pid])
            await asyncio.sleep(MEASURE_S)
            after, used = await turns(edge), (cpu_s([pid]) - cpu) / MEASURE_S
            new = {bound: after[bound] - before[bound] for bound in after}
            late = 1 - new[str(LATE_MS)] / max(1, new["+Inf"])
            print(
                f"  {wanted:3} WebRTC calls: {late:.2%} later than {LATE_MS} ms, {used:.0%} of the core",
                flush=True,
            )
            if late > LATE_SHARE:
                break
            best, how = (
                wanted,
                f"p99 ≤ {LATE_MS} ms at the edge's pacer with {used:.0%} of the core; all speak all the time",
            )
    for caller in callers:
        caller.close()
    return float(best), how
