"""The spool's decisions: what an edge copies and removes, and how the control plane puts a run together again."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.log.spool import lost_event, pieces, read_run, settled_by
from regions.edge.outbox import Outbox
from regions.edge.spool import AFTER_MS, SpoolBook
from regions.edge.valkey import effective_url
from regions.wire import ids
from regions.wire.events import EdgeEvent, first_n
from regions.wire.spool import read_run_name, run_name
from regions.wire.uplink import AppendStatus

CALL = ids.encode(ids.CALL, ids.uuid7(1, 1))


def event(n: int, type_: str = "speech.started", data: bytes = b"{}", at_ms: int = 1_000) -> EdgeEvent:
    evt = ids.encode(ids.EVENT, ids.uuid7(at_ms, n))
    return EdgeEvent(n=n, id=evt, type=type_, at_ms=at_ms, data=msgspec.Raw(data))


def outbox(count: int, at_ms: int = 1_000) -> Outbox:
    made = Outbox(CALL, 1)
    for n in range(1, count + 1):
        made.add(id=event(n).id, type="speech.started", at_ms=at_ms, data=b"{}")
    return made


def test_what_the_log_answers_in_time_is_never_copied() -> None:
    book, box = SpoolBook(), outbox(3)
    assert book.sweep([box], 1_000 + AFTER_MS - 1).empty
    box.acknowledge(3)
    assert book.sweep([box], 9_000).empty


def test_what_waits_is_copied_once_and_removed_when_it_is_acknowledged() -> None:
    book, box = SpoolBook(), outbox(3)
    first = book.sweep([box], 1_000 + AFTER_MS)
    assert [e.n for _, e in first.put] == [1, 2, 3]
    assert book.sweep([box], 9_000) == first, "not done, so asked for again"
    book.done(first)
    assert book.sweep([box], 9_000).empty
    box.acknowledge(2)
    second = book.sweep([box], 9_000)
    assert (second.put, second.remove) == ([], [((CALL, 1), [1, 2])])
    book.done(second)
    box.acknowledge(3)
    third = book.sweep([box], 9_000)
    assert third.forget == [(CALL, 1)]
    book.done(third)
    assert book.sweep([box], 9_000).empty
    assert not book.keeping


def test_what_waits_is_copied_though_the_clock_was_set_back_meanwhile() -> None:
    book, box = SpoolBook(), outbox(2, at_ms=3_600_000)
    assert [e.n for _, e in book.sweep([box], 1_000).put] == [1, 2]


def test_a_call_that_is_not_held_any_more_is_forgotten_unless_the_log_never_had_it_all() -> None:
    book, box = SpoolBook(), outbox(1)
    book.done(book.sweep([box], 9_000))
    assert book.sweep([], 9_000).forget == [(CALL, 1)]
    book.leave(box)
    assert book.sweep([], 9_000).empty


def test_a_hole_is_left_to_an_owner_that_may_live_and_given_up_after_its_end() -> None:
    run = [event(4), event(5), event(8)]
    assert pieces(run, 1, 3, ended=False) == run[:2]
    assert pieces(run, 1, 2, ended=False) is None
    ended = pieces(run, 1, 1, ended=True)
    assert ended is not None
    assert [(e.type, first_n(e, 1), e.n) for e in ended] == [
        ("events.lost", 2, 3), ("speech.started", 4, 4), ("speech.started", 5, 5),
    ]  # fmt: skip
    assert ended[0] == lost_event(run[0], 1, 2), "the same whoever makes it"
    assert pieces(run, 1, 8, ended=True) is None


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(1, 60), min_size=1), st.integers(0, 60), st.integers(0, 2**32))
def test_a_flushed_run_is_dense_and_brings_everything(kept: set[int], durable_n: int, seed: int) -> None:
    """Against a log that takes what follows its newest number."""
    left = {n: event(n) for n in kept}
    brought: list[int] = []
    shuffled = list(left.values())
    random.Random(seed).shuffle(shuffled)
    newest = durable_n
    while (piece := pieces(shuffled, 1, newest, ended=True)) is not None:
        assert first_n(piece[0], 1) == newest + 1
        for before, after in itertools.pairwise(piece):
            assert first_n(after, 1) == before.n + 1
        brought += [e.n for e in piece if e.type != "events.lost"]
        newest = piece[-1].n
    assert brought == sorted(n for n in kept if n > durable_n)


POISON = [
    b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"n":1}', b"[" * 5_000,
    msgspec.json.encode(event(2)),
    msgspec.json.encode(msgspec.structs.replace(event(1), type="call.created")),
    msgspec.json.encode(msgspec.structs.replace(event(1), type="no.such")),
    msgspec.json.encode(msgspec.structs.replace(event(1), id="evt_x")),
    msgspec.json.encode(msgspec.structs.replace(event(1), data=msgspec.Raw(b"[1]"))),
    msgspec.json.encode(msgspec.structs.replace(event(1), at_ms=-1)),
    msgspec.json.encode(msgspec.structs.replace(event(1), data=msgspec.Raw(b'{"x":1e131072}'))),
    msgspec.json.encode(msgspec.structs.replace(event(1), data=msgspec.Raw(b'{"x":"\xff"}'))),
]  # fmt: skip


@pytest.mark.parametrize("entry", POISON, ids=range(len(POISON)))
def test_what_is_no_event_of_the_run_is_set_aside_alone(entry: bytes) -> None:
    good = event(7)
    run = read_run(run_name(CALL, 1), {b"1": entry, b"7": msgspec.json.encode(good)})
    assert (run.events, run.poison) == ([good], [b"1"])


@pytest.mark.parametrize("name", ["", "x", "call_x/1", f"{CALL}", f"{CALL}/", f"{CALL}/-1", f"{CALL}/x"])
def test_a_name_that_is_no_run_is_said(name: str) -> None:
    with pytest.raises(ValueError):
        read_run(name, {})


def test_a_run_is_named_and_read() -> None:
    assert read_run_name(run_name(CALL, 7)) == (CALL, 7)


@pytest.mark.parametrize(
    ("status", "durable_n", "gone"),
    [
        ("durable", 4, [2, 3, 4]), ("fenced", 0, [3, 4]), ("conflict", 0, [3, 4]), ("refused", 0, [3, 4]), ("busy", 0, None),
        ("gap", 1, None),
    ],
)  # fmt: skip
def test_an_answer_says_what_need_not_be_kept(status: str, durable_n: int, gone: list[int] | None) -> None:
    answer = AppendStatus(call=CALL, epoch=1, status=status, durable_n=durable_n)
    assert settled_by(answer, [3, 4], {2, 3, 4, 9}) == gone


@pytest.mark.parametrize(
    ("own", "given", "used"),
    [
        ("", None, ""),
        ("", "redis://e:p@a:1/0", "redis://e:p@a:1/0"),
        ("redis://:own@b:2/0", "redis://e:p@a:1/0", "redis://:own@b:2/0"),
        ("redis://b:2/0", "redis://e:p@a:1/0", "redis://e:p@b:2/0"),
        ("redis://b:2/0", None, "redis://b:2/0"),
    ],
)
def test_an_edge_uses_its_own_address_and_the_credentials_it_was_given(
    own: str, given: str | None, used: str
) -> None:
    assert effective_url(own, given) == used
