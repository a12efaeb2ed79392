"""A caller with a microphone that never closes: says prepared lines in real time, silence between them, and listens."""

from __future__ import annotations

import array
import asyncio
import time
from collections import deque
from types import TracebackType

from app.local.process import EngineError
from voxplane import AsyncCaller

FRAME_S = 0.02
QUIET_S = 0.5
PATIENCE_S = 20.0
LOUD = 500


class Talker:
    """`say` returns the moment (monotonic seconds) in which the last voiced sample of the line was sent."""

    def __init__(self, caller: AsyncCaller, rate_hz: int) -> None:
        self._caller = caller
        self._frame_bytes = int(rate_hz * FRAME_S) * 2
        self._rate_hz = rate_hz
        self._queue: deque[bytes] = deque()
        self._drained = asyncio.Event()
        self._heard: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.lead_in_s = 0.0
        self.notice_at: float | None = None

    async def __aenter__(self) -> Talker:
        self._tasks = [asyncio.create_task(self._speak()), asyncio.create_task(self._listen())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def say(self, samples: bytes) -> float:
        first, last = voiced(samples)
        self.lead_in_s = first / self._rate_hz
        size = self._frame_bytes
        self._drained.clear()
        self._queue.extend(samples[i : i + size].ljust(size, b"\0") for i in range(0, len(samples), size))
        await self._drained.wait()
        return time.monotonic() - (len(samples) / 2 - last) / self._rate_hz

    @property
    def heard(self) -> list[float]:
        """When each frame came; monotonic seconds."""
        return self._heard

    def first_frame_after(self, since: float) -> float | None:
        return next((at for at in self._heard if at > since), None)

    def last_frame_before(self, until: float, *, after: float) -> float | None:
        """The end of what was being said at `after`: the last frame before the first pause."""
        last = after
        for at in self._heard:
            if at < after:
                continue
            if at > until or at - last > 5 * FRAME_S:
                break
            last = at
        return last

    async def until_heard(self, *, since: float) -> None:
        await self._until(lambda: self.first_frame_after(since) is not None, "no answer came")

    async def until_quiet(self) -> None:
        """The agent has finished."""
        await self._until(
            lambda: bool(self._heard) and time.monotonic() - self._heard[-1] > QUIET_S,
            "the agent did not stop",
            40.0,
        )

    async def until_moved(self) -> None:
        await self._until(
            lambda: bool(self._caller.gaps) and self._caller.gaps[-1].attached_at_s is not None,
            "the call did not move",
        )

    async def until_notice(self, name: str) -> None:
        """Sets `notice_at`."""
        await self._until(
            lambda: any(n["event"] == name for n in self._caller.notices), f"{name} did not come"
        )
        self.notice_at = time.monotonic()

    async def _until(self, true, what: str, patience_s: float = PATIENCE_S) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + patience_s
        while not true():
            if self._caller.over:
                raise EngineError(
                    "ended", f"The call ended early ({self._caller.end_reason or 'lost'}).", "See the events."
                )
            if time.monotonic() > deadline:
                raise EngineError(
                    "silent", f"In the demo's call {what}.", "Is the machine very busy? Try again."
                )
            await asyncio.sleep(0.005)

    async def _speak(self) -> None:
        silence = b"\0" * self._frame_bytes
        due = time.monotonic()
        while True:
            if self._queue:
                await self._caller.send(self._queue.popleft())
                if not self._queue:
                    self._drained.set()
            else:
                await self._caller.send(silence)
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _listen(self) -> None:
        async for frame in self._caller.frames():
            if not frame.filler:
                self._heard.append(frame.at_s)


def voiced(samples: bytes) -> tuple[int, int]:
    """The first and the last sample that are loud enough to be voice."""
    values = array.array("h", samples)
    loud = [i for i, v in enumerate(values) if abs(v) > LOUD]
    return (loud[0], loud[-1]) if loud else (0, len(values))
