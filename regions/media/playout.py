"""What the backend has sent and the caller has not heard yet: exact positions, marks in their places, cleared in one step.

Pure. The edge paces; nothing waits behind a socket, so a clear is immediate and the position is what has been sent.

An *utterance* is the audio between two ends of the backend's turn: numbered from 1 within the call, its position counted
in milliseconds from its first frame. It ends when the backend says so, when it is cleared, or, for backends that say
nothing, when it has run dry for a second.

While it is *held* nothing comes of it and nothing is lost. What has been sent lately is kept, so that it can go on from an earlier
position than where it was held: what the caller had buffered and dropped is played again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from regions.media.codecs import FRAME_MS, ULAW_8K, Format
from regions.wire.media import Position

QUEUED_MS_MAX = 600_000
DRY_FRAMES = 50
MARKS_MAX = 1_000
KEPT_FRAMES = 100
"""Of what has been sent: the farthest that it can go back."""


class Chunk(bytes):
    """Audio that its backend may take back by its `id`."""

    id: bytes


def chunk(samples: bytes, id_: bytes) -> Chunk:
    made = Chunk(samples)
    made.id = id_
    return made


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
    def __init__(self, utterance: int = 0, inner: Format = ULAW_8K) -> None:
        self._frame_bytes = inner.frame_bytes
        self._bytes_per_ms = inner.bytes_per_ms
        self._silent_byte = inner.silent_byte
        self._queue: deque[bytes | str | object] = deque()
        self._head = bytearray()
        self._playing_chunk: Chunk | None = None
        self._queued_bytes = 0
        self._marks = 0
        self._dry = 0
        self._receiving = False
        self._receiving_number = utterance
        self._received_bytes = 0
        self._playing = False
        self._playing_number = utterance
        self._offset_ms = 0
        self._start_ms = 0
        self._sent: deque[bytes] = deque(maxlen=KEPT_FRAMES)
        self._again: deque[bytes] = deque()
        self.held = False
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
    def standing(self) -> Position:
        """As `position`; where nothing is being played, the beginning of what will be next."""
        return self.position if self._playing else Position(utterance=self._playing_number + 1)

    @property
    def queued_ms(self) -> int:
        return (self._queued_bytes + len(self._head)) // self._bytes_per_ms + len(self._again) * FRAME_MS

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
        return self._received_bytes // self._bytes_per_ms

    @property
    def last_utterance(self) -> int:
        return self._receiving_number

    @property
    def active(self) -> bool:
        """Something is being played, or waits to be."""
        return self._playing or self._queued_bytes > 0

    def push(self, audio: bytes) -> bool:
        """False where there is no room: ten minutes of audio are queued already."""
        if self._queued_bytes + len(audio) > QUEUED_MS_MAX * self._bytes_per_ms:
            self.refused_bytes += len(audio)
            return False
        if audio:
            if not self._receiving:
                self._receiving = True
                self._receiving_number += 1
                self._received_bytes = 0
            self._queue.append(audio)
            self._received_bytes += len(audio)
            self._queued_bytes += len(audio)
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

    def begin(self, at: Position) -> None:
        """What comes next is the rest of an utterance, from `at` on. Call it while nothing is played or waits."""
        self._receiving_number = self._playing_number = at.utterance - 1
        self._start_ms = at.offset_ms

    def go_on(self, from_ms: int) -> None:
        """Ends the hold. What was sent of this utterance from `from_ms` on, as far as it is kept, comes once more, in whole frames.
        Marks that have passed do not come again."""
        self.held = False
        unheard = -(-max(0, self._offset_ms - from_ms) // FRAME_MS)
        frames = min(unheard, len(self._sent)) if self._playing else 0
        for _ in range(frames):
            self._again.appendleft(self._sent.pop())
        self._offset_ms -= frames * FRAME_MS
        self._dry = 0

    def pop(self) -> Popped | None:
        """What this 20 ms slot carries; None: nothing at all."""
        if self.held:
            return None
        if self._again:
            return self._send(self._again.popleft(), ())
        if not self._queue and not self._head and not self._playing:
            return None
        before: list[str] = []
        done = ended = False
        number = self._playing_number
        while len(self._head) < self._frame_bytes and self._queue:
            item = self._queue[0]
            if isinstance(item, bytes):
                self._queue.popleft()
                self._queued_bytes -= len(item)
                self._head += item
                self._playing_chunk = item if isinstance(item, Chunk) else None
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
        if len(self._head) < self._frame_bytes and not ended and self._receiving and self._dry < 2:
            # a backend that streams is given two slots to complete a frame
            self._dry += 1
            return Popped(None, self._playing_number, self._offset_ms, tuple(before)) if before else None
        return self._frame(tuple(before))

    def cancel(self, id_: bytes) -> None:
        """Drops what of the chunks of that name has not been sent; what comes before and after it is played."""
        if self._playing_chunk is not None and self._playing_chunk.id == id_:
            # it was put in last, so what is left of it stands at the end
            left = min(len(self._head), len(self._playing_chunk))
            del self._head[len(self._head) - left :]
            self._playing_chunk = None
            self._received_bytes -= left
        dropped = [item for item in self._queue if isinstance(item, Chunk) and item.id == id_]
        if dropped:
            self._queue = deque(i for i in self._queue if not (isinstance(i, Chunk) and i.id == id_))
            self._queued_bytes -= sum(map(len, dropped))
            self._received_bytes -= sum(map(len, dropped))

    def clear(self, heard_ms: int | None = None) -> Cleared:
        """Drops everything that has not been sent; marks come back in their order. What comes later is another utterance.
        `heard_ms`: of the utterance that is being played, where the caller has said so; else all that was sent."""
        position = self.position
        was_playing = self._playing
        marks = tuple(item for item in self._queue if isinstance(item, str))
        dropped_ms = self.queued_ms
        if was_playing and heard_ms is not None and heard_ms < position.offset_ms:
            dropped_ms += position.offset_ms - heard_ms
            position = Position(utterance=position.utterance, offset_ms=heard_ms)
        waited = not was_playing and dropped_ms > 0
        self._queue.clear()
        self._head.clear()
        self._sent.clear()
        self._again.clear()
        self.held = False
        self._playing_chunk = None
        self._queued_bytes = self._marks = self._dry = 0
        self._receiving = self._playing = False
        self._playing_number = self._receiving_number
        self._offset_ms = 0
        if waited:
            position = Position(utterance=self._receiving_number, offset_ms=0)
        return Cleared(position, marks, dropped_ms, was_playing or waited)

    def _frame(self, before: tuple[str, ...]) -> Popped:
        self._dry = 0
        frame = bytes(self._head[: self._frame_bytes])
        del self._head[: self._frame_bytes]
        if len(frame) < self._frame_bytes:
            frame += self._silent_byte * (self._frame_bytes - len(frame))
        return self._send(frame, before)

    def _send(self, frame: bytes, before: tuple[str, ...]) -> Popped:
        started = not self._playing
        if started:
            self._playing = True
            self._playing_number += 1
            self._offset_ms, self._start_ms = self._start_ms, 0
            self._sent.clear()
        offset_ms = self._offset_ms
        self._offset_ms += FRAME_MS
        self._sent.append(frame)
        return Popped(frame, self._playing_number, offset_ms, before, started=started)

    def _dry_slot(self, before: tuple[str, ...]) -> Popped | None:
        if self._playing:
            self._dry += 1
            if self._dry >= DRY_FRAMES:
                self._dry = 0
                self._playing = self._receiving = False
                return Popped(None, self._playing_number, self._offset_ms, before, done=True)
        return Popped(None, self._playing_number, self._offset_ms, before) if before else None
