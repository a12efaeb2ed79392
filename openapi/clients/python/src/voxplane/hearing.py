"""What a caller hears of the agent: frames in order, and the gaps that failovers left in them. Times are the caller's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from voxplane.messages import OFFSET_MAX, Audio, Position

RECEIVED_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Frame:
    """Audio from the agent. `offset_ms` counts from the start of the agent's `utterance`; `at_s`: monotonic arrival time. `filler`:
    to be played, and not the agent's: what is heard while the call has no backend. It has no utterance and closes no gap."""

    samples: bytes
    utterance: int
    offset_ms: int
    epoch: int
    at_s: float
    filler: bool = False


@dataclass(slots=True)
class Gap:
    """One failover or planned move as the caller heard it, in monotonic seconds. `audio_gap_s`: last frame of the old owner to the
    first of the new."""

    from_epoch: int
    reason: str
    lost_at_s: float
    last_frame_at_s: float | None
    to_epoch: int | None = None
    attached_at_s: float | None = None
    first_frame_at_s: float | None = None

    @property
    def audio_gap_s(self) -> float | None:
        if self.last_frame_at_s is None or self.first_frame_at_s is None:
            return None
        return self.first_frame_at_s - self.last_frame_at_s


class Hearing:
    """Frames wait here until they are taken; where nobody takes them, the oldest go first."""

    def __init__(self, bytes_per_s: int) -> None:
        self.gaps: list[Gap] = []
        self._bytes_per_s = bytes_per_s
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(RECEIVED_MAX)
        self._last_frame_s: float | None = None
        self._over = self._taken = False

    def lost(self, from_epoch: int, reason: str, now_s: float) -> None:
        """The owner is given up; several tries to find the next one are one gap."""
        if not self.gaps or self.gaps[-1].attached_at_s is not None:
            self.gaps.append(Gap(from_epoch, reason, now_s, self._last_frame_s))

    def stayed(self) -> None:
        """The new edge has refused, and the owner goes on: there is no gap."""
        if self.gaps and self.gaps[-1].attached_at_s is None:
            self.gaps.pop()

    def attached(self, epoch: int, now_s: float) -> None:
        if self.gaps and self.gaps[-1].attached_at_s is None:
            self.gaps[-1].to_epoch = epoch
            self.gaps[-1].attached_at_s = now_s

    def audio(self, epoch: int, audio: Audio, now_s: float) -> Position:
        """Keeps the frame; gives the position up to which the agent has been heard with it."""
        self._last_frame_s = now_s
        gap = self.gaps[-1] if self.gaps else None
        if gap is not None and gap.from_epoch == epoch and gap.first_frame_at_s is None:
            gap.last_frame_at_s = now_s
        if gap is not None and gap.first_frame_at_s is None and gap.to_epoch == epoch:
            gap.first_frame_at_s = now_s
        self._put(Frame(audio.samples, audio.utterance, audio.offset_ms, epoch, now_s))
        end_ms = audio.offset_ms + len(audio.samples) * 1000 // self._bytes_per_s
        return Position(utterance=audio.utterance, offset_ms=min(end_ms, OFFSET_MAX))

    def filler(self, epoch: int, audio: Audio, now_s: float) -> None:
        """Keeps a frame that is nobody's."""
        self._put(Frame(audio.samples, 0, 0, epoch, now_s, filler=True))

    def clear(self, received: Position) -> Position:
        """Drops what has not been taken: the agent is silenced. Up to where it was heard; nobody who takes no frames is believed
        to have heard nothing."""
        if not self._taken:
            return received
        waiting = [self._frames.get_nowait() for _ in range(self._frames.qsize())]
        unheard = next((f for f in waiting if f is not None and not f.filler), None)
        for frame in waiting:
            if frame is None or frame.filler:
                self._put(frame)
        if unheard is None:
            return received
        return Position(utterance=unheard.utterance, offset_ms=unheard.offset_ms)

    def finish(self) -> None:
        if not self._over:
            self._over = True
            self._put(None)

    async def receive(self) -> Frame | None:
        """The next frame; None, to everybody who asks, once all is over."""
        self._taken = True
        frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)
        return frame

    def _put(self, frame: Frame | None) -> None:
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)
