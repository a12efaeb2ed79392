"""A call in each dialect, over real sockets: the caller's wide-band audio reaches the backend whole, and the backend's the caller."""

from __future__ import annotations

import array
import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.edges import until
from tests.support.lone_edge import lone_edge
from voxplane import AsyncCaller

TONE_HZ = 6_000
"""Above what a telephone carries: it is only there where no part of the way is narrow-band."""
RATE_HZ = 16_000


def tone(ms: int, rate_hz: int = RATE_HZ, hz: int = TONE_HZ) -> bytes:
    samples = [round(8_000 * math.sin(2 * math.pi * hz * i / rate_hz)) for i in range(rate_hz * ms // 1000)]
    return array.array("h", samples).tobytes()


def loudness(pcm: bytes, rate_hz: int = RATE_HZ, hz: int = TONE_HZ) -> float:
    """How much of one frequency is in it, 0 to 1 of full scale (Goertzel)."""
    samples = array.array("h", pcm)
    turn = 2 * math.pi * hz / rate_hz
    real = sum(s * math.cos(turn * i) for i, s in enumerate(samples))
    imaginary = sum(s * math.sin(turn * i) for i, s in enumerate(samples))
    return 2 * math.hypot(real, imaginary) / len(samples) / 32_768


class Backend:
    """Keeps what comes: the texts as JSON, the audio as PCM16."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.texts: list[dict[str, Any]] = []
        self.heard = bytearray()
        self.sockets: list[ServerConnection] = []
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Backend]:
        async with serve(self._socket, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _socket(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    self.heard += message
                    continue
                said = json.loads(message)
                payload = said.get("media", {}).get("payload") or (
                    said["data"]["audio_b64"] if said.get("type") == "audio" else None
                )
                if payload:
                    self.heard += base64.b64decode(payload)
                else:
                    self.texts.append(said)
        except ConnectionClosed:
            return

    async def say(self, pcm: bytes) -> None:
        text = base64.b64encode(pcm).decode()
        said: dict[str, str | bytes] = {
            "exotel": json.dumps({"event": "media", "stream_sid": "x", "media": {"payload": text}}),
            "teler": json.dumps({"type": "audio", "audio_b64": text, "chunk_id": 1}),
            "native": pcm,
        }
        await self.sockets[-1].send(said[self.dialect])

    async def clear(self) -> None:
        key = "event" if self.dialect == "exotel" else "type"
        await self.sockets[-1].send(json.dumps({key: "clear"}))


@asynccontextmanager
async def in_call(folder: Path, dialect: str) -> AsyncIterator[tuple[Any, Backend, AsyncCaller]]:
    async with lone_edge(folder) as edge, Backend(dialect).run() as made:
        ticket = edge.ticket(made.url, agent={"dialect": dialect, "sample_rate": RATE_HZ})
        async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller:
            await until(lambda: edge.log.of("agent.connected"), "the backend")
            yield edge, made, caller


@pytest.mark.parametrize("dialect", ["exotel", "teler", "native"])
async def test_a_tone_that_no_telephone_carries_comes_through_both_ways(tmp_path: Path, dialect: str) -> None:
    async with in_call(tmp_path, dialect) as (edge, made, caller):
        given = tone(400)
        for i in range(0, len(given), 640):
            await caller.send(given[i : i + 640])
        await until(
            lambda: len(made.heard) > 32_000 and any(made.heard[-640:]) is False, "all of it, then silence"
        )
        said = bytes(made.heard)
        first = next(i for i in range(0, len(said), 2) if said[i : i + 2] != b"\0\0")
        assert loudness(said[first : first + 6_400]) > 0.2
        await made.say(tone(400))
        frames = []
        async with asyncio.timeout(20):
            while len(frames) < 20:
                frame = await caller.receive()
                assert frame is not None
                if not frame.filler:
                    frames.append(frame)
        assert loudness(b"".join(f.samples for f in frames[2:18])) > 0.2
        assert [f.offset_ms for f in frames] == list(range(0, 400, 20))
        await made.say(tone(5_000))
        await until(lambda: len(edge.log.of("playback.started")) >= 1, "the second one")
        await made.clear()
        await until(lambda: edge.log.of("playback.interrupted"), "it cut")
        await caller.hangup()
        assert edge.errors == []


async def test_a_native_backend_names_what_it_says_and_hangs_up_once_it_is_heard(tmp_path: Path) -> None:
    async with in_call(tmp_path, "native") as (edge, made, caller):
        [socket] = made.sockets
        for name in ("u1", "u2"):
            await socket.send(json.dumps({"type": "utterance", "id": name}))
            await socket.send(tone(100))
        await socket.send(json.dumps({"type": "mark", "name": "said"}))
        await socket.send(json.dumps({"type": "hangup", "reason": "resolved"}))
        await until(lambda: edge.log.of("call.ended"), "the end")
        assert edge.log.why_ended() == {"end_reason": "resolved"}
        assert edge.log.of("playback.done") == [{"utterance": n, "length_ms": 100} for n in (1, 2)]
        await until(lambda: made.texts[-1] == {"type": "stop"}, "the goodbye")
        assert made.texts[-2] == {"type": "mark", "data": {"name": "said"}}
        await until(lambda: caller.over, "the caller told")
        assert caller.end_reason == "resolved"


@pytest.mark.parametrize("dialect", ["exotel", "teler", "native"])
async def test_nonsense_is_contained(tmp_path: Path, dialect: str) -> None:
    """Odd sizes, text for binary and binary for text: the call goes on."""
    async with in_call(tmp_path, dialect) as (edge, made, caller):
        [socket] = made.sockets
        for nonsense in (
            b"\x01",
            b"\x00" * 641,
            "{",
            "[]",
            '{"type":5}',
            '{"type":"utterance","offset_ms":"x"}',
            "",
        ):
            await socket.send(nonsense)
        await made.say(tone(100))
        async with asyncio.timeout(20):
            while True:
                frame = await caller.receive()
                assert frame is not None
                if loudness(frame.samples[2:]) > 0.1:
                    break
        assert edge.log.of("agent.disconnected") == []
        assert edge.errors == []
        await caller.hangup()
