"""What the caller has sent and the backend has not been given yet. Pure. Bounded: old audio is worth less than no delay."""

from __future__ import annotations

from regions.media.codecs import FRAME_SAMPLES

BUFFERED_BYTES_MAX = FRAME_SAMPLES * 20


class CallerBuffer:
    """Takes mu-law of any size, gives 20 ms at a time."""

    __slots__ = ("_bytes", "dropped_bytes")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.dropped_bytes = 0

    def push(self, ulaw: bytes) -> None:
        self._bytes += ulaw
        excess = len(self._bytes) - BUFFERED_BYTES_MAX
        if excess > 0:
            del self._bytes[:excess]
            self.dropped_bytes += excess

    @property
    def frames(self) -> int:
        """How many can be popped."""
        return len(self._bytes) // FRAME_SAMPLES

    def pop(self) -> bytes | None:
        """Exactly 20 ms, or None while there is less."""
        if len(self._bytes) < FRAME_SAMPLES:
            return None
        frame = bytes(self._bytes[:FRAME_SAMPLES])
        del self._bytes[:FRAME_SAMPLES]
        return frame
