"""What an instance has made durable, itself or as another tells it: a reader on it need not wait for the durable horizon to say so.

A write whose commit was acknowledged is on a quorum of servers, and so is all that its call held before it, for a call's writers
follow each other under its lock. So an event is durable where the server that is asked shows, at the place where this instance's
write ended, that very write: the same number of the feed and the same event. A server that lost it, or has another in its place,
shows something else, and the horizon decides. That a commit was acknowledged is true wherever it is said, so instances tell each
other with the wake-up that they send anyhow (`app.hints`). Pure.

What is forgotten for room is a matter of time alone: the horizon covers it.
"""

from __future__ import annotations

import binascii
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

NOTED_MAX = 20_000
_END = struct.Struct(">16sIQ16s")


class End(NamedTuple):
    """Where an acknowledged write to a call ended: the event that stands there, and its number in the feed."""

    call_id: UUID
    seq: int
    feed_xid: int
    event_id: UUID


def written(ends: Iterable[End]) -> str:
    """As they are told to another instance: 44 bytes each, in base64."""
    return b64encode(
        b"".join(_END.pack(e.call_id.bytes, e.seq, e.feed_xid, e.event_id.bytes) for e in ends)
    ).decode()


def read(text: str) -> list[End]:
    """Raises `ValueError` for what `written` has not written."""
    try:
        raw = b64decode(text, validate=True)
        return [End(UUID(bytes=c), seq, xid, UUID(bytes=e)) for c, seq, xid, e in _END.iter_unpack(raw)]
    except (binascii.Error, struct.error) as error:
        raise ValueError("no ends of writes") from error


class Acked:
    """`noted`: how many writes were noted so far."""

    def __init__(self, most: int = NOTED_MAX) -> None:
        self._most = most
        self._ends: dict[tuple[UUID, int], tuple[int, UUID]] = {}
        self.noted = 0

    def note(self, ends: Iterable[End]) -> bool:
        """Writes ended so, and their commits were acknowledged. Whether one of them was not known."""
        before = self.noted
        for call_id, seq, feed_xid, event_id in ends:
            place, end = (call_id, seq), (feed_xid, event_id)
            if self._ends.get(place) == end:
                continue
            if len(self._ends) >= self._most:
                del self._ends[next(iter(self._ends))]
            self._ends[place] = end
            self.noted += 1
        return self.noted != before

    def hear(self, text: str) -> bool:
        """What another instance has `written`, or this one. Whether it is news: what cannot be read is, for there was a write."""
        try:
            return self.note(read(text))
        except ValueError:
            return True

    def sure(self, rows: Sequence[Any], below: int) -> int:
        """How many of the feed's rows, from the first on, are durable: by what was noted, or as the horizon stands at `below`."""
        covered: set[UUID] = set()
        unsure = len(rows)
        for i in range(len(rows) - 1, -1, -1):
            row = rows[i]
            call_id = row["call_id"]
            if self._ends.get((call_id, row["seq"])) == (row["feed_xid"], row["id"]):
                covered.add(call_id)
            elif call_id not in covered and row["feed_xid"] >= below:
                unsure = i
        return unsure
