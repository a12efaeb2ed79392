"""What a caller hears while there is no backend: two soft notes every two seconds, made here. Pure.

Decides when the sound plays and which 20 ms of it come next. It begins once there has been no backend, and nothing of the
agent's was heard, for half a second, so that one which is back at once is not announced; it ends with the first audio of the new
one, or when that has been there for two seconds without a word. Nothing of it is an utterance: it has no position and is in no
conversation.
"""

from __future__ import annotations

import audioop
import math
import struct

from regions.media.codecs import FRAME_SAMPLES, RATE_HZ

BEGINS_AFTER_MS = 500
LISTENS_AFTER_MS = 2_000
"""A backend that has been there for so long and has said nothing is listening."""
SOUNDS = ("tone", "silence")

_NOTES_HZ = (440.0, 554.4)
_NOTE_FRAMES = 7
_PERIOD_FRAMES = 100
_PEAK = 2_000
_RAMP = RATE_HZ // 100
"""Samples, 10 ms: a note that begins or ends at once would click."""


def _note(hz: float) -> list[int]:
    size = _NOTE_FRAMES * FRAME_SAMPLES
    return [
        round(_PEAK * min(1.0, i / _RAMP, (size - 1 - i) / _RAMP) * math.sin(2 * math.pi * hz * i / RATE_HZ))
        for i in range(size)
    ]


def _frames() -> tuple[bytes, ...]:
    samples = [s for hz in _NOTES_HZ for s in _note(hz)]
    samples += [0] * (_PERIOD_FRAMES * FRAME_SAMPLES - len(samples))
    ulaw = audioop.lin2ulaw(struct.pack(f"<{len(samples)}h", *samples), 2)
    return tuple(ulaw[i : i + FRAME_SAMPLES] for i in range(0, len(ulaw), FRAME_SAMPLES))


FRAMES = _frames()


class HoldSound:
    """One call's. `sound`: one of `SOUNDS`."""

    __slots__ = ("_begun", "_next", "_on", "_quiet_ms", "_since_ms", "_up_ms")

    def __init__(self, sound: str) -> None:
        self._on = sound == "tone"
        self._since_ms: int | None = None
        self._up_ms: int | None = None
        self._quiet_ms = 0
        self._next = 0
        self._begun = False

    def lost(self, now_ms: int) -> None:
        """There is no backend from now on."""
        if self._since_ms is None:
            self._since_ms, self._next, self._begun = now_ms, 0, False
        self._up_ms = None

    def up(self, now_ms: int) -> None:
        """There is one, which has not spoken yet. What has not begun does not begin any more."""
        self._up_ms = now_ms
        if not self._begun:
            self._since_ms = None

    def spoken(self, now_ms: int, *, new: bool) -> None:
        """Audio of a backend has been played. `new`: of the one that is there."""
        self._quiet_ms = now_ms
        if new:
            self._since_ms = None

    def frame(self, now_ms: int) -> bytes | None:
        """The next 20 ms; None where nothing is to be heard. Call it when nothing of the agent's is played."""
        if not self._on or self._since_ms is None:
            return None
        if self._up_ms is not None and now_ms - self._up_ms >= LISTENS_AFTER_MS:
            self._since_ms = None
            return None
        if now_ms - max(self._since_ms, self._quiet_ms) < BEGINS_AFTER_MS:
            return None
        self._begun = True
        frame = FRAMES[self._next]
        self._next = (self._next + 1) % len(FRAMES)
        return frame
