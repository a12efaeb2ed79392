"""Callers that speak in real time, and a bot that lets itself be interrupted: what the `media` family measures with.

The bot's frames say which they are in their samples (mu-law, loud), so what a caller has heard is read from the sound, not from a
header. A caller plays what it gets after `buffer_ms`, drops its buffer at a `clear`, and says what it has played in every frame.
"""

from __future__ import annotations

import asyncio
import audioop
import base64
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from regions.wire import media as wire
from tests.bench.spoken import RATE_HZ, Clip
from tests.bench.support import quantile
from tests.support.voices import room

FRAME_S, FRAME_BYTES = 0.02, 160
UTTERANCE_FRAMES, ANSWER_FRAMES = 400, 10
WITHIN_S = 20.0
INNER_PAUSES_MS = (150, 300)
CALM_S = 0.25
WORDS_MS_MAX = 1_200
"""Of a piece of a sentence, where there are some that are so short."""


def numbered(number: int) -> bytes:
    """Loud, and its number can be read from any two samples."""
    return bytes([0x80 | (number >> 6 & 0x3F), number & 0x3F]) * (FRAME_BYTES // 2)


def number_of(ulaw: bytes) -> int:
    return (ulaw[0] & 0x3F) << 6 | ulaw[1] & 0x3F


class Bot:
    """By the call's id: its socket, what was told of it (monotonic seconds, type, data), and the numbered frames of its caller."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: dict[str, ServerConnection] = {}
        self.told: dict[str, list[tuple[float, str, dict[str, Any]]]] = {}
        self.heard: dict[str, list[tuple[float, int]]] = {}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Bot]:
        async with serve(self._socket, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _socket(self, socket: ServerConnection) -> None:
        call = ""
        try:
            async for text in socket:
                now = time.monotonic()
                message = json.loads(text)
                match message["event"]:
                    case "media":
                        ulaw = base64.b64decode(message["media"]["payload"])
                        if ulaw[0] != 0xFF:
                            self.heard[call].append((now, number_of(ulaw)))
                    case "voxplane":
                        self.told[call].append((now, message["type"], message["data"]))
                    case "start":
                        call = message["start"]["customParameters"]["voxplane_call"]
                        self.calls[call], self.told[call], self.heard[call] = socket, [], []
        except ConnectionClosed:
            return

    async def speak(self, call: str) -> None:
        """An utterance that is longer than anyone will let it be."""
        audio = b"".join(numbered(n) for n in range(UTTERANCE_FRAMES))
        await self.say(call, "transcript.final", {"role": "agent", "text": "a long story"})
        await self.media(call, audio)
        await self.say(call, "turn.ended", {"role": "agent"})

    async def answer(self, call: str) -> None:
        """A word, heard to its end."""
        await self.say(call, "transcript.final", {"role": "agent", "text": "yes"})
        await self.media(call, b"".join(numbered(n) for n in range(ANSWER_FRAMES)))
        await self.say(call, "turn.ended", {"role": "agent"})
        await asyncio.sleep(2 * ANSWER_FRAMES * FRAME_S)

    async def media(self, call: str, ulaw: bytes) -> None:
        payload = base64.b64encode(ulaw).decode()
        await self.calls[call].send(json.dumps({"event": "media", "media": {"payload": payload}}))

    async def say(self, call: str, type_: str, data: dict[str, Any]) -> None:
        await self.calls[call].send(json.dumps({"event": "voxplane", "type": type_, "data": data}))


async def until(true: Any, what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"never came: {what}")
        await asyncio.sleep(0.002)


@dataclass(slots=True)
class Heard:
    """A frame of the agent's: when it was played, and which it is."""

    at_s: float
    number: int
    utterance: int


class Socket:
    """A caller's socket, mu-law at 8 kHz."""

    def __init__(self, url: str, ticket: str, buffer_ms: int = 0) -> None:
        self.url, self.ticket = url, ticket
        self.buffer_s = buffer_ms / 1000
        self.call = ""
        self.stamp = self._sequence = 0
        self._waiting: list[Heard] = []
        self._heard: list[Heard] = []
        self.clears: list[float] = []
        self._socket: ClientConnection | None = None

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Socket]:
        protocols: Any = [wire.SUBPROTOCOL]
        async with connect(self.url, subprotocols=protocols, ping_interval=None, compression=None) as socket:
            self._socket = socket
            attach = {
                "type": "attach",
                "ticket": self.ticket,
                "epoch": 1,
                "encoding": "mulaw",
                "sample_rate": 8_000,
            }
            await socket.send(json.dumps(attach))
            listening = asyncio.create_task(self._listen(socket))
            await until(lambda: self.call, "attached")
            try:
                yield self
                await socket.send('{"type":"hangup"}')
            finally:
                await socket.close()
                await listening

    async def _listen(self, socket: ClientConnection) -> None:
        try:
            async for message in socket:
                now = time.monotonic()
                if isinstance(message, bytes):
                    _, _, _, self.stamp, utterance, _ = wire.HEADER.unpack_from(message)
                    samples = message[wire.HEADER_BYTES :]
                    self._waiting.append(Heard(now + self.buffer_s, number_of(samples), utterance))
                    continue
                read = json.loads(message)
                self.stamp = read.get("stamp", self.stamp)
                self.call = read.get("call", self.call)
                if read["type"] == "clear":
                    self.heard(now)
                    self._waiting.clear()
                    self.clears.append(now)
        except ConnectionClosed:
            return

    def heard(self, now: float | None = None) -> list[Heard]:
        """What has been played."""
        now = time.monotonic() if now is None else now
        while self._waiting and self._waiting[0].at_s <= now:
            self._heard.append(self._waiting.pop(0))
        return self._heard

    async def send(self, ulaw: bytes) -> None:
        assert self._socket is not None
        heard = self.heard()
        utterance, offset_ms = (heard[-1].utterance, (heard[-1].number + 1) * 20) if heard else (0, 0)
        self._sequence += 1
        await self._socket.send(
            wire.pack(
                ulaw, sequence=self._sequence, stamp=self.stamp, utterance=utterance, offset_ms=offset_ms
            )
        )


class Talker:
    """One caller: interrupts, says a sentence with pauses, and measures both. Milliseconds."""

    def __init__(
        self, url: str, ticket: str, spoken: list[Clip], draw: random.Random, buffer_ms: int
    ) -> None:
        self._line = Socket(url, ticket, buffer_ms)
        self._spoken = spoken
        self._draw = draw
        self._queue = bytearray()
        self._room = room(2_000)
        self._marks: list[tuple[int, asyncio.Future[float]]] = []
        self._said = 0
        self.silent_after_ms: list[float] = []
        self.position_error_ms: list[float] = []
        self.turn_end_ms: list[float] = []
        self.splits = self.after_clear = 0

    async def run(self, rounds: int, bot: Bot) -> None:
        async with self._line.attached():
            call = self._line.call
            await until(lambda: call in bot.calls, "the bot")
            microphone = asyncio.create_task(self._speak())
            await bot.say(call, "transcript.partial", {"role": "agent", "text": ""})
            for _ in range(rounds):
                await bot.speak(call)
                await asyncio.sleep(0.8 + self._draw.random())
                await self._interrupt(bot.told[call])
                await bot.answer(call)
                await self._sentence(bot.told[call])
                await bot.answer(call)
            microphone.cancel()
            await asyncio.gather(microphone, return_exceptions=True)

    async def _speak(self) -> None:
        """A microphone: a frame is sent once it is full."""
        due = time.monotonic()
        quiet = 0
        while True:
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            pcm = bytes(self._queue[: FRAME_BYTES * 2])
            del self._queue[: FRAME_BYTES * 2]
            if len(pcm) < FRAME_BYTES * 2:
                quiet = (quiet + FRAME_BYTES * 2) % (len(self._room) - FRAME_BYTES * 2)
                pcm += self._room[quiet : quiet + FRAME_BYTES * 2 - len(pcm)]
            began = self._said
            self._said += FRAME_BYTES
            for mark in [m for m in self._marks if m[0] < self._said]:
                self._marks.remove(mark)
                mark[1].set_result(due - FRAME_S + (mark[0] - began) / RATE_HZ)
            await self._line.send(audioop.lin2ulaw(pcm, 2))

    def _say(self, pieces: list[bytes]) -> tuple[asyncio.Future[float], asyncio.Future[float]]:
        """After a lead-in of any length, so that it begins anywhere in a frame. When its first and its last sample were spoken."""
        loop = asyncio.get_running_loop()
        lead = self._room[: 2 * self._draw.randrange(FRAME_BYTES)]
        first, last = loop.create_future(), loop.create_future()
        begin = self._said + (len(self._queue) + len(lead)) // 2
        self._queue += lead
        for piece in pieces:
            self._queue += piece
        self._marks += [(begin, first), (self._said + len(self._queue) // 2 - 1, last)]
        return first, last

    async def _interrupt(self, told: list[tuple[float, str, dict[str, Any]]]) -> None:
        heard_before, told_before, cleared = len(self._line.heard()), len(told), len(self._line.clears)
        clip = self._draw.choice([c for c in self._spoken if c.ms >= 300])
        first, last = self._say([audioop.mul(clip.pcm[: 2 * RATE_HZ], 2, self._draw.uniform(0.5, 1.0))])
        began, ended = await first, await last
        await until(
            lambda: any(t == "playback.interrupted" for _, t, _ in told[told_before:]), "the interruption"
        )
        await until(lambda: any(t == "turn.ended" for _, t, _ in told[told_before:]), "the turn's end")
        await asyncio.sleep(CALM_S)
        heard = self._line.heard()[heard_before:]
        last_heard = heard[-1]
        self.silent_after_ms.append((last_heard.at_s - began) * 1000)
        at = next(d for _, t, d in told[told_before:] if t == "playback.interrupted")
        self.position_error_ms.append(abs(at["offset_ms"] - (last_heard.number + 1) * 20))
        self.after_clear += sum(h.at_s - self._line.buffer_s > self._line.clears[cleared] for h in heard)
        assert ended > began

    async def _sentence(self, told: list[tuple[float, str, dict[str, Any]]]) -> None:
        told_before = len(told)
        pieces: list[bytes] = []
        for pause_ms in (*INNER_PAUSES_MS, *INNER_PAUSES_MS, 0):
            pieces.append(
                self._draw.choice([c for c in self._spoken if c.ms <= WORDS_MS_MAX] or self._spoken).pcm
            )
            if pause_ms:
                pieces.append(self._room[: pause_ms * RATE_HZ // 1000 * 2])
        _, last = self._say(pieces)
        ended = await last

        def ends() -> list[float]:
            return [at for at, t, _ in told[told_before:] if t == "turn.ended"]

        await until(lambda: [at for at in ends() if at > ended - 0.1], "the sentence's end")
        await asyncio.sleep(2 * CALM_S)
        self.splits += len(ends()) - 1
        self.turn_end_ms.append((ends()[-1] - ended) * 1000)


@dataclass(slots=True)
class Added:
    up_ms: list[float] = field(default_factory=list)
    down_ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    """How late this process was to send."""

    @property
    def p99_ms(self) -> float:
        """Of the worse direction."""
        return max(quantile(self.up_ms, 0.99), quantile(self.down_ms, 0.99))


async def added(attach: list[tuple[str, str]], bot: Bot, seconds: float) -> Added:
    """Numbered frames in real time, both ways, in all calls at once; from when one was sent until it has come."""
    found = Added()
    async with asyncio.TaskGroup() as group:
        for i, (url, ticket) in enumerate(attach):
            group.create_task(_one(Socket(url, ticket), bot, seconds, i / len(attach) * FRAME_S, found))
    return found


async def _one(line: Socket, bot: Bot, seconds: float, phase_s: float, found: Added) -> None:
    async with line.attached():
        await until(lambda: line.call in bot.calls, "the bot")
        sent_up: dict[int, float] = {}
        sent_down: dict[int, float] = {}
        due = time.monotonic() + phase_s
        for number in range(1, round(seconds / FRAME_S)):
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sent_up[number] = time.monotonic()
            found.lag_ms.append((sent_up[number] - due) * 1000)
            await line.send(numbered(number))
            sent_down[number] = time.monotonic()
            await bot.media(line.call, numbered(number))
        await asyncio.sleep(CALM_S)
        settle = round(1 / FRAME_S)
        found.up_ms += [
            (at - sent_up[n]) * 1000 for at, n in bot.heard[line.call] if n > settle and n in sent_up
        ]
        found.down_ms += [(h.at_s - sent_down[h.number]) * 1000 for h in line.heard() if h.number > settle]
