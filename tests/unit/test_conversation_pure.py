"""Windows of a conversation, the entries of a project, and what an edge answers of it: the pure decisions."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calls.conversation_shapes import WriteEntry
from app.calls.entries import entry_of
from app.errors import VoxplaneError
from regions.agents import text
from regions.edge.conversation import ANSWER_BYTES_MAX, ASKED_EVERY_MS, Conversation
from regions.edge.journal import Journal
from regions.edge.takeover import plan_takeover
from regions.wire.conversation import fold, good_key, tokens_of, tool_of, window, with_project_writes
from regions.wire.snapshot import CallSnapshot, Tail, Turn

quick = settings(max_examples=150, deadline=None)
TURNS = st.lists(
    st.builds(Turn, role=st.sampled_from(("caller", "agent")), text=st.text(max_size=60), seq=st.integers(1, 9))
    | st.builds(
        Turn, role=st.just("tool"), name=st.text(max_size=8), id=st.just("t"), seq=st.integers(1, 9),
        arguments=st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
        result=st.none() | st.text(max_size=60),
    ),
    max_size=20,
)  # fmt: skip


def said(role: str, words: str) -> bytes:
    return msgspec.json.encode({"role": role, "text": words})


# -------------------------------------------------------------------------------------------------------- windows


@quick
@given(TURNS, st.integers(1, 12), st.none() | st.integers(1, 60), st.integers(64, 2_000))
def test_a_window_is_the_newest_that_fits_and_says_what_it_left_out(
    turns: list[Turn], turns_max: int, tokens_max: int | None, bytes_max: int
) -> None:
    found = window(turns, turns_max=turns_max, tokens_max=tokens_max, bytes_max=bytes_max)
    assert len(found.turns) <= turns_max
    if tokens_max is not None:
        assert found.tokens <= tokens_max
    if turns:
        assert found.turns
    whole = turns[len(turns) - len(found.turns) :]
    if not found.turns or found.turns[0].truncated:
        assert found.cut == bool(turns)
        return
    assert found.turns == whole
    assert found.cut == (len(whole) < len(turns))
    assert found.tokens == sum(map(tokens_of, whole))
    if found.cut and len(whole) < turns_max:
        older = turns[len(turns) - len(whole) - 1]
        fits = tokens_max is None or found.tokens + tokens_of(older) <= tokens_max
        size = sum(len(msgspec.json.encode(t)) for t in [older, *whole])
        assert not fits or size > bytes_max


def test_a_token_is_a_quarter_of_what_would_be_read() -> None:
    assert tokens_of(Turn(role="caller", text="")) == 1
    assert tokens_of(Turn(role="caller", text="12345678")) == 2
    assert tokens_of(Turn(role="caller", text="123456789")) == 3
    assert tokens_of(Turn(role="caller", text="日本語")) == 3
    assert tokens_of(Turn(role="tool", name="look", arguments={"a": 1}, result="ok")) == 4


def test_the_newest_turn_is_cut_where_it_alone_is_too_much() -> None:
    long = Turn(role="agent", text="the beginning " + "x" * 400 + " the end")
    found = window([Turn(role="caller", text="a"), long], turns_max=9, tokens_max=4, bytes_max=9_000)
    assert [(t.text, t.truncated) for t in found.turns] == [("xxxxxxxx the end", True)]
    assert (found.tokens, found.cut) == (4, True)


# ------------------------------------------------------------------------------------------------------ the tools


def test_the_result_of_a_tool_is_found_by_its_key_long_after_its_window() -> None:
    journal = Journal("call_x", 1, lambda: os.urandom(4).hex(), lambda: None)
    journal.tool("tool.called", "a", b'{"id":"a","key":"pay","name":"pay"}')
    journal.tool("tool.result", "a", b'{"id":"a","result":{"paid":true}}')
    for i in range(300):
        journal.record("turn.ended", {"role": "caller", "text": f"{i} " + "x" * 500})
    found = tool_of(journal.turns, "pay")
    assert found is not None and found.past and found.result == {"paid": True}
    assert found in journal.snapshot().turns


def test_a_result_comes_to_the_newest_call_of_its_key_else_of_its_id() -> None:
    turns: list[Turn] = []
    fold(turns, "tool.called", b'{"id":"1","key":"k"}', 0)
    fold(turns, "tool.called", b'{"id":"1"}', 0)
    fold(turns, "tool.result", b'{"id":"1","result":5}', 0)
    fold(turns, "tool.result", b'{"id":"1","result":6}', 0)
    assert [(t.done, t.result) for t in turns] == [(False, None), (True, 5)]
    fold(turns, "tool.result", b'{"id":"9","key":"k","result":7}', 0)
    assert [(t.done, t.result) for t in turns] == [(True, 7), (True, 5)]


def test_what_a_project_wrote_survives_a_takeover_by_a_newer_snapshot() -> None:
    ours = [Turn(role="caller", text="one", at_ms=10), Turn(role="agent", text="two", at_ms=30)]
    theirs = [
        Turn(role="caller", text="one", seq=2, at_ms=10),
        Turn(role="agent", text="from a person", by="project", seq=3, at_ms=20),
    ]
    snapshot = CallSnapshot(call="c", epoch=1, acked_n=2, last_n=3, turns=ours, unacked=[])
    tail = Tail(call="c", seq=3, epoch=1, n=2, turns=theirs)
    plan = plan_takeover(None, snapshot, tail)
    assert plan.source == "snapshot"
    assert [t.text for t in plan.turns] == ["one", "from a person", "two"]
    assert with_project_writes(plan.turns, theirs) == plan.turns


# ---------------------------------------------------------------------------------------------------- on the edge


class Edge:
    """A journal, a log that acknowledges it, and the conversation on top."""

    def __init__(self, epoch: int = 1) -> None:
        self.journal = Journal("call_x", epoch, lambda: os.urandom(4).hex(), lambda: None)
        self.asks = Conversation(self.journal, "call_x")
        self.seq = 1

    def log(self, *, others: int = 0) -> None:
        """Everything is stored; `others` write `others` events before."""
        stored = len(self.journal.outbox.unacked)
        self.seq += others + stored
        self.journal.acknowledged(self.journal.outbox.last_n, self.seq, stored)

    def get(self, **asked: Any) -> tuple[str, dict[str, Any]]:
        return self.asks.get(text.asked(msgspec.json.encode(asked)))


def test_a_turn_has_its_place_once_it_is_acknowledged() -> None:
    edge = Edge()
    edge.journal.record("call.answered", {})
    edge.journal.record("turn.ended", {"role": "caller", "text": "hello"})
    kind, before = edge.get()
    edge.log()
    kind, after = edge.get(id="q", turns=5, min_seq=3)
    assert before["turns"] == [{"role": "caller", "text": "hello"}] and before["seq"] == 1
    assert kind == "conversation"
    assert after == {
        "id": "q", "seq": 3, "tokens": 2, "truncated": False,
        "turns": [{"role": "caller", "text": "hello", "seq": 3}],
    }  # fmt: skip


def test_what_others_wrote_makes_an_edge_refuse_until_it_has_read_the_tail() -> None:
    edge = Edge()
    edge.journal.record("turn.ended", {"role": "caller", "text": "hello"})
    edge.log(others=1)
    edge.journal.record("turn.ended", {"role": "caller", "text": "not acknowledged"})
    kind, refused = edge.get(min_seq=3, id="q")
    assert (kind, refused["code"], refused["seq"], refused["id"]) == ("refused", "not_yet", 1, "q")
    assert edge.journal.behind
    theirs = Turn(role="agent", text="a person", by="project", seq=2)
    mine = Turn(role="caller", text="hello", seq=3)
    stale = Tail(call="call_x", seq=2, epoch=1, n=0, turns=[theirs])
    assert not edge.journal.refresh(stale)
    assert edge.journal.refresh(Tail(call="call_x", seq=3, epoch=1, n=1, turns=[theirs, mine]))
    kind, found = edge.get(min_seq=3)
    assert kind == "conversation"
    assert [t["text"] for t in found["turns"]] == ["a person", "hello", "not acknowledged"]
    edge.log()
    assert edge.get(min_seq=4)[1]["turns"][-1]["seq"] == 4
    assert not edge.journal.behind


def test_a_new_owner_answers_what_it_has_and_vouches_for_nothing_before_it_has_read_the_tail() -> None:
    edge = Edge(epoch=2)
    edge.journal.start_from([Turn(role="caller", text="before", seq=-4)])
    kind, found = edge.get()
    assert (kind, found["turns"], "seq" in found) == (
        "conversation",
        [{"role": "caller", "text": "before"}],
        False,
    )
    assert edge.get(min_seq=1)[0] == "refused"


def test_a_window_is_asked_for_often_enough_and_no_more_and_stays_bounded() -> None:
    edge = Edge()
    for i in range(60):
        edge.journal.record("turn.ended", {"role": "caller", "text": f"{i} " + "x" * 700})
    asked = text.asked(b"{}")
    assert edge.asks.too_often(asked, 0) is None
    refused = edge.asks.too_often(asked, ASKED_EVERY_MS - 1)
    assert refused is not None and refused[1]["code"] == "too_often"
    assert edge.asks.too_often(asked, ASKED_EVERY_MS) is None
    found = edge.get()[1]
    assert len(msgspec.json.encode(found)) <= ANSWER_BYTES_MAX
    assert edge.get(tokens=200)[1]["tokens"] <= 200
    assert len(edge.get(turns=3)[1]["turns"]) == 3


def test_a_tool_that_has_its_result_is_not_called_again() -> None:
    edge = Edge()

    def call(tool_id: str, key: str | None) -> Any:
        return edge.asks.tool(text.ToolAsked(tool_id, key))

    assert call("a", "pay") is None
    edge.journal.tool("tool.called", "a", b'{"id":"a","key":"pay","name":"pay"}')
    assert edge.asks.ack("a", 2) == {"type": "tool.called", "id": "a", "seq": 2}
    assert call("b", "pay") is None, "it may or may not have run"
    assert edge.asks.ack("b", 3) == {"type": "tool.called", "id": "b", "seq": 3, "again": True}
    edge.journal.tool("tool.result", "a", b'{"id":"a","result":null}')
    edge.log()
    assert call("c", "pay") == ("tool.cached", {"id": "c", "key": "pay", "result": None, "seq": 2})
    assert call("d", None) is None
    assert call("e", "other") is None
    assert call("f", "no spaces")[1]["code"] == "bad_key"


@pytest.mark.parametrize("data", [b"[]", b'{"turns":"many"}', b'{"min_seq":1.5}', b"\xff", b"{" * 3_000])
def test_nonsense_is_not_answered(data: bytes) -> None:
    with pytest.raises(text.Unreadable):
        text.asked(data)


# -------------------------------------------------------------------------------------------------------- entries


def test_an_entry_becomes_one_event_with_a_key_of_its_type() -> None:
    turn = entry_of(WriteEntry(type="turn", role="agent", text="hi", key="k"), None)
    assert (turn.event_type, turn.source_key, turn.data) == (
        "turn.ended",
        "project:turn:k",
        {"role": "agent", "text": "hi"},
    )
    called = entry_of(WriteEntry(type="tool.called", name="pay"), "k")
    assert called.data == {"id": "k", "key": "k", "name": "pay", "arguments": None}
    assert called.source_key != entry_of(WriteEntry(type="tool.result"), "k").source_key


@pytest.mark.parametrize(
    ("entry", "header", "code", "pointers"),
    [
        (WriteEntry(type="turn", role="agent", text="x"), None, "idempotency_key_required", []),
        (WriteEntry(type="turn", role="agent", text="x"), "two words", "bad_idempotency_key", []),
        (WriteEntry(type="turn", role="agent", text="x", key="a"), "b", "invalid", ["/key"]),
        (WriteEntry(type="turn", key="a", name="n"), None, "invalid", ["/role", "/text", "/name"]),
        (WriteEntry(type="tool.called", key="a", text="x"), None, "invalid", ["/name", "/text"]),
        (WriteEntry(type="tool.result", key="a", result="x" * 40_000), None, "invalid", ["/result"]),
    ],
)
def test_an_entry_that_does_not_fit_says_where(
    entry: WriteEntry, header: str | None, code: str, pointers: list[str]
) -> None:
    with pytest.raises(VoxplaneError) as refused:
        entry_of(entry, header)
    assert refused.value.stable_code == code
    assert [e.pointer for e in refused.value.errors] == pointers


GOOD_KEYS = ["a", "lookup:315", "x" * 128, "A-1_b.c=d,e@f+g"]
BAD_KEYS = ["", "a/b", "é", "x" * 129, "a\n", " a", "-a", "a b"]


@pytest.mark.parametrize(("key", "good"), [(k, True) for k in GOOD_KEYS] + [(k, False) for k in BAD_KEYS])
def test_a_key_can_stand_in_an_address(key: str, good: bool) -> None:
    assert good_key(key) is good
