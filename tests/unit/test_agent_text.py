"""What a backend says beside its audio is read, bounded and made fit for the log."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

from app.fleet.frames import check_event
from regions.agents import text
from regions.edge.journal import Journal
from regions.edge.outbox import EVENTS_MAX
from regions.edge.snapshots import open_snapshot, seal_snapshot
from regions.wire import ids
from regions.wire.events import DATA_BYTES_MAX
from regions.wire.media import SNAPSHOT_BYTES_MAX
from regions.wire.snapshot import CallSnapshot, Turn, Word

NONSENSE = [b"", b"[]", b"1", b'"x"', b"{", b"[" * 5_000, b'{"a":' * 5_000, b"\xff\xfe", b'{"text": 5}']


@pytest.mark.parametrize("data", NONSENSE)
def test_nonsense_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(text.Unreadable):
        text.said(data)
    if data != NONSENSE[-1]:
        with pytest.raises(text.Unreadable):
            text.written(data)
        assert not text.fits_volatile(data)


def test_an_object_is_written_again_as_it_is() -> None:
    value = {"id": "1", "name": "look_up", "arguments": {"order": "ü", "n": [1, 2.5, None, True]}}
    assert json.loads(text.written(json.dumps(value, indent=4).encode())) == value


def test_nul_never_reaches_the_log() -> None:
    value = {"a\0": ["x\0y", {"b": "\0"}], "text": "\\u0000"}
    assert "\\u0000" not in text.written(json.dumps(value).encode()).decode()
    assert text.said(json.dumps({"role": "agent", "text": "a\0b"}).encode()).text == "a\ufffdb"


def test_what_is_too_long_is_cut_and_says_so() -> None:
    value = {"id": "t" * 9_000, "name": "n", "result": "x" * DATA_BYTES_MAX, "more": "y" * DATA_BYTES_MAX}
    cut = json.loads(text.written(json.dumps(value).encode()))
    assert cut == {"truncated": True, "id": "t" * text.NAME_CHARS_MAX, "name": "n", "result": None}


LONG, ODD = "\x01" * 5_000, "\x01" * 256


@pytest.mark.parametrize(
    "data",
    [
        {"role": "caller", "text": " ".join([LONG[:4_000]] * 2), "stopped_ms": 7},
        {"reason": "a\0b"},
        {"stages": {"x" * 40_000: 1.0, "y\0": 2.0}},
        {"text": ["\U0001f600"] * 8_000},
        {"numbers": [1_000_000] * 8_000},
    ],
)
def test_whatever_is_written_down_is_taken_by_the_log(data: dict[str, object]) -> None:
    journal = Journal("call_x", 1, lambda: ids.encode(ids.EVENT, ids.uuid7(1, 1)), lambda: None)
    journal.record("turn.ended", data)
    check_event(journal.outbox.unacked[0], 1)
    written = json.loads(bytes(journal.outbox.unacked[0].data))
    assert written.get("truncated") or written == {"reason": "a\ufffdb"}
    assert written.get("stopped_ms") == data.get("stopped_ms")


def test_what_is_cut_fits_however_it_is_escaped() -> None:
    value = {"id": ODD, "key": ODD, "name": ODD, "role": ODD, "text": LONG, "result": LONG}
    assert len(text.written(json.dumps(value).encode())) <= DATA_BYTES_MAX


def nested(levels: int) -> bytes:
    return b'{"id":"t","name":"n","arguments":' + b"[" * levels + b"]" * levels + b"}"


def test_what_is_too_deep_is_cut_and_says_so() -> None:
    """Others read it on stacks of their own: what can just be read here cannot be read there."""
    fits, too_deep = nested(text.DEPTH_MAX - 1), nested(text.DEPTH_MAX)
    assert text.written(fits) == fits
    assert text.fits_volatile(fits)
    for data in (too_deep, nested(900)):
        cut = json.loads(text.written(data))
        assert cut == {"truncated": True, "id": "t", "name": "n", "arguments": None}
        assert not text.fits_volatile(data)


@pytest.mark.parametrize(("offset", "read"), [("1e308", text.OFFSET_MS_MAX), ("-5", 0), ("9" * 300, text.OFFSET_MS_MAX)])  # fmt: skip
def test_a_word_stands_within_a_day(offset: str, read: int) -> None:
    data = f'{{"role":"agent","text":"x","words":[{{"word":"x","offset_ms":{offset}}}]}}'
    assert text.said(data.encode()).words == [Word("x", read)]


def test_words_may_stand_at_fractions_of_a_millisecond() -> None:
    data = {"role": "agent", "text": "one two", "words": [{"word": "two", "offset_ms": 120.6}]}
    assert text.said(json.dumps(data).encode()).words == [Word("two", 121)]


def test_a_snapshot_of_a_call_that_could_not_write_for_long_still_fits() -> None:
    journal = Journal("call_x", 2, lambda: os.urandom(4).hex(), lambda: None)
    for i in range(300):
        journal.tool("tool.called", str(i), msgspec.json.encode({"id": str(i), "arguments": "x" * 1_000}))
    snapshot = journal.snapshot()
    snapshot.playing_text, snapshot.playing_words = "word " * 1_000, [Word("word", i) for i in range(1_000)]
    key = os.urandom(32)

    sealed = seal_snapshot(snapshot, key)
    opened = open_snapshot(sealed, call="call_x", key=key)

    assert len(sealed) <= SNAPSHOT_BYTES_MAX
    assert isinstance(opened, CallSnapshot)
    assert [u.event.n for u in opened.unacked] == list(range(1, len(opened.unacked) + 1))
    assert len(opened.unacked) > 10
    assert opened.turns and opened.turns[-1] == journal.turns[-1]


def test_a_journal_says_once_which_numbers_it_left_out() -> None:
    journal = Journal("call_x", 1, lambda: os.urandom(4).hex(), lambda: None)
    for i in range(EVENTS_MAX + 7):
        journal.record("dtmf.received", {"digit": str(i % 10)})
    journal.acknowledged(EVENTS_MAX - 5)
    journal.record("turn.ended", {"role": "caller", "text": "hello"})

    last = journal.outbox.unacked[-2:]
    assert [(e.type, bytes(e.data)) for e in last] == [
        (
            "events.lost",
            b'{"epoch":1,"from_n":%d,"to_n":%d,"reason":"log_away"}' % (EVENTS_MAX + 1, EVENTS_MAX + 7),
        ),
        ("turn.ended", b'{"role":"caller","text":"hello"}'),
    ]
    kept = [*range(EVENTS_MAX - 4, EVENTS_MAX + 1), EVENTS_MAX + 7, EVENTS_MAX + 8]
    assert [e.n for e in journal.outbox.unacked] == kept
    assert journal.turns == [Turn(role="caller", text="hello", seq=-last[1].n, at_ms=last[1].at_ms)]


def test_an_owner_that_lets_go_says_what_it_left_out_before_its_last_word() -> None:
    """Else its last word would follow a hole, which the log waits at for ever."""
    journal = Journal("call_x", 1, lambda: os.urandom(4).hex(), lambda: None)
    for i in range(EVENTS_MAX + 2):
        journal.record("dtmf.received", {"digit": str(i % 10)})
    journal.acknowledged(EVENTS_MAX)
    journal.last_word({})

    kept = [(e.type, e.n) for e in journal.outbox.unacked]
    assert kept == [("events.lost", EVENTS_MAX + 2), ("call.quality", EVENTS_MAX + 3)]
    journal.outbox.close(fenced=True)
    journal.last_word({})
    assert [e.type for e in journal.outbox.unacked] == ["call.quality"]


def test_a_tool_runs_once_its_call_is_durable() -> None:
    journal = Journal("call_x", 1, lambda: os.urandom(4).hex(), lambda: None)
    journal.record("call.answered", {})
    journal.tool("tool.called", "a", b'{"id":"a"}')
    journal.tool("tool.result", "a", b'{"id":"a","result":1}')
    assert journal.acknowledged(1) == []
    assert journal.acknowledged(3) == ["a"]
    assert journal.acknowledged(3) == []
