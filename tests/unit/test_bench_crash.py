"""What the benchmark of crashed backends counts as the gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.bench.crash import gap
from voxplane import Frame

DEAD, NEXT = b"\x01\x80", b"\x02\x80"


def frame(utterance: int, voice: bytes, at_s: float, *, filler: bool = False) -> Frame:
    return Frame(voice * 80, utterance, 0, 1, at_s, filler=filler)


class Heard:
    """A caller that hears these frames, and then nothing for ever."""

    def __init__(self, *frames: Frame) -> None:
        self._frames = frames

    async def frames(self) -> AsyncIterator[Frame]:
        for found in self._frames:
            yield found
        await asyncio.Event().wait()


async def counted(last: Frame, *heard: Frame) -> float:
    caller: Any = Heard(*heard)
    async with asyncio.timeout(1):
        return round(await gap(caller, last, DEAD, same=False))


async def test_a_gap_is_from_the_last_frame_of_the_dead_one_to_the_first_of_the_next() -> None:
    """Also where no frame of the dead one was on its way when it was killed: then the first that is heard is the next one's."""
    last = frame(1, DEAD, 1.00)
    assert await counted(last, frame(2, NEXT, 1.04)) == 40
    assert await counted(last, frame(1, DEAD, 1.02), frame(2, NEXT, 1.08)) == 60
    assert await counted(last, frame(0, DEAD, 1.02, filler=True), frame(2, NEXT, 1.08)) == 80
