"""Whether an acknowledged write can be folded into a tail in memory, or the log has to be read again. Pure.

A tail knows its place: the call's newest event in it (`seq`), and the owner's newest (`epoch`, `n`). A write of k events is
acknowledged with the call's newest `seq`. The cases, in order:

1. the tail stands at that `seq` already                                             → known: nothing to do
2. an event was adopted (its place in the log is the one it had before), or an event
   carries no number of this owner's                                                 → read
3. the write begins where the owner's numbers in the tail end (or at 1 under a higher
   epoch), and k events further the call stands at its `seq`                         → fold
4. else: another instance wrote in between, or some of the events were stored before → read

Case 3 is exact: the k events are stored, all of them after the tail's place, and there are no more than k places. So
they stand there in their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.events import FINAL_TYPE
from regions.wire.snapshot import Tail, bounded


@dataclass(frozen=True, slots=True)
class SaidEvent:
    """One event of a write, as the fold sees it."""

    type: str
    data: bytes
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Events of one call, acknowledged together; the last stands at `seq` or, where some were stored before, below it.

    An owner's have numbers (`first_n` … `last_n` under `epoch`); those of the control plane and the project have none
    (`first_n` 0). `adopted`: some of them are an earlier owner's.
    """

    call: UUID
    seq: int
    events: tuple[SaidEvent, ...]
    epoch: int = 0
    first_n: int = 0
    last_n: int = 0
    adopted: bool = False
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
    if write.adopted or tail.seq + len(write.events) != write.seq:
        return Step.READ
    if write.first_n == 0:
        return Step.FOLD
    owner_goes_on = write.epoch == tail.epoch and write.first_n == tail.n + 1
    owner_begins = write.epoch > tail.epoch and write.first_n == 1
    return Step.FOLD if owner_goes_on or owner_begins else Step.READ


def fold_write(tail: Tail, write: Write) -> Tail:
    """The tail after a write that `next_step` says can be folded."""
    first = write.seq - len(write.events) + 1
    numbered = [(first + i, event, write.by) for i, event in enumerate(write.events)]
    epoch, n = (write.epoch, write.last_n) if write.first_n else (tail.epoch, tail.n)
    return extended(tail, numbered, seq=write.seq, epoch=epoch, n=n, at_ms=write.at_ms)


def extended(
    tail: Tail, events: Iterable[tuple[int, SaidEvent, str]], *, seq: int, epoch: int, n: int, at_ms: int
) -> Tail:
    """The tail with all that followed it, up to `seq`. `events`: (seq, event, who wrote it), ascending."""
    turns, said_seq = tail.turns, tail.said_seq
    for place, event, by in events:
        if event.type in FOLDED_TYPES:
            turns = list(turns) if turns is tail.turns else turns
            fold(turns, event.type, event.data, event.at_ms, seq=place, by=by)
            said_seq = place
    if turns is not tail.turns:
        turns = bounded(turns)
    epoch, n = max((epoch, n), (tail.epoch, tail.n))
    return Tail(call=tail.call, seq=seq, epoch=epoch, n=n, turns=turns, said_seq=said_seq, at_ms=at_ms)
