"""Callers of others: a second WebRTC stack, unmodified, which knows no more than docs/reference/webrtc.md says."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.media.codecs import ULAW_8K, Converter, Format
from tests.interop.ear import CALLER_HZ, RATE_HZ, is_tone, tone
from tests.support.edges import until

if TYPE_CHECKING:
    from tests.interop.proofs import Ground

BOT_HZ = 700
WITHIN_S = 30.0


class ToneBot:
    """A backend in Twilio's dialect: a tone on every socket, in time, and how many frames of the caller's it has heard."""

    def __init__(self) -> None:
        self.url = ""
        self.heard = 0
        self._decode = Converter(ULAW_8K, Format("pcm16", RATE_HZ))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[ToneBot]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        playing: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    playing = asyncio.create_task(self._play(socket))
                elif message["event"] == "media":
                    samples = self._decode(base64.b64decode(message["media"]["payload"]))
                    self.heard += is_tone(samples, CALLER_HZ)
        except ConnectionClosed:
            pass
        finally:
            if playing is not None:
                playing.cancel()

    async def _play(self, socket: ServerConnection) -> None:
        samples = Converter(Format("pcm16", RATE_HZ), ULAW_8K)(tone(BOT_HZ, 0.02))
        frame = json.dumps({"event": "media", "media": {"payload": base64.b64encode(samples).decode()}})
        loop = asyncio.get_running_loop()
        due = loop.time()
        with suppress(ConnectionClosed):
            while True:
                await socket.send(frame)
                due += 0.02
                await asyncio.sleep(max(0.0, due - loop.time()))


class Caller:
    """The program, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    def of(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        return [m for m in self.said if m["type"] == kind and all(m[k] == v for k, v in wanted.items())]

    async def tell(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(words.encode() + b"\n")
        await self._process.stdin.drain()

    async def says(self, kind: str, **wanted: Any) -> None:
        def there() -> bool:
            assert not self.of("failed"), self.said
            return bool(self.of(kind, **wanted))

        await until(there, f"{kind} {wanted}", WITHIN_S)

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(json.loads(line))


@asynccontextmanager
async def calling(ground: Ground, call: dict[str, Any]) -> AsyncIterator[Caller]:
    assert ground.environment.node is not None
    with ground.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            "node", str(ground.environment.node / "werift_caller.mjs"), json.dumps(call["attach"]), call["ticket"],
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    caller = Caller(process)
    reading = asyncio.create_task(caller.read())
    try:
        yield caller
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def werift(ground: Ground) -> None:
    """Audio both ways, a key, the death of the edge taken over at a standby, and both ways to hang up."""
    async with ToneBot().run() as bot:
        call = await _created(ground, bot)
        async with calling(ground, call) as caller:
            await caller.says("heard", hz=BOT_HZ, frames=50, epoch=1)
            await until(lambda: bot.heard >= 50, "the caller, at the bot", WITHIN_S)
            await caller.tell("press 7")
            await _pressed(ground, call["id"], "7")
            os.kill(ground.running.regions[call["region"]].edge.pid, signal.SIGKILL)
            await caller.says("attached", epoch=2)
            await caller.says("heard", hz=BOT_HZ, frames=50, epoch=2)
            heard = bot.heard
            await until(lambda: bot.heard >= heard + 50, "the caller, at the bot again", WITHIN_S)
            await caller.tell("press 8")
            await caller.tell("hangup")
            await caller.says("ended", end_reason="caller_hung_up")
        events = await _events(ground, call["id"])
        assert [e["data"]["digit"] for e in events if e["type"] == "dtmf.received"] == ["7", "8"]
        assert [e["type"] for e in events].count("call.reconnecting") == 1
        await ground.running.mend()
        call = await _created(ground, bot)
        async with calling(ground, call) as caller:
            await caller.says("heard", hz=BOT_HZ, frames=25)
            await caller.tell("delete")
            await caller.says("deleted", status=200)
        assert (await _events(ground, call["id"]))[-1]["data"]["end_reason"] == "caller_hung_up"


async def _created(ground: Ground, bot: ToneBot) -> dict[str, Any]:
    agent = {"url": bot.url, "dialect": "twilio"}
    # the tone is not to be interrupted
    return await ground.client.create_call(agent, caller={"kind": "webrtc"}, turns={"mode": "off"})


async def _pressed(ground: Ground, call: str, digit: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            events = await ground.client.events_of(call)
            if any(e["type"] == "dtmf.received" and e["data"]["digit"] == digit for e in events):
                return
            await asyncio.sleep(0.05)


async def _events(ground: Ground, call: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(WITHIN_S):
        while (await ground.client.get_call(call))["state"] != "completed":
            await asyncio.sleep(0.05)
    return await ground.client.events_of(call)
