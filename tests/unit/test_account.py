"""The checker of the quorum's proof is itself checked: each kind of fault is found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.account import Stored, check_acknowledged, check_created, check_delivered, check_log

ROWS = [
    Stored("a", 1, "e1", None),
    Stored("a", 2, "e2", 1),
    Stored("a", 3, "e3", 2),
    Stored("b", 1, "f1", None),
]
SENT = {"a": [{"n": 1, "id": "e2"}, {"n": 2, "id": "e3"}, {"n": 3, "id": "e4"}]}
DELIVERED = [{"id": r.id, "call_id": r.call, "seq": r.seq} for r in ROWS]


def test_a_log_that_holds_everything_once_has_no_fault() -> None:
    assert check_log(ROWS) == []
    assert check_acknowledged(ROWS, SENT, {"a": 2}) == []
    assert check_created(ROWS, {"a", "b"}, {"k": "a", "l": "b"}) == []
    assert check_delivered(ROWS, DELIVERED, "stream", once=True) == []
    assert check_delivered(ROWS, [*DELIVERED, DELIVERED[0]], "webhooks", once=False) == []


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([ROWS[0], ROWS[2], ROWS[3]], "not 1, 2, 3"),
        ([*ROWS, Stored("a", 4, "e2", 3)], "ids stand in the log twice"),
        ([*ROWS, Stored("a", 4, "e9", 2)], "numbers of an owner"),
    ],
)
def test_holes_and_doubles_in_the_log_are_found(rows: list[Stored], named: str) -> None:
    assert any(named in fault for fault in check_log(rows))


def test_what_was_acknowledged_and_is_lost_or_replaced_is_found() -> None:
    assert check_acknowledged(ROWS, SENT, {"a": 3})
    other = [Stored("a", 3, "x", 2) if r.id == "e3" else r for r in ROWS]
    assert check_acknowledged(other, SENT, {"a": 2})


@pytest.mark.parametrize(
    ("calls", "made"),
    [
        ({"a", "b"}, {"k": "a", "l": "lost"}),
        ({"a", "b", "c"}, {"k": "a", "l": "b"}),
        ({"a", "b"}, {"k": "a", "l": "a"}),
    ],
)
def test_creates_that_are_lost_or_doubled_are_found(calls: set[str], made: dict[str, str]) -> None:
    assert check_created(ROWS, calls, made)


@pytest.mark.parametrize(
    "delivered",
    [
        [*DELIVERED, {"id": "ghost", "call_id": "a", "seq": 4}],
        DELIVERED[1:],
        [*DELIVERED, DELIVERED[0]],
        [DELIVERED[1], DELIVERED[0], *DELIVERED[2:]],
        [{**DELIVERED[0], "seq": 9}, *DELIVERED[1:]],
    ],
)
def test_deliveries_that_the_log_does_not_bear_out_are_found(delivered: list[dict[str, Any]]) -> None:
    assert check_delivered(ROWS, delivered, "stream", once=True)
