"""What is shown of each program: a call of its dialect, audio both ways, an interruption, a hang-up. One function each."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.local.deployment import Deployment
from app.local.process import free_port
from regions.media.codecs import ULAW_8K, Converter, Format
from regions.wire.sids import account_sid
from tests.interop.callers import werift
from tests.interop.ear import CALLER_HZ, RATE_HZ, Ear, is_tone, listening, tone
from tests.interop.environment import BOTS, Environment
from tests.support.edges import until
from voxplane import AsyncClient

BOT_HZ, NEXT_HZ, LAST_HZ = 700, 900, 1_100
LONG_S = 8
MOST_FRAMES = LONG_S * 50 * 3 // 4
"""Of a tone that was cut."""
STARTS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Ground:
    """A deployment with a project in it. `log`: where what the bots print goes."""

    environment: Environment
    running: Deployment
    client: AsyncClient
    api_url: str
    project: str
    key: str
    log: Path

    async def call(self, port: int, dialect: str, path: str = "/ws") -> str:
        """The ticket."""
        agent = {"url": f"ws://127.0.0.1:{port}{path}", "dialect": dialect}
        return str((await self.client.create_call(agent))["ticket"])

    @asynccontextmanager
    async def bot(self, *command: str) -> AsyncIterator[int]:
        """Runs it, with its port in the place of `PORT`, until the end of the block."""
        port = free_port()
        words = [str(port) if word == "PORT" else word for word in command]
        # Pipecat's runner raises without these two, whatever they are
        more = {"TWILIO_ACCOUNT_SID": account_sid(self.project), "TWILIO_AUTH_TOKEN": self.key}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                words, cwd=self.environment.node or BOTS, env=os.environ | more, stdout=log, stderr=log
            )
        try:
            await _answers(port, process)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pipecat(self) -> tuple[str, ...]:
        program = str(BOTS / "pipecat_bot.py")
        account = account_sid(self.project)
        return str(self.environment.python), program, "PORT", self.api_url, self.key, account


async def pipecat_twilio(ground: Ground) -> None:
    async with ground.bot(*ground.pipecat()) as port, listening(await ground.call(port, "twilio")) as ear:
        await _led(ear)
        assert await ear.ended() == "agent_hung_up"
    await _hung_up_over_rest(ground, 200)


async def pipecat_takeover(ground: Ground) -> None:
    """The serializer hangs up because its socket has died with the edge; the call lives on, with another socket and pipeline."""
    async with ground.bot(*ground.pipecat()) as port, listening(await ground.call(port, "twilio")) as ear:
        await ear.say()
        await ear.caller.dtmf("2")
        await ear.hears(BOT_HZ, 25)
        os.kill(ground.running.regions[ear.caller.region].edge.pid, signal.SIGKILL)
        await until(lambda: ear.caller.epoch == 2, "the takeover", 30)
        await _hung_up_over_rest(ground, 404)
        await ear.say()
        await ear.caller.dtmf("1")
        await ear.hears(CALLER_HZ)
        assert ear.caller.end_reason is None
        await ear.caller.dtmf("4")
        assert await ear.ended() == "agent_hung_up"
    await ground.running.mend()


async def _hung_up_over_rest(ground: Ground, status: int) -> None:
    """A program has, and was answered so."""
    async with (
        httpx.AsyncClient(
            base_url=ground.api_url, headers={"Authorization": f"Bearer {ground.key}"}, trust_env=False
        ) as client,
        asyncio.timeout(30),
    ):
        while True:
            found = (await client.get("/v1/requests")).json()["data"]
            if any(r["status"] == status and r["route"].startswith("/2010-04-01/") for r in found):
                return
            await asyncio.sleep(0.1)


async def pipecat_exotel(ground: Ground) -> None:
    async with ground.bot(*ground.pipecat()) as port, listening(await ground.call(port, "exotel")) as ear:
        await _led(ear)
        assert await ear.ended() == "agent_hung_up"


async def _led(ear: Ear) -> None:
    await ear.say()
    await ear.caller.dtmf("1")
    await ear.hears(CALLER_HZ)
    await ear.falls_silent()
    await ear.caller.dtmf("2")
    await ear.hears(BOT_HZ, 25)
    await ear.caller.dtmf("3")
    await ear.falls_silent()
    assert ear.count(BOT_HZ) < MOST_FRAMES, "the tone was not interrupted"
    await ear.caller.dtmf("4")


async def teler(ground: Ground) -> None:
    async with _Remote().run() as remote:
        program = (str(ground.environment.python), str(BOTS / "teler_bot.py"), "PORT", remote.url)
        async with ground.bot(*program) as port, listening(await ground.call(port, "teler")) as ear:
            await until(lambda: remote.got, "the stream", 30)
            start = remote.got[0]
            assert (start["type"], start["message_id"]) == ("start", 1)
            assert start["data"] == {"encoding": "audio/l16", "sample_rate": RATE_HZ, "channels": 1}
            await ear.say()
            await until(lambda: remote.heard(CALLER_HZ) >= 10, "the caller, at the remote end", 30)
            for name, (hz, seconds) in enumerate([(BOT_HZ, 1.0), (NEXT_HZ, LONG_S), (LAST_HZ, 0.5)], 1):
                await remote.chunk(name, hz, seconds)
            await ear.hears(NEXT_HZ, 25)
            await remote.say({"type": "interrupt", "chunk_id": 2})
            await ear.hears(LAST_HZ, 20)
            assert ear.count(BOT_HZ) >= 40 and ear.count(NEXT_HZ) < MOST_FRAMES, (
                "one chunk is cut, and only it"
            )
            await ear.falls_silent()
            before = ear.count(BOT_HZ)
            await remote.chunk(4, BOT_HZ, LONG_S)
            await ear.hears(BOT_HZ, before + 25)
            await remote.say({"type": "clear"})
            await ear.falls_silent()
            assert ear.count(BOT_HZ) - before < MOST_FRAMES, "the tone was not cleared"
            await remote.say({"type": "bye"})
            assert await ear.ended() == "agent_hung_up"


async def openai_twilio(ground: Ground) -> None:
    assert ground.environment.node is not None
    async with _Remote().run() as realtime:
        program = ("node", str(ground.environment.node / "openai_bot.mjs"), "PORT", realtime.url)
        async with ground.bot(*program) as port, listening(await ground.call(port, "twilio")) as ear:
            await until(lambda: realtime.got, "the realtime session", 30)
            await realtime.say({"type": "session.created", "event_id": "e0", "session": {}})
            await ear.say()
            loud = 20
            await until(lambda: realtime.loud_mulaw() >= loud, "the caller, at the realtime server", 30)
            await realtime.respond("r1", BOT_HZ, LONG_S)
            await ear.hears(BOT_HZ, 50)
            started = {
                "type": "input_audio_buffer.speech_started",
                "event_id": "e9",
                "audio_start_ms": 0,
                "item_id": "i0",
            }
            await realtime.say(started)
            await ear.falls_silent()
            assert ear.count(BOT_HZ) < MOST_FRAMES, "the tone was not interrupted"
            await until(lambda: realtime.of("conversation.item.truncate"), "the place of the cut", 30)
            # it knows how far the caller has heard by the marks that came back
            cut_ms = realtime.of("conversation.item.truncate")[0]["audio_end_ms"]
            assert 500 <= cut_ms <= LONG_S * 1000 * 3 // 4, cut_ms
            await realtime.close()
            assert await ear.ended() == "agent_hung_up"


class _Remote:
    """The far end of a bridge: Teler's remote WebSocket, or a realtime server. Keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.url = ""
        self._socket: ServerConnection | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[_Remote]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None, max_size=1 << 22) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        self._socket = socket
        with suppress(ConnectionClosed):
            async for text in socket:
                self.got.append(json.loads(text))

    async def say(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(message))

    async def close(self) -> None:
        assert self._socket is not None
        await self._socket.close(1000)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.got if m["type"] == kind]

    # Teler

    def heard(self, hz: int) -> int:
        return sum(is_tone(base64.b64decode(m["data"]["audio_b64"]), hz) for m in self.of("audio"))

    async def chunk(self, name: int, hz: int, seconds: float) -> None:
        samples = base64.b64encode(tone(hz, seconds)).decode()
        await self.say({"type": "audio", "audio_b64": samples, "chunk_id": name})

    # the realtime server

    def loud_mulaw(self) -> int:
        """Frames of the caller's that are no silence: mu-law of a loud tone reaches far from 0xFF and 0x7F."""
        audio = [base64.b64decode(m["audio"]) for m in self.of("input_audio_buffer.append")]
        return sum(any(b & 0x7F < 0x40 for b in frame) for frame in audio)

    async def respond(self, name: str, hz: int, seconds: int) -> None:
        """A response in pieces of 200 ms, faster than it is spoken."""
        await self.say({"type": "response.created", "event_id": "e1", "response": {"id": name}})
        about = {"response_id": name, "item_id": "i1", "output_index": 0, "content_index": 0}
        samples = _mulaw(tone(hz, seconds))
        for at in range(0, len(samples), 1_600):
            delta = base64.b64encode(samples[at : at + 1_600]).decode()
            await self.say(
                {"type": "response.output_audio.delta", "event_id": f"d{at}", "delta": delta, **about}
            )


def _mulaw(samples: bytes) -> bytes:
    return Converter(Format("pcm16", RATE_HZ), ULAW_8K)(samples)


async def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(STARTS_WITHIN_S):
        while True:
            assert process.poll() is None, "the bot has died; see its log"
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


PROOFS: dict[str, Callable[[Ground], Awaitable[None]]] = {
    "pipecat-twilio": pipecat_twilio,
    "pipecat-exotel": pipecat_exotel,
    "pipecat-takeover": pipecat_takeover,
    "teler": teler,
    "openai-twilio": openai_twilio,
    "werift": werift,
}
NEEDS_NODE = {"openai-twilio", "werift"}
