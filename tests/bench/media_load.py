"""A process of its own that is many callers and their backends: ``python -m tests.bench.media_load [spoken]``.

It prints the port its backends listen on, then obeys lines: ``{"attach": [[url, ticket], …]}`` adds callers, ``{"measure": s}``
counts for that long, ``{"hang_up": k}`` ends the newest `k`. Every answer is one line.

Both sides send 20 ms of audio each 20 ms, on an absolute schedule spread over eight phases, as an edge does: callers PCM16 at
16 kHz in binary frames, two seconds of voice in every six (with `spoken`: of speech); backends a mu-law tone without an end, in
Twilio's JSON. A frame from the edge counts when it carries the other side's audio and not
the edge's own silence.
"""

from __future__ import annotations

import array
import asyncio
import audioop
import base64
import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from regions.wire import media as wire
from tests.bench.spoken import clips
from tests.bench.support import quantile, say, stdin
from tests.support.voices import room

PERIOD_S, PHASES = 0.02, 8
RATE_HZ, SAMPLES = 16_000, 320
VOICE_S, QUIET_S = 2, 4
ATTACH_WITHIN_S = 20.0
TONE = json.dumps(
    {"event": "media", "media": {"payload": base64.b64encode(bytes([0x10, 0x90]) * 80).decode()}}
).encode()
SILENCE = base64.b64encode(b"\xff" * 150)


def voice() -> list[bytes]:
    """Six seconds in frames: a vowel in syllables, then a room's noise that the edge's detector takes for silence."""
    draw = random.Random(7)
    pitch_hz = range(130, 3_300, 130)
    partials = [(f, 1 / (1 + abs(f - 500) / 200) + 0.5 / (1 + abs(f - 1_500) / 300)) for f in pitch_hz]
    spoken: list[float] = []
    for i in range(VOICE_S * RATE_HZ):
        turn = 2 * math.pi * i / RATE_HZ
        loudness = 750 * (0.55 - 0.45 * math.cos(3 * turn))
        spoken.append(loudness * sum(weight * math.sin(f * turn) for f, weight in partials))
    quiet = [draw.uniform(-60, 60) for _ in range(QUIET_S * RATE_HZ)]
    pcm = array.array("h", (round(s) for s in spoken + quiet)).tobytes()
    return [pcm[i : i + 2 * SAMPLES] for i in range(0, len(pcm), 2 * SAMPLES)]


def speech() -> list[bytes]:
    """The same with speech, a minute of it."""
    _, spoken = clips()
    quiet = room(QUIET_S * 1000, RATE_HZ)
    pcm = b""
    for i in range(10):
        said = b"".join(clip.pcm for clip in spoken[i % len(spoken) :] + spoken)
        wide, _ = audioop.ratecv(said[: VOICE_S * 8_000 * 2], 2, 1, 8_000, RATE_HZ, None)
        pcm += wide.ljust(VOICE_S * RATE_HZ * 2, b"\0")[: VOICE_S * RATE_HZ * 2] + quiet
    return [pcm[i : i + 2 * SAMPLES] for i in range(0, len(pcm), 2 * SAMPLES)]


class Caller(WSListener):
    """One caller. `gaps_s`: between one frame of the agent's and the next, in which nothing was cleared."""

    def __init__(self, ticket: str, place: int) -> None:
        self._ticket = ticket
        self._transport: WSTransport | None = None
        self.attached = asyncio.Event()
        self.leaving = False
        self.place = place
        self.sequence = 0
        self.stamp = 0
        self.heard = 0
        self.cleared = 0
        self.last_s = 0.0
        self.gaps_s: list[float] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.send(WSMsgType.TEXT, msgspec.json.encode(wire.Attach(ticket=self._ticket, epoch=1)))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            now_s = time.perf_counter()
            if self.last_s:
                self.gaps_s.append(now_s - self.last_s)
            self.last_s = now_s
            self.heard += 1
            self.stamp = wire.HEADER.unpack_from(frame.get_payload_as_memoryview())[3]
        elif frame.msg_type == WSMsgType.TEXT:
            message = wire.to_caller_decoder.decode(frame.get_payload_as_bytes())
            if isinstance(message, wire.Attached | wire.Tick):
                self.stamp = message.stamp
                self.attached.set()
            elif isinstance(message, wire.Clear):
                self.cleared += 1
                self.last_s = 0.0
            elif isinstance(message, wire.Refused | wire.Ended) and not self.leaving:
                sys.stderr.write(f"a caller was let go: {message}\n")
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None

    def speak(self, frames: list[bytes]) -> None:
        if self._transport is not None:
            self.sequence += 1
            samples = frames[(self.place + self.sequence) % len(frames)]
            self._transport.send(
                WSMsgType.BINARY,
                wire.pack(samples, sequence=self.sequence, stamp=self.stamp, utterance=0, offset_ms=0),
            )

    def hang_up(self) -> None:
        self.leaving = True
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode(wire.Hangup()))


class Backend(WSListener):
    """One call's backend: counts what it hears, plays its tone from `start` on."""

    def __init__(self, load: MediaLoad) -> None:
        self._load = load
        self._transport: WSTransport | None = None
        self.heard = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            if message.startswith(b'{"event":"media"'):
                self.heard += SILENCE not in message
            elif message.startswith(b'{"event":"start"'):
                self._load.backends.append(self)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        if self in self._load.backends:
            self._load.backends.remove(self)

    def play(self) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, TONE)


@dataclass(slots=True)
class MediaLoad:
    callers: list[Caller] = field(default_factory=list)
    backends: list[Backend] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)

    async def listen(self) -> int:
        server = await ws_create_server(lambda _: Backend(self), "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def keep_time(self) -> None:
        """Everyone's frame, each 20 ms; how late the phases begin is kept."""
        frames = speech() if "spoken" in sys.argv[1:] else voice()
        due_s, phase = time.perf_counter(), 0
        while True:
            due_s += PERIOD_S / PHASES
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            self.lag_s.append(time.perf_counter() - due_s)
            for caller in self.callers[phase::PHASES]:
                caller.speak(frames)
            for backend in self.backends[phase::PHASES]:
                backend.play()
            phase = (phase + 1) % PHASES

    async def attach(self, tickets: list[tuple[str, str]]) -> None:
        """Raises `TimeoutError` where one of them is not served."""
        headers = {"Sec-WebSocket-Protocol": wire.SUBPROTOCOL}
        async with asyncio.timeout(ATTACH_WITHIN_S):
            for url, ticket in tickets:
                # not all of them may speak in the same second
                caller = Caller(ticket, place=47 * len(self.callers))
                await ws_connect(lambda caller=caller: caller, url, extra_headers=headers)
                await caller.attached.wait()
                self.callers.append(caller)
            while len(self.backends) < len(self.callers):
                await asyncio.sleep(0.02)

    async def hang_up(self, count: int) -> None:
        leaving, self.callers = self.callers[-count:], self.callers[:-count]
        for caller in leaving:
            caller.hang_up()
        async with asyncio.timeout(ATTACH_WITHIN_S):
            while len(self.backends) > len(self.callers):
                await asyncio.sleep(0.02)

    async def measure(self, seconds: float) -> dict[str, Any]:
        before = [(c.heard, c.cleared) for c in self.callers], [b.heard for b in self.backends]
        for caller in self.callers:
            caller.gaps_s.clear()
        self.lag_s.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        elapsed = time.perf_counter() - began
        gaps_s = [gap for caller in self.callers for gap in caller.gaps_s]
        late_ms = [abs(gap - PERIOD_S) * 1000 for gap in gaps_s] or [math.inf]
        return {
            "calls": len(self.callers),
            "to_caller_per_s": min(
                (c.heard - b[0]) / elapsed for c, b in zip(self.callers, before[0], strict=True)
            ),
            "to_backend_per_s": min(
                (b.heard - h) / elapsed for b, h in zip(self.backends, before[1], strict=True)
            ),
            "cleared": sum(c.cleared - b[1] for c, b in zip(self.callers, before[0], strict=True)),
            "jitter_p99_ms": quantile(late_ms, 0.99),
            "lag_p99_ms": quantile(self.lag_s, 0.99) * 1000,
        }


async def main() -> None:
    load = MediaLoad()
    commands = await stdin()
    say({"port": await load.listen()})
    clock = asyncio.create_task(load.keep_time())
    while line := await commands.readline():
        command = json.loads(line)
        if "attach" in command:
            await load.attach(command["attach"])
            say({"calls": len(load.callers)})
        elif "hang_up" in command:
            await load.hang_up(command["hang_up"])
            say({"calls": len(load.callers)})
        else:
            say(await load.measure(command["measure"]))
        if clock.done():
            clock.result()


if __name__ == "__main__":
    uvloop.run(main())
