"""A caller that says a tone, and knows which tone it hears.

Tones are multiples of 50 Hz, so that each has whole periods in a frame of 20 ms, and any two are told apart in one.
"""

from __future__ import annotations

import array
import asyncio
import cmath
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.edges import until
from voxplane import AsyncCaller

RATE_HZ = 8_000
FRAME = RATE_HZ // 50
AMPLITUDE = 8_000
CALLER_HZ = 500
QUIET_FRAMES = 40
WITHIN_S = 30.0


def tone(hz: int, seconds: float, rate_hz: int = RATE_HZ) -> bytes:
    """PCM16."""
    steps = range(round(seconds * rate_hz))
    return array.array(
        "h", [round(AMPLITUDE * math.sin(math.tau * hz * i / rate_hz)) for i in steps]
    ).tobytes()


def is_tone(samples: bytes, hz: int) -> bool:
    """Whether most of what is in 20 ms of PCM16 is that tone."""
    values = array.array("h", samples[: FRAME * 2])
    power = sum(v * v for v in values) / FRAME
    if len(values) < FRAME or power < (AMPLITUDE / 8) ** 2:
        return False
    at = sum(v * cmath.exp(-2j * math.pi * hz * i / RATE_HZ) for i, v in enumerate(values))
    return 2 * abs(at / FRAME) ** 2 > 0.7 * power


class Ear:
    """`silence_s`: for how long nothing has been heard of the agent."""

    def __init__(self, caller: AsyncCaller) -> None:
        self.caller = caller
        self.frames: list[bytes] = []
        self._saying = bytearray()
        self._slots_since = 0

    def count(self, hz: int) -> int:
        """Frames of that tone so far."""
        return sum(is_tone(f, hz) for f in self.frames)

    async def say(self, hz: int = CALLER_HZ, seconds: float = 0.6) -> None:
        self._saying += tone(hz, seconds)
        await until(lambda: not self._saying, "the tone to be said", WITHIN_S)

    async def hears(self, hz: int, frames: int = 10) -> None:
        await until(lambda: self.count(hz) >= frames, f"{frames} frames of {hz} Hz", WITHIN_S)

    async def falls_silent(self) -> None:
        self._slots_since = 0
        await until(lambda: self._slots_since >= QUIET_FRAMES, "silence", WITHIN_S)

    async def ended(self) -> str:
        await until(lambda: self.caller.end_reason is not None, "the end of the call", WITHIN_S)
        return self.caller.end_reason or ""

    async def speak(self) -> None:
        """For as long as the call: a frame in 20 ms, of the tone or of silence."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            frame = bytes(self._saying[: FRAME * 2]).ljust(FRAME * 2, b"\0")
            del self._saying[: FRAME * 2]
            await self.caller.send(frame)
            self._slots_since += 1
            due += 0.02
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def listen(self) -> None:
        async for frame in self.caller.frames():
            if not frame.filler:
                self.frames.append(frame.samples)
                self._slots_since = 0


@asynccontextmanager
async def listening(ticket: str) -> AsyncIterator[Ear]:
    async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller:
        ear = Ear(caller)
        tasks = [asyncio.create_task(ear.speak()), asyncio.create_task(ear.listen())]
        try:
            yield ear
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
