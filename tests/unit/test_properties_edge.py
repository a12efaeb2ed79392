"""What must hold of the pure parts of an edge and of the wire, for histories nobody thought of."""

from __future__ import annotations

import base64
import gc
from collections import deque
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from regions.edge.outbox import RUN_MAX, Outbox
from regions.edge.snapshots import open_snapshot, seal_snapshot
from regions.edge.takeover import plan_takeover
from regions.media.playout import Playout
from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.events import EVENT_TYPES, EdgeEvent
from regions.wire.media import SNAPSHOT_BYTES_MAX, Position, Resume
from regions.wire.snapshot import PAST_TOOLS_MAX, CallSnapshot, Tail, Turn, Unacked, Word, bounded
from regions.wire.ticket import (
    TICKET_AUDIENCE,
    TICKET_ISSUER,
    Claims,
    Grant,
    TicketError,
    admit,
    b64,
    read,
    seal,
    sign,
    unb64,
    unseal,
)

quick = settings(max_examples=100, deadline=None)

# ------------------------------------------------------------------------------------------------ the conversation

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SAID = st.fixed_dictionaries(
    {"role": st.sampled_from(("caller", "agent", "tool", "")), "text": st.text(max_size=40)}
)
SHORT = st.fixed_dictionaries({"id": st.just("a"), "result": st.integers(0, 3)})
TOOL = st.fixed_dictionaries(
    {"id": st.sampled_from("abc"), "name": st.text(max_size=4)},
    optional={"result": JSON, "key": st.sampled_from(("k", "l"))},
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("turn.ended", "turn.interrupted")), SAID),
        st.tuples(st.sampled_from(("tool.called", "tool.result")), TOOL),
        st.tuples(st.sampled_from(("tool.called", "tool.result")), SHORT),
        st.tuples(st.sampled_from(sorted(EVENT_TYPES)), JSON),
    ),
    max_size=30,
)


def folded(events: list[tuple[str, Any]], turns: list[Turn] | None = None) -> list[Turn]:
    turns = [] if turns is None else turns
    for at_ms, (type_, data) in enumerate(events):
        fold(turns, type_, msgspec.json.encode(data), at_ms)
    return turns


@quick
@given(EVENTS)
def test_the_conversation_grows_by_at_most_one_turn_per_event_and_never_forgets_one(
    events: list[tuple[str, Any]],
) -> None:
    turns: list[Turn] = []
    for type_, data in events:
        before = list(turns)
        fold(turns, type_, msgspec.json.encode(data), 0)
        assert len(before) <= len(turns) <= len(before) + (type_ in FOLDED_TYPES)
        changed = [i for i, turn in enumerate(before) if turns[i] != turn]
        assert len(changed) <= type_.startswith("tool.")
        for i in changed:
            assert not before[i].done
            now = msgspec.structs.replace(turns[i], result=None, done=False, truncated=False)
            assert now == msgspec.structs.replace(before[i], closed=now.closed)
            assert turns[i].done == (type_ == "tool.result")


@quick
@given(EVENTS)
def test_a_result_that_comes_again_changes_nothing(events: list[tuple[str, Any]]) -> None:
    once = folded(events)
    results = [e for e in events if e[0] == "tool.result" and isinstance(e[1], dict)]
    open_tools = [t for t in once if t.role == "tool" and not t.done]
    still_open = {t.id for t in open_tools} | {t.key for t in open_tools}
    again = [e for e in results if not {e[1].get("id", ""), e[1].get("key")} & still_open]
    assert folded(again, list(once)) == once


@quick
@given(EVENTS, st.integers(1, 8), st.integers(2, 300) | st.integers(300, 3_000))
def test_a_tail_cut_as_it_grows_is_the_tail_of_the_whole(
    events: list[tuple[str, Any]], turns_max: int, bytes_max: int
) -> None:
    kept: list[Turn] = []
    for at_ms, (type_, data) in enumerate(events):
        fold(kept, type_, msgspec.json.encode(data), at_ms)
        kept = bounded(kept, bytes_max, turns_max)
    whole = folded(events)
    assert kept == bounded(whole, bytes_max, turns_max)
    assert len(msgspec.json.encode(kept)) <= bytes_max
    window = [t for t in kept if not t.past]
    assert len(window) <= turns_max
    assert window == whole[len(whole) - len(window) :]
    past = kept[: len(kept) - len(window)]
    assert all(t.past and t.key for t in past)
    assert len(past) <= PAST_TOOLS_MAX


def test_an_id_that_is_used_again_is_folded_alike_however_early_it_is_cut() -> None:
    """The newer call of the id has left the window when its result comes; the older one, kept for its key, does not get it."""
    words = [("turn.ended", {"role": "agent", "text": "x" * 100})] * 4
    events: list[tuple[str, Any]] = [
        ("tool.called", {"id": "a", "key": "k"}),
        ("tool.called", {"id": "a"}),
        *words,
        ("tool.result", {"id": "a", "result": 1}),
    ]
    kept: list[Turn] = []
    for at_ms, (type_, data) in enumerate(events):
        fold(kept, type_, msgspec.json.encode(data), at_ms)
        kept = bounded(kept, 3_000, 2)
    assert kept == bounded(folded(events), 3_000, 2)
    assert [(t.role, t.key, t.done) for t in kept] == [("tool", "k", False)] + [("agent", None, False)] * 2


@quick
@given(st.sampled_from(sorted(EVENT_TYPES)), st.binary(max_size=80))
def test_data_that_cannot_be_read_add_nothing(type_: str, data: bytes) -> None:
    turns = [Turn(role="caller", text="x")]
    fold(turns, type_, data, 0)
    assert turns[0] == Turn(role="caller", text="x")


@pytest.mark.parametrize("type_", sorted(FOLDED_TYPES))
@pytest.mark.parametrize(
    "data",
    [b'{"id":"a","role":"caller","text":"x","result":' + b"[" * 100_000, b'{"text":"\xff","id":"\xff"}'],
)
def test_data_too_deep_or_not_text_add_nothing(type_: str, data: bytes) -> None:
    turns: list[Turn] = []
    gc.disable()  # what another test has left would be finalised at the bottom of the stack
    try:
        fold(turns, type_, data, 0)
    finally:
        gc.enable()
    assert turns == []


# ------------------------------------------------------------------------------------------------------ the playout

PADDING = 0xFF
PLAY = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 700)), st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)), st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("pop"), st.integers(1, 4) | st.just(60)),
    ),
    max_size=40,
)  # fmt: skip


class Listener:
    """Plays what a playout gives, and checks it against what went in."""

    def __init__(self, playout: Playout) -> None:
        self.playout = playout
        self.waiting: deque[int] = deque()
        self.sent = 0
        self.echoed: list[str] = []
        self.place = (0, -1)
        self._next = 0

    def push(self, length: int) -> None:
        data = bytes((self._next + i) % 251 for i in range(length))
        self._next += length
        assert self.playout.push(data)
        self.waiting.extend(data)

    def mark(self) -> None:
        assert self.playout.mark(str(self.sent))
        self.sent += 1

    def clear(self) -> None:
        before = self.playout.position
        cleared = self.playout.clear()
        assert cleared.dropped_ms == len(self.waiting) // 8
        if before.utterance:
            assert (cleared.position, cleared.was_playing) == (before, True)
        assert self.playout.position == Position() and not self.playout.active
        self.echoed += cleared.marks
        self.waiting.clear()

    def pop(self) -> None:
        popped = self.playout.pop()
        if popped is None:
            return
        self.echoed += popped.marks
        if popped.frame is None:
            return
        audio = popped.frame.rstrip(bytes([PADDING]))
        assert len(popped.frame) == 160 and PADDING not in audio
        assert audio == bytes(self.waiting.popleft() for _ in range(len(audio)))
        assert (popped.utterance, popped.offset_ms) > self.place
        assert popped.started == (popped.offset_ms == 0)
        self.place = (popped.utterance, popped.offset_ms)


@quick
@given(PLAY, st.integers(0, 5))
def test_no_sample_is_lost_or_doubled_and_the_position_never_goes_back(
    actions: list[tuple[str, int]], utterance: int
) -> None:
    listener = Listener(Playout(utterance))
    for action, n in actions:
        match action:
            case "push":
                listener.push(n)
            case "mark":
                listener.mark()
            case "end":
                listener.playout.end_utterance()
            case "clear":
                listener.clear()
            case _:
                for _ in range(n):
                    listener.pop()
    for _ in range(40 * 700 // 160 + 200):
        listener.pop()
    assert not listener.waiting
    assert listener.echoed == [str(i) for i in range(listener.sent)]
    assert listener.playout.pop() is None
    assert listener.playout.queued_ms == 0
    assert listener.place == (0, -1) or listener.place[0] > utterance


# ------------------------------------------------------------------------------------------------------- the outbox

SENDING = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 250)), st.tuples(st.just("run"), st.just(0)),
        st.tuples(st.just("ack"), st.integers(0, 400)), st.tuples(st.just("again"), st.integers(-1, 400)),
    ),
    max_size=40,
)  # fmt: skip


@quick
@given(SENDING)
def test_numbers_are_dense_runs_have_no_holes_and_what_is_acknowledged_stays_so(
    actions: list[tuple[str, int]],
) -> None:
    outbox, added, acked = Outbox("call", 3), 0, 0
    written: dict[int, EdgeEvent] = {}
    for action, n in actions:
        match action:
            case "add":
                for _ in range(n):
                    event = outbox.add(id=f"evt_{added}", type="speech.started", at_ms=added, data=b"{}")
                    added += 1
                    assert event.n == added
                    written[event.n] = event
            case "run":
                was_in_flight = outbox.in_flight
                run = outbox.run()
                assert len(run) <= RUN_MAX and not (was_in_flight and run)
                if run:
                    assert [e.n for e in run] == list(range(outbox.sent_n + 1, outbox.sent_n + 1 + len(run)))
                    assert all(e is written[e.n] for e in run)
                    outbox.sent(run)
            case "ack":
                durable = min(n, outbox.sent_n)
                assert outbox.acknowledge(durable) == (durable > acked)
                acked = max(acked, durable)
            case _:
                outbox.send_again(min(n, outbox.sent_n) if n >= 0 else None)
                assert outbox.sent_n >= acked
        assert outbox.acked_n == acked
        assert outbox.last_n == added
        assert [e.n for e in outbox.unacked] == list(range(acked + 1, added + 1))
        assert outbox.settled == (acked == added)


# ----------------------------------------------------------------------------------------------------- the takeover

OWNERS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.booleans()),
    min_size=1,
    max_size=4,
)


@quick
@given(OWNERS)
def test_over_any_chain_of_owners_every_event_reaches_the_log_once(
    owners: list[tuple[int, int, int, int, bool]],
) -> None:
    """Each owner writes, the log stores some of it, the owner learns of less and the caller of less still (or only of an
    epoch before); then it dies. What the log holds in the end is every event that a snapshot carried on, each once, by where
    it was first numbered."""
    stored: list[tuple[int, int]] = []
    happened: list[tuple[int, int]] = []
    snapshot: CallSnapshot | None = None
    resume: Resume | None = None
    for epoch, (count, stored_n, acked_n, seen_n, newest) in enumerate(owners, 1):
        outbox = Outbox("call", epoch)
        for adopted in plan_takeover(resume, snapshot, None).adopt:
            event = adopted.event
            outbox.add(id=event.id, type=event.type, at_ms=1, data=bytes(event.data), origin=adopted.origin)
        for _ in range(count):
            new = outbox.add(id=f"evt_{len(happened)}", type="speech.started", at_ms=1, data=b"{}")
            happened.append((epoch, new.n))
        for event in outbox.unacked[:stored_n]:
            place = (event.origin.epoch, event.origin.n) if event.origin else (epoch, event.n)
            if place not in stored:
                stored.append(place)
        outbox.acknowledge(min(stored_n, acked_n, outbox.last_n))
        snapshot = CallSnapshot(
            call="call", epoch=epoch, acked_n=outbox.acked_n, last_n=outbox.last_n, turns=[],
            unacked=[Unacked(epoch=epoch, event=e) for e in outbox.unacked],
        )  # fmt: skip
        seen = min(stored_n, seen_n, outbox.last_n)
        resume = Resume(epoch=epoch, n=seen) if newest else Resume(epoch=epoch - 1, n=seen_n)
    last = [(a.origin.epoch, a.origin.n) for a in plan_takeover(resume, snapshot, None).adopt]
    assert len(set(last)) == len(last)
    stored += [place for place in last if place not in stored]
    assert sorted(stored) == sorted(happened)


TURNS = st.lists(
    st.builds(Turn, role=st.sampled_from(("caller", "agent")), text=st.text(max_size=10)), max_size=4
)
PLACE = st.builds(Position, utterance=st.integers(0, 4), offset_ms=st.integers(0, 9_000))


@quick
@given(
    st.none() | st.builds(Resume, epoch=st.integers(0, 4), n=st.integers(0, 9), played=PLACE),
    st.none() | st.builds(
        CallSnapshot, call=st.just("call"), epoch=st.integers(1, 4), acked_n=st.integers(0, 4), last_n=st.integers(4, 9), turns=TURNS,
        unacked=st.just([]), playing=PLACE, playing_text=st.text(max_size=9), utterance=st.integers(0, 4),
    ),
    st.none() | st.builds(
        Tail, call=st.just("call"), seq=st.integers(1, 9), epoch=st.integers(1, 4), n=st.integers(0, 9), turns=TURNS,
    ),
)  # fmt: skip
def test_a_plan_takes_its_history_from_one_of_the_two_and_never_counts_utterances_back(
    resume: Resume | None, snapshot: CallSnapshot | None, tail: Tail | None
) -> None:
    plan = plan_takeover(resume, snapshot, tail)
    sources = {
        "none": [],
        "snapshot": snapshot.turns if snapshot else None,
        "tail": tail.turns if tail else None,
    }
    assert plan.turns == sources[plan.source]
    assert (plan.source == "none") == (snapshot is None and tail is None)
    played = resume.played if resume else Position()
    assert plan.utterance >= max(played.utterance, snapshot.utterance if snapshot else 0)
    assert plan.cut.offset_ms in (0, played.offset_ms)


# ------------------------------------------------------------------------------------------------ ticket, snapshot

KEY = Ed25519PrivateKey.generate()
KEYS = {"k1": KEY.public_key()}
CLAIMS = Claims(
    iss=TICKET_ISSUER, aud=TICKET_AUDIENCE, call="call_x", project="prj_x", jti="j", iat=1_000, exp=9_000, attach_by=2_000,
    max_s=7_000, sealed="f.x",
    grants=[Grant(epoch=e, edge=f"edge_{e}", incarnation=f"i{e}", region="r", url="ws://x") for e in (1, 2, 3)],
)  # fmt: skip
TOKEN = sign(CLAIMS, kid="k1", key=KEY)


def flipped(data: bytes, bit: int) -> bytes:
    bit %= len(data) * 8
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_a_ticket_comes_back_as_it_was_signed() -> None:
    assert read(TOKEN, keys=KEYS) == CLAIMS


@quick
@given(st.integers(0, 2), st.integers(0, 1 << 16))
def test_a_ticket_with_any_bit_flipped_is_refused(part: int, bit: int) -> None:
    parts = TOKEN.split(".")
    parts[part] = b64(flipped(unb64(parts[part]), bit))
    with pytest.raises(TicketError):
        read(".".join(parts), keys=KEYS)


@quick
@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: b64(b) + "." + b64(b) + "." + b64(b)))
def test_nothing_else_is_a_ticket(text: str) -> None:
    with pytest.raises(TicketError):
        read(text, keys=KEYS)


@quick
@given(
    st.integers(0, 5),
    st.sampled_from(("edge_1", "edge_2")),
    st.sampled_from(("i1", "i2")),
    st.integers(0, 12_000),
    st.booleans(),
)
def test_a_grant_admits_its_edge_its_life_and_its_time_alone(
    epoch: int, edge: str, incarnation: str, now_s: int, resuming: bool
) -> None:
    in_time = now_s <= (CLAIMS.exp if resuming else CLAIMS.attach_by) + 10
    fits = in_time and epoch in (1, 2) and (edge, incarnation) == (f"edge_{epoch}", f"i{epoch}")
    try:
        grant = admit(CLAIMS, epoch=epoch, edge=edge, incarnation=incarnation, now_s=now_s, resuming=resuming)
    except TicketError:
        assert not fits
    else:
        assert fits and grant.epoch == epoch


@quick
@given(st.binary(max_size=100), st.integers(0, 1 << 12), st.binary(min_size=32, max_size=32))
def test_what_is_sealed_opens_whole_for_its_call_and_key_and_not_otherwise(
    plain: bytes, bit: int, other: bytes
) -> None:
    key = b"k" * 32
    sealed = seal(plain, key_id="f1", key=key, nonce=b"n" * 12, bound_to="call_x")
    assert unseal(sealed, keys={"f1": key}, bound_to="call_x") == plain
    body = b64(flipped(unb64(sealed[3:]), bit))
    for text, keys, call in (
        ("f1." + body, {"f1": key}, "call_x"), (sealed, {"f1": key}, "call_y"), (sealed, {"f2": key}, "call_x"),
        (sealed, {"f1": other if other != key else b"x" * 32}, "call_x"), (base64.b64encode(plain).decode(), {"": key}, "call_x"),
    ):  # fmt: skip
        with pytest.raises(TicketError):
            unseal(text, keys=keys, bound_to=call)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 120), st.integers(0, 400), st.integers(0, 900), st.integers(0, 2_000))
def test_a_snapshot_opens_as_it_was_sealed_and_where_it_is_too_big_keeps_the_newest_turns_and_the_oldest_events(
    turns: int, unacked: int, words: int, size: int
) -> None:
    before = CallSnapshot(
        call="call_x", epoch=2, acked_n=0, last_n=unacked,
        turns=[Turn(role="caller", text=f"{i} " + "x" * size) for i in range(turns)],
        unacked=[Unacked(epoch=2, event=EdgeEvent(n=n, id="evt", type="turn.ended", at_ms=1, data=msgspec.Raw(b'{"text":"%d"}' % n)))
                 for n in range(1, unacked + 1)],
        playing_words=[Word("word", i * 100) for i in range(words)],
    )  # fmt: skip
    sealed = seal_snapshot(before, b"k" * 32)
    assert len(sealed) <= SNAPSHOT_BYTES_MAX
    after = open_snapshot(sealed, call="call_x", key=b"k" * 32)
    assert after is not None
    assert after.turns == before.turns[len(before.turns) - len(after.turns) :]
    assert [u.event.n for u in after.unacked] == list(range(1, len(after.unacked) + 1))
    assert after.playing_words in ([], before.playing_words)
    if len(msgspec.json.encode(before)) < SNAPSHOT_BYTES_MAX // 2:
        assert (after.turns, len(after.unacked), after.playing_words) == (
            before.turns,
            unacked,
            before.playing_words,
        )
