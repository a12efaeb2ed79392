"""A call's durable events on this edge: numbered as they happen, kept until they are acknowledged. Pure.

Numbers are dense within (call, epoch), from 1. What is acknowledged is dropped; what is not is sent again with the same
numbers. Over the limit, which is one of number and one of size, numbers are skipped; one `events.lost` takes the place of the
whole range once there is room again.
"""

from __future__ import annotations

from collections import deque

import msgspec

from regions.wire.events import EdgeEvent, Origin

EVENTS_MAX = 2_000
BYTES_MAX = 2 << 20
RUN_MAX = 200


class Outbox:
    def __init__(self, call: str, epoch: int) -> None:
        self.call = call
        self.epoch = epoch
        self.trace = ""
        """The `traceparent` that goes with what is sent; empty where it is not traced."""
        self.acked_n = 0
        self.acked_seq = 0
        self.last_n = 0
        self.sent_n = 0
        self.in_flight = False
        self.closed = False
        self.fenced = False
        self._events: deque[EdgeEvent] = deque()
        self._bytes = 0

    def add(self, *, id: str, type: str, at_ms: int, data: bytes, origin: Origin | None = None) -> EdgeEvent:
        """The event with its number."""
        self.last_n += 1
        event = EdgeEvent(n=self.last_n, id=id, type=type, at_ms=at_ms, data=msgspec.Raw(data), origin=origin)
        if not self.closed:
            self._events.append(event)
            self._bytes += len(data)
        return event

    def skip(self) -> int:
        """The number of an event that is not kept. Nothing goes out behind it until `fill` has said so."""
        self.last_n += 1
        return self.last_n

    def fill(self, *, id: str, type: str, at_ms: int, data: bytes) -> None:
        """The event that stands for all numbers skipped since the last one that was kept; it has the newest of them."""
        if not self.closed:
            self._events.append(
                EdgeEvent(n=self.last_n, id=id, type=type, at_ms=at_ms, data=msgspec.Raw(data))
            )
            self._bytes += len(data)

    def reopen(self, durable_n: int, *, id: str, at_ms: int, data: bytes, type: str) -> None:
        """The log has lost what it had acknowledged above `durable_n`, and nobody has it any more: the event stands for these
        numbers and goes first."""
        if self.closed:
            return
        self._events.appendleft(
            EdgeEvent(n=self.acked_n, id=id, type=type, at_ms=at_ms, data=msgspec.Raw(data))
        )
        self.acked_n = durable_n
        self._bytes += len(data)

    @property
    def over(self) -> bool:
        """No more may be added but the final event: the log has been out of reach for too long."""
        return len(self._events) >= EVENTS_MAX or self._bytes >= BYTES_MAX

    @property
    def unacked(self) -> list[EdgeEvent]:
        return list(self._events)

    @property
    def settled(self) -> bool:
        """Nothing is left to be sent or waited for."""
        return not self._events

    def run(self) -> list[EdgeEvent]:
        """The next events to send, in order; empty while a run is under way."""
        if self.in_flight or self.closed:
            return []
        return [e for e in self._events if e.n > self.sent_n][:RUN_MAX]

    def sent(self, run: list[EdgeEvent]) -> None:
        self.in_flight = True
        self.sent_n = run[-1].n

    def acknowledge(self, durable_n: int) -> bool:
        """Drops what is durable; True where that is news."""
        self.in_flight = False
        if durable_n <= self.acked_n:
            return False
        self.acked_n = min(durable_n, self.last_n)
        while self._events and self._events[0].n <= self.acked_n:
            self._bytes -= len(bytes(self._events.popleft().data))
        return True

    def send_again(self, after_n: int | None = None) -> None:
        """From `after_n` on, or from the oldest that is not acknowledged: the connection or the answer was lost."""
        self.in_flight = False
        self.sent_n = self.acked_n if after_n is None else max(self.acked_n, after_n)

    def close(self, *, fenced: bool = False) -> None:
        """Nothing more is sent. `fenced`: because another owner has the call, or it has ended."""
        self.closed, self.fenced = True, fenced
        self.in_flight = False
        self._events.clear()
        self._bytes = 0

    def open_for_last_word(self) -> bool:
        """After `close`: one more event may be added where the log keeps it as late, and for that alone."""
        if self.closed and not self.fenced:
            return False
        if self.closed:
            self.closed, self.sent_n = False, self.last_n
        return True
