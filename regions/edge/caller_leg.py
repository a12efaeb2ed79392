"""The caller's side of a call: one socket at a time, audio in the caller's format, every message with the lease's stamp.

Decides how often a caller hears something when there is no audio (at least every 100 ms, so that silence means loss) and
how often its snapshot is refreshed. A caller that has gone is no error: what is sent to nobody is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from regions.edge.clock import wall_ms
from regions.edge.journal import Journal
from regions.media.caller_buffer import CallerBuffer
from regions.media.codecs import Transcoder
from regions.media.playout import Popped
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


class CallerPort(Protocol):
    """The caller's socket. Sending to one that has closed does nothing."""

    def send_text(self, message: bytes) -> None: ...
    def send_audio(self, frame: bytes) -> None: ...
    def close(self) -> None: ...
    def cut(self, *, silent: bool) -> None:
        """Without a word: the connection is gone, or stays and nothing comes any more."""
        ...


class CallerLeg:
    """`owns` is asked at each frame: a process that was stopped goes on in the middle of a turn."""

    def __init__(self, owns: Callable[[], bool]) -> None:
        self._owns = owns
        self.buffer = CallerBuffer()
        self._port: CallerPort | None = None
        self._transcoder = Transcoder("pcm16", 16_000)
        self._sequence = 0
        self._sent_ms = 0
        self._acked_ms = 0

    def take(self, port: CallerPort, encoding: str, sample_rate: int) -> None:
        """The caller's newest socket is the one that counts; an older one is closed."""
        if self._port is not None and self._port is not port:
            self._port.close()
        self._port = port
        self._transcoder = Transcoder(encoding, sample_rate)

    def leave(self, port: CallerPort) -> None:
        if self._port is port:
            self._port = None

    def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def cut(self, *, silent: bool) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.cut(silent=silent)

    def heard(self, samples: bytes) -> None:
        self.buffer.push(self._transcoder.to_agent(samples))

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
        self._send(popped.frame, popped.utterance, popped.offset_ms, 0, stamp=stamp, now=now)
        return True

    def fill(self, ulaw: bytes, *, stamp: int, now: int) -> None:
        """20 ms that are nobody's words."""
        if self._owns():
            self._send(ulaw, 0, 0, wire.FLAG_FILLER, stamp=stamp, now=now)

    def _send(self, ulaw: bytes, utterance: int, offset_ms: int, flags: int, *, stamp: int, now: int) -> None:
        if self._port is None:
            return
        self._sequence += 1
        self._port.send_audio(
            wire.pack(
                self._transcoder.to_caller(ulaw),
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
        if now - self._sent_ms >= wire.TICK_MS - wire.FRAME_MS:
            self.tell(wire.Tick(stamp=stamp))
            self._sent_ms = now
