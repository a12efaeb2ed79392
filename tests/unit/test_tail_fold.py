"""A tail that is folded as writes are acknowledged is the fold of the log, whoever wrote in between and in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.log.tail_fold import SaidEvent, Step, Write, empty_tail, extended, fold_write, next_step
from regions.wire.snapshot import Tail, bounded

CALL = UUID(int=1)


def event(kind: int, number: int) -> SaidEvent:
    data: dict[str, object]
    match kind:
        case 0:
            type_, data = "speech.started", {}
        case 1:
            type_, data = "turn.ended", {"role": "caller", "text": f"{number} " + "x" * 1_500}
        case 2:
            type_, data = "tool.called", {"id": f"t{number % 3}", "key": f"k{number % 5}", "name": "look"}
        case 3:
            type_, data = "tool.result", {"id": f"t{number % 3}", "key": f"k{number % 5}", "result": number}
        case _:
            type_, data = "tool.result", {"id": f"t{number % 3}", "result": "y" * 1_200}
    return SaidEvent(type_, msgspec.json.encode(data), 1_000 + number)


@dataclass
class Log:
    """The call's events in their order. A resend is stored once."""

    stored: list[SaidEvent] = field(default_factory=lambda: [event(0, 0)])

    def append(self, events: list[SaidEvent], *, by: str = "") -> Write:
        new = [e for e in events if e not in self.stored]
        self.stored += new
        return Write(
            call=CALL, seq=len(self.stored), events=tuple(events), stored=len(new), epoch=1, n=0, by=by
        )

    def fold(self, seq: int, before: Tail | None = None) -> Tail:
        tail = before or empty_tail("call")
        numbered = [(i, e, "") for i, e in enumerate(self.stored, start=1) if tail.seq < i <= seq]
        return extended(tail, numbered, seq=seq, epoch=1, n=0, at_ms=0)


STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 4), min_size=1, max_size=4),
        st.sampled_from(("here", "elsewhere", "resent", "resent with more", "forgotten")),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_every_order_of_acknowledgements_folds_to_the_log(
    steps: list[tuple[list[int], str, int]],
) -> None:
    log, tail, number = Log(), empty_tail("call"), 0
    waiting: list[Write] = []
    last: list[SaidEvent] = []
    for kinds, where, delay in steps:
        fresh = []
        for kind in kinds:
            number += 1
            fresh.append(event(kind, number))
        events = {"resent": last or fresh, "resent with more": last + fresh}.get(where, fresh)
        write = log.append(events)
        last = events
        if where == "forgotten":
            tail = empty_tail("call")
        if where != "elsewhere":
            waiting.insert(max(0, len(waiting) - delay), write)
        if delay == 0:
            while waiting:
                tail = taken(tail, waiting.pop(0), log)
    for write in waiting:
        tail = taken(tail, write, log)
        assert bounded(tail.turns) == log.fold(tail.seq).turns
    assert bounded(tail.turns) == log.fold(tail.seq).turns


def taken(tail: Tail, write: Write, log: Log) -> Tail:
    match next_step(tail, write):
        case Step.KNOWN:
            return tail
        case Step.FOLD:
            folded = fold_write(tail, write)
            assert bounded(folded.turns) == log.fold(write.seq).turns
            assert folded.said_seq == log.fold(write.seq).said_seq
            return folded
        case Step.READ:
            return log.fold(write.seq, tail if tail.seq > 1 else None)


def test_the_ordinary_call_is_never_read_from_the_log() -> None:
    log, tail = Log(), empty_tail("call")
    for number in range(1, 200, 3):
        write = log.append([event(1, number), event(0, number + 1), event(2, number + 2)])
        assert next_step(tail, write) is Step.FOLD
        tail = fold_write(tail, write)
    assert bounded(tail.turns) == log.fold(tail.seq).turns


def test_what_others_wrote_and_what_was_stored_before_is_read() -> None:
    tail = Tail(call="c", seq=10, epoch=2, n=7, turns=[])
    two = (event(1, 1), event(1, 2))
    ours = Write(call=CALL, seq=12, events=two, stored=2, epoch=2, n=9)
    assert next_step(tail, ours) is Step.FOLD
    assert next_step(tail, replace(ours, seq=13)) is Step.READ
    assert next_step(tail, replace(ours, seq=11, stored=1)) is Step.READ
    assert next_step(tail, replace(ours, stored=1)) is Step.READ
    assert next_step(tail, replace(ours, seq=10, stored=0)) is Step.KNOWN
    assert (fold_write(tail, ours).epoch, fold_write(tail, ours).n) == (2, 9)


def test_a_write_without_numbers_leaves_the_owners_place() -> None:
    tail = Tail(call="c", seq=10, epoch=2, n=7, turns=[])
    write = Write(call=CALL, seq=11, events=(event(1, 1),), stored=1, by="project")
    folded = fold_write(tail, write)
    assert (folded.epoch, folded.n, folded.turns[0].by, folded.turns[0].seq) == (2, 7, "project", 11)
