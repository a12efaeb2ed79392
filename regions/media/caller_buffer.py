"""What the caller has sent and the backend has not been given yet. Pure. Bounded: old audio is worth less than no delay.

It is read twice: by whoever listens for a voice, as soon as it has come, and then frame by frame on its way to the backend.
"""

from __future__ import annotations

from regions.media.codecs import ULAW_8K, Format

BUFFERED_FRAMES_MAX = 20


class CallerBuffer:
    """Takes audio of any size, gives 20 ms at a time."""

    __slots__ = ("_bytes", "_frame_bytes", "_heard", "dropped_bytes")

    def __init__(self, inner: Format = ULAW_8K) -> None:
        self._frame_bytes = inner.frame_bytes
        self._bytes = bytearray()
        self._heard = 0
        self.dropped_bytes = 0

    def push(self, audio: bytes) -> None:
        self._bytes += audio
        excess = len(self._bytes) - BUFFERED_FRAMES_MAX * self._frame_bytes
        if excess > 0:
            del self._bytes[:excess]
            self._heard = max(0, self._heard - excess)
            self.dropped_bytes += excess

    @property
    def frames(self) -> int:
        """How many can be popped."""
        return len(self._bytes) // self._frame_bytes

    def pop(self) -> bytes | None:
        """Exactly 20 ms, or None while there is less."""
        if len(self._bytes) < self._frame_bytes:
            return None
        frame = bytes(self._bytes[: self._frame_bytes])
        del self._bytes[: self._frame_bytes]
        self._heard = max(0, self._heard - self._frame_bytes)
        return frame

    def fresh(self) -> list[bytes]:
        """The whole frames that have come since this was asked last; they stay."""
        frames = []
        while len(self._bytes) - self._heard >= self._frame_bytes:
            frames.append(bytes(self._bytes[self._heard : self._heard + self._frame_bytes]))
            self._heard += self._frame_bytes
        return frames
