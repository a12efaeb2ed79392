"""The caller's side of a call: one socket at a time, audio in the caller's format, every message with the lease's stamp.

Decides how often a caller hears something when there is no audio (at least every 100 ms, so that silence means loss) and
how often its snapshot is refreshed. A caller that has gone is no error: what is sent to nobody is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from regions.edge.clock import precise_ms, wall_ms
from regions.edge.journal import Journal
from regions.edge.line import CallerLine, Connection
from regions.media.caller_buffer import CallerBuffer
from regions.media.codecs import ULAW_8K, Format, Transcoder
from regions.media.playout import Popped
from regions.media.silence import is_silent
from regions.wire import media as wire
from regions.wire.ticket import Grant

ACKS_EVERY_MS = 250
MessageOut = (
    wire.Attached
    | wire.Clear
    | wire.Notice
    | wire.Acked
    | wire.Snapshot
    | wire.Tick
    | wire.Ticket
    | wire.Move
    | wire.Go
    | wire.Ended
    | wire.Refused
)


class CallerPort(Connection, Protocol):
    """The caller's socket. Sending to one that has closed does nothing. `dtx`: silence goes without samples, both ways."""

    @property
    def dtx(self) -> bool: ...

    def send_text(self, message: bytes) -> None: ...
    def send_audio(self, frame: bytes) -> None: ...
    def silent(self) -> None:
        """20 ms in which there is nothing to send. Where audio must not stop, silence goes out."""
        ...

    def close(self) -> None: ...
    def cut(self, *, silent: bool) -> None:
        """Without a word: the connection is gone, or stays and nothing comes any more."""
        ...


class CallerLeg:
    """`owns` is asked at each frame: a process that was stopped goes on in the middle of a turn."""

    def __init__(self, owns: Callable[[], bool], inner: Format = ULAW_8K) -> None:
        self._owns = owns
        self._inner = inner
        self.buffer = CallerBuffer(inner)
        self.line = CallerLine()
        self._port: CallerPort | None = None
        self._transcoder = Transcoder("pcm16", 16_000, inner)
        self._bytes_per_ms = 32
        self._sequence = 0
        self._sent_ms = 0
        self._acked_ms = 0

    def take(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        """The caller's newest socket is the one that counts; an older one is closed."""
        if self._port is not None and self._port is not port:
            self._port.close()
        self._port = port
        self._transcoder = Transcoder(encoding, sample_rate, self._inner)
        self._bytes_per_ms = Format(encoding, sample_rate).bytes_per_ms
        self.line.connected(port)

    def leave(self, port: CallerPort) -> bool:
        """False where it was not the newest."""
        newest = self._port is port
        if newest:
            self._port = None
            self.line.left()
        return newest

    def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def cut(self, *, silent: bool) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.cut(silent=silent)

    def heard(self, samples: bytes, sequence: int) -> None:
        """Without samples: 20 ms of silence, and perhaps more that is not told."""
        quiet, port = not samples, self._port
        media_ms = wire.FRAME_MS if quiet else len(samples) / self._bytes_per_ms
        left_out = self.line.arrivals.came(precise_ms(), sequence, media_ms, quiet=quiet)
        if port is not None and (quiet or left_out):
            frame_bytes = wire.FRAME_MS * self._bytes_per_ms
            port.carried.saved_bytes += left_out * (wire.HEADER_BYTES + frame_bytes) + quiet * frame_bytes
        self.buffer.push(self._inner.silence if quiet else self._transcoder.to_agent(samples))

    def too_late(self) -> int:
        """Frames that had come, and were thrown away."""
        return self.buffer.dropped_bytes // self._inner.frame_bytes

    def tell(self, message: MessageOut) -> None:
        if self._port is not None:
            self._port.send_text(msgspec.json.encode(message))

    def greet(self, call: str, grant: Grant, *, stamp: int, resumed: bool) -> None:
        self.tell(
            wire.Attached(
                call=call,
                epoch=grant.epoch,
                region=grant.region,
                edge=grant.edge,
                stamp=stamp,
                resumed=resumed,
            )
        )

    def notice(self, type_: str, data: dict[str, object]) -> None:
        """An event that the caller may show."""
        self.tell(wire.Notice(type=type_, at_ms=wall_ms(), data=msgspec.Raw(msgspec.json.encode(data))))

    def play(self, popped: Popped, *, stamp: int, now: int) -> bool:
        """One 20 ms frame of the agent's; False where there is nobody to hear it."""
        if self._port is None or popped.frame is None or not self._owns():
            return False
        audio, flags = self._transcoder.to_caller(popped.frame), 0
        if self._port.dtx and is_silent(popped.frame, self._inner):
            self._port.carried.saved_bytes += len(audio)
            audio, flags = b"", wire.FLAG_SILENCE
        self._send(audio, popped.utterance, popped.offset_ms, flags, stamp=stamp, now=now)
        return True

    def fill(self, ulaw: bytes, *, stamp: int, now: int) -> None:
        """20 ms that are nobody's words."""
        if self._owns():
            self._send(self._transcoder.fill(ulaw), 0, 0, wire.FLAG_FILLER, stamp=stamp, now=now)

    def _send(
        self, samples: bytes, utterance: int, offset_ms: int, flags: int, *, stamp: int, now: int
    ) -> None:
        if self._port is None:
            return
        self._sequence += 1
        self._port.send_audio(
            wire.pack(
                samples,
                sequence=self._sequence,
                stamp=stamp,
                utterance=utterance,
                offset_ms=offset_ms,
                flags=flags,
            )
        )
        self._sent_ms = now

    def keep_informed(self, journal: Journal, seal: Callable[[], str], *, stamp: int, now: int) -> None:
        """What is durable, the snapshot where it has changed, and a sign of life where nothing else was said."""
        if self._port is None:
            return
        acks_due = journal.news and now - self._acked_ms >= ACKS_EVERY_MS
        if journal.changed or acks_due:
            outbox = journal.outbox
            self.tell(wire.Snapshot(epoch=outbox.epoch, n=outbox.last_n, sealed=seal()))
            if journal.news:
                self.tell(wire.Acked(epoch=outbox.epoch, n=outbox.acked_n))
                self._acked_ms = now
            journal.changed = journal.news = False
        if now != self._sent_ms:
            self._port.silent()
        if now - self._sent_ms >= wire.TICK_MS - wire.FRAME_MS:
            self.tell(wire.Tick(stamp=stamp))
            self._sent_ms = now
