"""Whether an acknowledged write can be folded into a tail in memory, or the log has to be read again. Pure.

A tail knows its place, the call's newest event in it (`seq`). A write is acknowledged with the call's newest `seq` and with
how many of its events were new. The cases, in order:

1. the tail stands at that `seq` already                                              → known: nothing to do
2. some of the events had been stored before (a resend, an adoption): which, is not said → read
3. all were new, and the tail stands just before them                                 → fold
4. else: another instance has written in between                                      → read

Case 3 is exact: new events of one write stand in their order, without a gap, up to `seq`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from uuid import UUID

import msgspec

from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.events import FINAL_TYPE
from regions.wire.snapshot import Tail, bounded


class SaidEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a write, as the fold sees it: `data` may be left out where the fold does not read them."""

    type: str
    data: bytes
    at_ms: int


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one call, acknowledged together. `stored`: how many of them are new; the newest of the call stands at `seq`.

    `epoch` and `n`: the owner's newest number that is durable; 0 for the control plane and the project, which have none.
    """

    call: UUID
    seq: int
    events: tuple[SaidEvent, ...]
    stored: int
    epoch: int = 0
    n: int = 0
    by: str = ""
    at_ms: int = 0
    at_s: float = 0.0

    @property
    def final(self) -> bool:
        return any(e.type == FINAL_TYPE for e in self.events)


class Step(Enum):
    KNOWN = "known"
    FOLD = "fold"
    READ = "read"


def empty_tail(call: str) -> Tail:
    """Of a call that has its first event and nothing else."""
    return Tail(call=call, seq=1, epoch=0, n=0, turns=[])


def next_step(tail: Tail, write: Write) -> Step:
    if write.seq <= tail.seq:
        return Step.KNOWN
    exact = write.stored == len(write.events) and tail.seq + write.stored == write.seq
    return Step.FOLD if exact else Step.READ


def fold_write(tail: Tail, write: Write) -> Tail:
    """The tail after a write that `next_step` says can be folded. Its turns are not cut: that is for whoever keeps it."""
    first = write.seq - len(write.events) + 1
    numbered = [(first + i, event, write.by) for i, event in enumerate(write.events)]
    return extended(tail, numbered, seq=write.seq, epoch=write.epoch, n=write.n, at_ms=write.at_ms, cut=False)


def extended(
    tail: Tail,
    events: Iterable[tuple[int, SaidEvent, str]],
    *,
    seq: int,
    epoch: int,
    n: int,
    at_ms: int,
    cut: bool = True,
) -> Tail:
    """The tail with all that followed it, up to `seq`. `events`: (seq, event, who wrote it), ascending."""
    turns, said_seq = tail.turns, tail.said_seq
    for place, event, by in events:
        if event.type in FOLDED_TYPES:
            turns = list(turns) if turns is tail.turns else turns
            fold(turns, event.type, event.data, event.at_ms, seq=place, by=by)
            said_seq = place
    if cut and turns is not tail.turns:
        turns = bounded(turns)
    epoch, n = max((epoch, n), (tail.epoch, tail.n))
    return Tail(call=tail.call, seq=seq, epoch=epoch, n=n, turns=turns, said_seq=said_seq, at_ms=at_ms)
