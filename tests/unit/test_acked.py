"""A row is sure only where the server shows the very write that was acknowledged, at the end of which its call stood."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from app.log.acked import Acked, End, written

A, B = UUID(int=1), UUID(int=2)


def row(call: UUID, seq: int, feed_xid: int, event: UUID | None = None) -> dict[str, Any]:
    return {"call_id": call, "seq": seq, "feed_xid": feed_xid, "id": event or uuid4()}


def test_what_a_write_ends_with_covers_what_its_call_has_before_it_and_nothing_behind() -> None:
    acked, end = Acked(), uuid4()
    acked.note([End(A, 3, 70, end)])
    rows = [row(A, 2, 60), row(A, 3, 70, end), row(A, 4, 80)]
    assert acked.sure(rows, 0) == 2
    assert acked.sure(rows[:1], 0) == 0  # the write itself is not shown: nothing is known of this server


def test_the_first_row_that_nobody_vouches_for_ends_it() -> None:
    acked, end = Acked(), uuid4()
    acked.note([End(A, 2, 70, end)])
    rows = [row(B, 1, 40), row(B, 2, 65), row(A, 2, 70, end)]
    assert acked.sure(rows, 50) == 1
    assert acked.sure(rows, 66) == 3


def test_another_write_at_the_same_place_vouches_for_nothing() -> None:
    """As a server shows that was replaced, and has kept what was lost."""
    acked, end = Acked(), uuid4()
    acked.note([End(A, 2, 70, end)])
    for shown in (row(A, 2, 71, end), row(A, 2, 70), row(A, 3, 70, end), row(B, 2, 70, end)):
        assert acked.sure([row(A, 1, 60), shown], 0) == 0


def test_the_oldest_is_forgotten_for_room() -> None:
    acked, ends = Acked(most=2), [uuid4() for _ in range(3)]
    for i, end in enumerate(ends):
        acked.note([End(A, i, i, end)])
    assert [acked.sure([row(A, i, i, end)], 0) for i, end in enumerate(ends)] == [0, 1, 1]
    assert acked.noted == 3


def test_what_one_instance_tells_covers_the_same_at_another_and_is_news_once() -> None:
    here, there, end = Acked(), Acked(), uuid4()
    ends = [End(A, 3, 1 << 40, end), End(B, 1, 71, uuid4())]
    assert here.note(ends)
    assert there.hear(written(ends))
    rows = [row(A, 2, 60), row(A, 3, 1 << 40, end)]
    assert there.sure(rows, 0) == here.sure(rows, 0) == 2
    assert not there.hear(written(ends))
    assert not here.hear(written(ends)), "its own words come back to it"
    assert there.hear(written([*ends, End(A, 4, 1 << 41, uuid4())]))


@pytest.mark.parametrize("text", ["", "?", "AAAA", "é"])
def test_a_note_that_cannot_be_read_vouches_for_nothing_and_wakes(text: str) -> None:
    acked = Acked()
    assert acked.hear(text) is (text != "")
    assert acked.noted == 0
