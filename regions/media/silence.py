"""What is silence on a line, and what of it need not be sent to a backend that has said so. Pure.

A frame is *silent* where nobody could hear it: 66 dB below full scale at most. Long silence is also what the voice detector takes for
none, whatever the line sounds like. The first 400 ms are sent as they are, so that whoever listens hears the end of what was said;
after them frames wait for 300 ms, in case a voice begins that was not noticed yet, and are left out when it does not.
"""

from __future__ import annotations

import audioop
from collections import deque

from regions.media.codecs import FRAME_MS, Format

PEAK_MAX = 16
SENT_FRAMES, BEFORE_FRAMES, TOLD_FRAMES = 20, 15, 10


def is_silent(frame: bytes, inner: Format) -> bool:
    pcm = audioop.ulaw2lin(frame, 2) if inner.sample_bytes == 1 else frame
    return audioop.max(pcm, 2) <= PEAK_MAX


class SilenceDiscard:
    """`frame` gives what is to be sent instead of a frame: frames, and as numbers the milliseconds that were left out."""

    __slots__ = ("_inner", "_left_out", "_quiet", "_waiting", "discarded_frames")

    def __init__(self, inner: Format) -> None:
        self._inner = inner
        self._quiet = self._left_out = 0
        self._waiting: deque[bytes] = deque()
        self.discarded_frames = 0

    def frame(self, frame: bytes, *, voice: bool | None) -> list[bytes | int]:
        """`voice`: whether the caller is heard to speak, the pauses within what it says included; None where nobody listens for it,
        and only silence itself is left out."""
        if voice or (voice is None and not is_silent(frame, self._inner)):
            return self._go_on(frame)
        self._quiet += 1
        if self._quiet <= SENT_FRAMES:
            return [frame]
        self._waiting.append(frame)
        if len(self._waiting) <= BEFORE_FRAMES:
            return []
        self._waiting.popleft()
        self._left_out += 1
        self.discarded_frames += 1
        return [self._told()] if self._left_out >= TOLD_FRAMES else []

    def _go_on(self, frame: bytes) -> list[bytes | int]:
        self._quiet = 0
        found: list[bytes | int] = [self._told()] if self._left_out else []
        found += self._waiting
        self._waiting.clear()
        return [*found, frame]

    def _told(self) -> int:
        left_out_ms, self._left_out = self._left_out * FRAME_MS, 0
        return left_out_ms
