"""What the backend has sent and the caller has not heard yet: exact positions, marks in their places, cleared in one step.

Pure. The edge paces; nothing waits behind a socket, so a clear is immediate and the position is what has been sent.

An *utterance* is the audio between two ends of the backend's turn: numbered from 1 within the call, its position counted
in milliseconds from its first frame. It ends when the backend says so, when it is cleared, or, for backends that say
nothing, when it has run dry for a second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from regions.media.codecs import FRAME_MS, FRAME_SAMPLES
from regions.wire.media import Position

QUEUED_BYTES_MAX = 8_000 * 600
DRY_FRAMES = 50
BYTES_PER_MS = 8
MARKS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Popped:
    """Twenty milliseconds to send. `frame` None: nothing to play, but something passed (marks, an end)."""

    frame: bytes | None
    utterance: int
    offset_ms: int
    marks: tuple[str, ...] = ()
    started: bool = False
    done: bool = False


@dataclass(frozen=True, slots=True)
class Cleared:
    """`was_playing`: an utterance was cut. `position`: what of it had been sent."""

    position: Position
    marks: tuple[str, ...]
    dropped_ms: int
    was_playing: bool


_END = object()


class Playout:
    def __init__(self, utterance: int = 0) -> None:
        self._queue: deque[bytes | str | object] = deque()
        self._head = bytearray()
        self._queued_bytes = 0
        self._marks = 0
        self._dry = 0
        self._receiving = False
        self._receiving_number = utterance
        self._received_bytes = 0
        self._playing = False
        self._playing_number = utterance
        self._offset_ms = 0
        self.refused_bytes = 0

    @property
    def position(self) -> Position:
        """Utterance 0 when none is being played."""
        return (
            Position(utterance=self._playing_number, offset_ms=self._offset_ms)
            if self._playing
            else Position()
        )

    @property
    def queued_ms(self) -> int:
        return (self._queued_bytes + len(self._head)) // BYTES_PER_MS

    @property
    def next_utterance(self) -> int:
        """The number of the utterance that is being received, or of the next one."""
        return self._receiving_number if self._receiving else self._receiving_number + 1

    @property
    def receiving(self) -> bool:
        """The backend has begun an utterance and not ended it."""
        return self._receiving

    @property
    def received_ms(self) -> int:
        """How much of the newest utterance has come."""
        return self._received_bytes // BYTES_PER_MS

    @property
    def last_utterance(self) -> int:
        return self._receiving_number

    @property
    def active(self) -> bool:
        """Something is being played, or waits to be."""
        return self._playing or self._queued_bytes > 0

    def push(self, ulaw: bytes) -> bool:
        """False where there is no room: ten minutes of audio are queued already."""
        if self._queued_bytes + len(ulaw) > QUEUED_BYTES_MAX:
            self.refused_bytes += len(ulaw)
            return False
        if ulaw:
            if not self._receiving:
                self._receiving = True
                self._receiving_number += 1
                self._received_bytes = 0
            self._queue.append(ulaw)
            self._received_bytes += len(ulaw)
            self._queued_bytes += len(ulaw)
        return True

    def mark(self, name: str) -> bool:
        if self._marks >= MARKS_MAX:
            return False
        self._marks += 1
        self._queue.append(name)
        return True

    def forget_marks(self) -> None:
        """Whoever set them is gone."""
        self._queue = deque(item for item in self._queue if not isinstance(item, str))
        self._marks = 0

    def end_utterance(self) -> None:
        """The backend has sent all of it."""
        if self._receiving:
            self._receiving = False
            self._queue.append(_END)

    def pop(self) -> Popped | None:
        """What this 20 ms slot carries; None: nothing at all."""
        if not self._queue and not self._head and not self._playing:
            return None
        before: list[str] = []
        done = ended = False
        number = self._playing_number
        while len(self._head) < FRAME_SAMPLES and self._queue:
            item = self._queue[0]
            if isinstance(item, bytes):
                self._queue.popleft()
                self._queued_bytes -= len(item)
                self._head += item
                continue
            if self._head:
                # the rest of the audio before a mark or an end plays first, padded to a frame
                ended = True
                break
            self._queue.popleft()
            if item is _END:
                done = self._playing
                self._playing = False
                if done:
                    return Popped(None, number, self._offset_ms, tuple(before), done=True)
            else:
                self._marks -= 1
                before.append(str(item))
        if not self._head:
            return self._dry_slot(tuple(before))
        if len(self._head) < FRAME_SAMPLES and not ended and self._receiving and self._dry < 2:
            # a backend that streams is given two slots to complete a frame
            self._dry += 1
            return Popped(None, self._playing_number, self._offset_ms, tuple(before)) if before else None
        return self._frame(tuple(before))

    def clear(self) -> Cleared:
        """Drops everything that has not been sent; marks come back in their order. What comes later is another utterance."""
        position = self.position
        was_playing = self._playing
        marks = tuple(item for item in self._queue if isinstance(item, str))
        dropped_ms = self.queued_ms
        waited = not was_playing and dropped_ms > 0
        self._queue.clear()
        self._head.clear()
        self._queued_bytes = self._marks = self._dry = 0
        self._receiving = self._playing = False
        self._playing_number = self._receiving_number
        self._offset_ms = 0
        if waited:
            position = Position(utterance=self._receiving_number, offset_ms=0)
        return Cleared(position, marks, dropped_ms, was_playing or waited)

    def _frame(self, before: tuple[str, ...]) -> Popped:
        self._dry = 0
        frame = bytes(self._head[:FRAME_SAMPLES])
        del self._head[:FRAME_SAMPLES]
        if len(frame) < FRAME_SAMPLES:
            frame += b"\xff" * (FRAME_SAMPLES - len(frame))
        started = not self._playing
        if started:
            self._playing = True
            self._playing_number += 1
            self._offset_ms = 0
        offset_ms = self._offset_ms
        self._offset_ms += FRAME_MS
        return Popped(frame, self._playing_number, offset_ms, before, started=started)

    def _dry_slot(self, before: tuple[str, ...]) -> Popped | None:
        if self._playing:
            self._dry += 1
            if self._dry >= DRY_FRAMES:
                self._dry = 0
                self._playing = self._receiving = False
                return Popped(None, self._playing_number, self._offset_ms, before, done=True)
        return Popped(None, self._playing_number, self._offset_ms, before) if before else None
