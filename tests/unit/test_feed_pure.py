"""Filters, cursors and what is handed out to readers, without a database."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest, Gone
from app.log.cloudevents import cloudevent
from app.log.fan import QUEUED_EVENTS_MAX, Batch, Entry, Seat
from app.log.filters import DURABLE, EVERYTHING, VOLATILE, filter_of
from app.log.positions import BEGINNING, LAST, SEQ_MAX, Position, before, check_kept, check_reached, scope_of
from app.log.rendering import BLOCK_CHARS_MAX, pieces
from regions.wire.events import PublicEvent

PROJECT, OTHER, CALL = uuid4(), uuid4(), uuid4()
positions = st.builds(Position, st.integers(0, 2**62 - 1), st.just(CALL), st.integers(0, SEQ_MAX))


def entry(n: int, type_: str = "call.created", size: int = 0) -> Entry:
    event = PublicEvent(
        id="evt_x", type=type_, call_id="call_x", seq=n, epoch=1, region="eu-west", timestamp="t", data={"x": "y" * size}
    )  # fmt: skip
    return Entry(Position(n, CALL, n), event)


def batch(*entries: Entry, metadata: dict[str, str] | None = None) -> Batch:
    found = list(entries)
    known = {CALL: metadata} if metadata is not None else None
    return Batch(found, found[-1].at, sum(len(e.json) for e in found), known)


@given(positions)
def test_a_cursor_serves_its_project_and_its_filter_alone(at: Position) -> None:
    scope = scope_of(PROJECT, filter_of(["call.*"]))
    cursor = scope.cursor(at)
    assert scope.position(cursor) == at
    for other in (scope_of(OTHER, filter_of(["call.*"])), scope_of(PROJECT, EVERYTHING)):
        with pytest.raises(BadRequest) as refused:
            other.position(cursor)
        assert refused.value.stable_code == "cursor_mismatch"


def test_a_filter_is_the_same_however_it_is_written_and_whatever_a_release_adds() -> None:
    written = filter_of(["turn.ended", "call.*", "call.*"])
    assert written.digest == filter_of(["call.*", "turn.ended"]).digest
    assert written.types == {t for t in DURABLE if t.startswith("call.")} | {"turn.ended"}
    # as asked for, not as expanded: a new type below `call.` leaves cursors alone
    assert (
        filter_of(sorted(t for t in DURABLE if t.startswith("call."))).digest != filter_of(["call.*"]).digest
    )
    assert filter_of(["call.ended"], CALL).digest != filter_of(["call.ended"], uuid4()).digest
    assert filter_of(metadata={"a": "b"}).digest != filter_of(metadata={"a": "c"}).digest


def test_volatile_events_come_by_name_or_when_asked_for() -> None:
    assert EVERYTHING.live == frozenset()
    assert filter_of(["transcript.*"]).live == frozenset()
    assert filter_of(["transcript.*"], volatile=True).live == {"transcript.partial"}
    assert filter_of(volatile=True).live == VOLATILE
    named = filter_of(["transcript.partial"])
    assert (named.live, named.types) == ({"transcript.partial"}, frozenset())
    assert filter_of(["call.*", "playback.tick"]).digest == filter_of(["call.*"]).digest


@pytest.mark.parametrize(
    ("types", "metadata", "code"),
    [
        (["call.vanished"], {}, "unknown_type"), (["nothing.*"], {}, "unknown_type"), (["call*"], {}, "unknown_type"),
        (["call.created"] + [f"x{i}" for i in range(64)], {}, "bad_filter"), ([], {str(i): "v" for i in range(9)}, "bad_filter"),
        ([], {"k": "v" * 600}, "bad_filter"), (["é.*"], {}, "unknown_type"),
    ],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_refused(
    types: list[str], metadata: dict[str, str], code: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        filter_of(types, None, metadata)
    assert refused.value.stable_code == code


def test_a_place_behind_which_something_is_missing_is_gone_and_the_beginning_never() -> None:
    for at in (Position(1), Position(50, CALL, 3), Position(50, LAST, SEQ_MAX - 1)):
        with pytest.raises(Gone) as gone:
            check_kept(at, 50, "oldest")
        assert gone.value.extra == {"oldest_cursor": "oldest"}
    for at in (BEGINNING, before(51), Position(51)):
        check_kept(at, 50, "oldest")


def test_a_place_ahead_of_the_log_is_refused() -> None:
    check_reached(999, 1_000)
    for ahead in (1_000, 1_001, 1 << 40):
        with pytest.raises(BadRequest):
            check_reached(ahead, 1_000)


def test_a_reader_takes_what_lies_behind_it_and_is_wanted() -> None:
    seat = Seat(filter_of(["call.ended"]), BEGINNING)
    seat.hand(batch(entry(1), entry(2, "call.ended"), entry(3, "call.ended")))
    found, reached = seat.take(Position(2, CALL, 2))
    assert ([e.event.seq for e in found], reached) == ([3], Position(3, CALL, 3))
    assert not seat.waiting


def test_a_reader_that_lets_it_lie_goes_back_to_the_log_and_holds_nothing() -> None:
    seat = Seat(EVERYTHING, BEGINNING)
    for n in range(1, QUEUED_EVENTS_MAX + 1):
        seat.hand(batch(entry(n)))
    assert (seat.waiting, seat.complete_from) == (True, BEGINNING)
    seat.hand(batch(entry(QUEUED_EVENTS_MAX + 1)))
    assert (seat.waiting, seat.complete_from.feed_xid) == (False, QUEUED_EVENTS_MAX + 1)
    seat.hand(batch(*(entry(QUEUED_EVENTS_MAX + 2 + i, size=32_000) for i in range(40))))
    assert (seat.waiting, seat.complete_from.feed_xid) == (False, QUEUED_EVENTS_MAX + 41)


def test_a_filter_by_metadata_never_guesses() -> None:
    seat = Seat(filter_of(metadata={"team": "a"}), BEGINNING)
    seat.hand(batch(entry(1)))
    assert (seat.waiting, seat.complete_from) == (False, Position(1, CALL, 1)), "it reads that in the log"
    seat.hand(batch(entry(2), metadata={"team": "b"}))
    seat.hand(batch(entry(3), metadata={"team": "a", "more": "x"}))
    assert [len(seat.take(BEGINNING)[0]) for _ in range(2)] == [0, 1]


@given(st.lists(st.text(min_size=1, max_size=2_000), max_size=80))
def test_what_is_written_at_once_is_bounded(blocks: list[str]) -> None:
    cut = pieces(blocks)
    assert "".join(cut) == "".join(blocks)
    assert all(len(piece) <= BLOCK_CHARS_MAX for piece in cut)


def test_a_cloudevent_says_the_same() -> None:
    said = msgspec.to_builtins(cloudevent(entry(7, "call.ended").event, project="prj_1"))
    assert said == {
        "specversion": "1.0", "id": "evt_x", "source": "urn:voxplane:prj_1", "type": "dev.voxplane.call.ended",
        "subject": "call_x", "time": "t", "datacontenttype": "application/json", "voxseq": 7, "voxepoch": 1,
        "voxregion": "eu-west", "data": {"x": ""},
    }  # fmt: skip
    nowhere = msgspec.structs.replace(entry(1).event, region=None)
    assert "voxregion" not in msgspec.to_builtins(cloudevent(nowhere, project="prj_1"))
