"""The pure parts of an edge: lease, outbox, playout, takeover, utterances, the life of a session."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions.edge.call_time import TOLD_EVERY_MS, CallTime
from regions.edge.calls import Calls, Refusal
from regions.edge.lease import Lease
from regions.edge.machine import TABLE, BadTransition, Phase, step
from regions.edge.outbox import BYTES_MAX, EVENTS_MAX, Outbox
from regions.edge.snapshots import open_snapshot, seal_snapshot
from regions.edge.takeover import plan_takeover
from regions.edge.utterances import Said
from regions.media.caller_buffer import BUFFERED_FRAMES_MAX, CallerBuffer
from regions.media.pacer import Pacer
from regions.media.playout import Playout
from regions.wire.events import EdgeEvent, Origin
from regions.wire.media import LEASE_MS, SNAPSHOT_BYTES_MAX, Position, Resume
from regions.wire.snapshot import CallSnapshot, Tail, Turn, Unacked, Word

# -------------------------------------------------------------------------------------------------------- the time


def test_what_has_elapsed_is_counted_by_the_owners_and_carried_by_the_snapshot() -> None:
    first = CallTime(1_000, answered_at_ms=77)
    carried = snapshot()
    first.into(carried, 4_000)
    assert (carried.answered_at_ms, carried.elapsed_ms) == (77, 3_000)
    plan = plan_takeover(None, carried, None)
    second = CallTime(900_000, plan.answered_at_ms, plan.elapsed_ms)
    assert second.elapsed_ms(900_500) == 3_500


def test_a_quiet_call_renews_its_snapshot_now_and_then() -> None:
    time = CallTime(0, answered_at_ms=1)
    assert not time.stale(TOLD_EVERY_MS)
    assert time.stale(TOLD_EVERY_MS + 1)
    time.into(snapshot(), TOLD_EVERY_MS + 1)
    assert not time.stale(TOLD_EVERY_MS + 2)


# ------------------------------------------------------------------------------------------------------- the lease


def test_a_lease_ends_three_seconds_after_the_newest_stamp_echoed() -> None:
    lease = Lease(1_000, base=77)
    stamp = lease.stamp(2_000)
    assert lease.echo(stamp, 3_500)
    assert lease.holds(2_000 + LEASE_MS)
    assert not lease.holds(2_000 + LEASE_MS + 1)


def test_nothing_revives_a_lease_that_has_ended() -> None:
    lease = Lease(0, base=5)
    late = lease.stamp(LEASE_MS)
    assert not lease.holds(LEASE_MS + 1)
    lease.echo(late, LEASE_MS + 1)
    assert not lease.holds(LEASE_MS + 1)


def test_old_and_foreign_stamps_renew_nothing() -> None:
    lease, other = Lease(0, base=1 << 40), Lease(0, base=1 << 41)
    assert not lease.echo(other.stamp(10), 20)
    assert not lease.echo(lease.stamp(500), 400)
    assert not lease.echo((1 << 40) - 1, 100)
    lease.echo(lease.stamp(10), 2_900)
    assert not lease.holds(LEASE_MS + 11)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)), max_size=40))
def test_a_lease_never_outlives_its_newest_stamp(steps: list[tuple[int, int]]) -> None:
    lease, now, newest = Lease(0, base=9), 0, 0
    for wait_ms, behind_ms in steps:
        now += wait_ms
        alive = lease.holds(now)
        at = max(0, now - behind_ms)
        lease.echo(lease.stamp(at), now)
        if alive:
            newest = max(newest, at)
        assert lease.holds(now) == (alive and now - newest <= LEASE_MS)


# ------------------------------------------------------------------------------------------------------ the outbox


def put(outbox: Outbox, count: int) -> None:
    for _ in range(count):
        outbox.add(id="evt", type="speech.started", at_ms=1, data=b"{}")


def test_numbers_are_dense_and_resent_unchanged() -> None:
    outbox = Outbox("call", 1)
    put(outbox, 5)
    first = outbox.run()
    outbox.sent(first)
    assert outbox.run() == []
    outbox.send_again()
    assert outbox.run() == first
    outbox.sent(outbox.run())
    assert outbox.acknowledge(3)
    assert [e.n for e in outbox.unacked] == [4, 5]
    assert not outbox.acknowledge(2)


def test_a_gap_is_filled_from_what_the_log_has() -> None:
    outbox = Outbox("call", 1)
    put(outbox, 4)
    outbox.sent(outbox.run())
    outbox.send_again(2)
    assert [e.n for e in outbox.run()] == [3, 4]


def test_an_outbox_is_bounded_and_a_closed_one_sends_nothing() -> None:
    outbox = Outbox("call", 1)
    put(outbox, EVENTS_MAX)
    assert outbox.over
    outbox.close()
    assert outbox.run() == []
    assert outbox.settled


def test_a_closed_outbox_keeps_nothing_and_is_settled_whatever_is_written_after() -> None:
    """An owner that was fenced is heard out; what it still writes must not keep its call from being denied."""
    outbox = Outbox("call_x", 1)
    outbox.add(id="evt_1", type="turn.started", at_ms=1, data=b"{}")
    outbox.acknowledge(1)
    outbox.skip()
    outbox.close()
    outbox.fill(id="evt_2", type="events.lost", at_ms=2, data=b"{}")
    outbox.reopen(0, id="evt_3", type="events.lost", at_ms=3, data=b"{}")
    outbox.add(id="evt_4", type="turn.ended", at_ms=4, data=b"{}")
    assert (outbox.settled, outbox.run(), outbox.unacked) == (True, [], [])


def test_an_outbox_is_bounded_by_size_as_well() -> None:
    outbox = Outbox("call", 1)
    for n in range(1, 5):
        outbox.add(id=f"evt_{n}", type="tool.result", at_ms=n, data=b"x" * (BYTES_MAX // 4))
        assert outbox.over == (n == 4)
    outbox.sent(outbox.run())
    outbox.acknowledge(1)
    assert not outbox.over


def test_what_a_snapshot_had_no_room_for_is_said_to_be_lost() -> None:
    """The oldest that was not acknowledged is in it; of the rest nobody knows any more."""
    unacked = [
        Unacked(epoch=2, event=EdgeEvent(n=n, id=f"evt_{n}", type="speech.started", at_ms=n)) for n in (4, 5)
    ]
    carried = CallSnapshot(call="call", epoch=2, acked_n=3, last_n=9, turns=[], unacked=unacked)
    lost = plan_takeover(None, carried, None).lost
    assert lost is not None
    assert (lost.epoch, lost.from_n, lost.to_n, lost.reason) == (2, 6, 9, "snapshot")
    seen = plan_takeover(Resume(epoch=2, n=7), carried, None).lost
    assert seen is not None
    assert (seen.from_n, seen.to_n) == (8, 9)
    tail = Tail(call="call", seq=30, epoch=2, n=12, turns=[])
    assert plan_takeover(None, carried, tail).lost is None, "the log has them all"
    whole = CallSnapshot(call="call", epoch=2, acked_n=3, last_n=5, turns=[], unacked=unacked)
    assert plan_takeover(None, whole, None).lost is None


def test_an_outbox_that_is_full_skips_numbers_and_says_which() -> None:
    outbox = Outbox("call", 1)
    put(outbox, EVENTS_MAX)
    assert [outbox.skip() for _ in range(3)] == [EVENTS_MAX + 1, EVENTS_MAX + 2, EVENTS_MAX + 3]
    outbox.fill(id="evt", type="events.lost", at_ms=1, data=b"{}")
    put(outbox, 1)
    assert [e.n for e in outbox.unacked[-3:]] == [EVENTS_MAX, EVENTS_MAX + 3, EVENTS_MAX + 4]


# ----------------------------------------------------------------------------------------------------- the playout


def test_positions_are_exact_and_marks_come_after_their_audio() -> None:
    playout = Playout()
    playout.push(b"\x01" * 320)
    playout.mark("m")
    playout.end_utterance()
    first, second, third, fourth = (playout.pop() for _ in range(4))
    assert first is not None and first.started and first.offset_ms == 0 and not first.marks
    assert second is not None and second.offset_ms == 20 and not second.marks
    assert third is not None and third.done and third.marks == ("m",) and third.offset_ms == 40
    assert fourth is None


def test_clear_gives_the_position_and_the_marks_back_and_what_follows_is_another_utterance() -> None:
    playout = Playout(utterance=7)
    playout.push(b"\x01" * 1600)
    playout.mark("a")
    playout.mark("a")
    playout.pop()
    playout.pop()
    cleared = playout.clear()
    assert cleared.position == Position(utterance=8, offset_ms=40)
    assert (cleared.marks, cleared.dropped_ms, cleared.was_playing) == (("a", "a"), 160, True)
    assert playout.pop() is None
    playout.push(b"\x01" * 160)
    popped = playout.pop()
    assert popped is not None and (popped.utterance, popped.offset_ms) == (9, 0)


def test_a_mark_with_nothing_before_it_passes_at_once() -> None:
    playout = Playout()
    playout.mark("now")
    popped = playout.pop()
    assert popped is not None and popped.marks == ("now",) and popped.frame is None


def test_an_utterance_that_runs_dry_is_over_after_a_second() -> None:
    playout = Playout()
    playout.push(b"\x01" * 160)
    slots = [playout.pop() for _ in range(60)]
    assert sum(p is not None and p.done for p in slots) == 1
    assert not playout.active


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 700)), st.tuples(st.just("mark"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.just(0)), st.tuples(st.just("clear"), st.just(0)), st.tuples(st.just("pop"), st.integers(1, 5)),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_every_mark_comes_back_once_and_in_order_whatever_happens(actions: list[tuple[str, int]]) -> None:
    playout, sent, back = Playout(), [], []
    last = Position()
    for action, n in actions:
        if action == "push":
            playout.push(b"\x01" * n)
        elif action == "mark":
            name = f"{len(sent)}"
            sent.append(name)
            playout.mark(name)
        elif action == "end":
            playout.end_utterance()
        elif action == "clear":
            back += playout.clear().marks
        else:
            for _ in range(n):
                popped = playout.pop()
                if popped is None:
                    continue
                back += popped.marks
                if popped.frame is not None:
                    assert len(popped.frame) == 160
                    assert popped.utterance > last.utterance or popped.offset_ms == last.offset_ms + 20
                    last = Position(utterance=popped.utterance, offset_ms=popped.offset_ms)
    for _ in range(3_000):
        popped = playout.pop()
        if popped is not None:
            back += popped.marks
    assert back == sent


def test_the_caller_buffer_keeps_the_newest() -> None:
    buffer = CallerBuffer()
    assert buffer.pop() is None
    buffer.push(b"a" * 100)
    assert buffer.pop() is None
    buffer.push(b"b" * 160 * BUFFERED_FRAMES_MAX)
    assert buffer.dropped_bytes == 100
    assert buffer.pop() == b"b" * 160


# ------------------------------------------------------------------------------------------------ takeover, history


def snapshot(**more: object) -> CallSnapshot:
    given: dict[str, object] = {
        "call": "call_x",
        "epoch": 1,
        "acked_n": 1,
        "last_n": 3,
        "turns": [],
        "unacked": [],
    }
    return msgspec.convert(given | more, CallSnapshot)


def event(n: int, origin: Origin | None = None) -> EdgeEvent:
    return EdgeEvent(n=n, id=f"evt_{n}", type="turn.ended", at_ms=1, origin=origin)


def test_what_was_not_acknowledged_is_adopted_with_its_origin() -> None:
    kept = [Unacked(epoch=1, event=event(2)), Unacked(epoch=1, event=event(3, Origin(epoch=7, n=9)))]
    before = msgspec.structs.replace(snapshot(), unacked=kept)
    plan = plan_takeover(Resume(epoch=1, n=1), before, None)
    assert [(a.event.id, a.origin.epoch, a.origin.n) for a in plan.adopt] == [
        ("evt_2", 1, 2),
        ("evt_3", 7, 9),
    ]
    assert [a.event.id for a in plan_takeover(Resume(epoch=1, n=2), before, None).adopt] == ["evt_3"]


def test_the_newer_of_tail_and_snapshot_gives_the_history() -> None:
    turns = [Turn(role="caller", text="old")]
    newer = Tail(call="call_x", seq=9, epoch=1, n=4, turns=[Turn(role="caller", text="new")])
    older = msgspec.structs.replace(newer, n=3)
    before = msgspec.structs.replace(snapshot(), turns=turns)
    assert plan_takeover(None, before, newer).source == "tail"
    assert plan_takeover(None, before, older).turns == turns
    assert plan_takeover(None, None, None).source == "none"
    assert plan_takeover(None, None, newer).turns[0].text == "new"


def test_the_cut_utterance_is_what_the_caller_had_played() -> None:
    before = msgspec.structs.replace(
        snapshot(), playing=Position(utterance=2, offset_ms=900), playing_text="one two three", utterance=2
    )
    plan = plan_takeover(Resume(epoch=1, n=3, played=Position(utterance=2, offset_ms=480)), before, None)
    assert (plan.cut, plan.cut_text) == (Position(utterance=2, offset_ms=480), "one two three")
    assert plan.utterance == 2


def test_words_are_cut_where_they_begin() -> None:
    said = Said(texts=["one two three"], words=[Word("one", 0), Word("two", 400), Word("three", 800)])
    assert [said.heard(ms) for ms in (0, 100, 401, 5_000)] == ["", "one", "one two", "one two three"]
    plain = Said(texts=["one two three four"], length_ms=1_000)
    assert plain.heard(500) == "one two"


def test_a_snapshot_opens_only_for_its_call_and_key_and_stays_small() -> None:
    big = msgspec.structs.replace(snapshot(), turns=[Turn(role="caller", text="x" * 900) for _ in range(200)])
    sealed = seal_snapshot(big, b"k" * 32)
    assert len(sealed) <= SNAPSHOT_BYTES_MAX
    opened = open_snapshot(sealed, call="call_x", key=b"k" * 32)
    assert opened is not None and opened.turns[-1] == big.turns[-1]
    assert open_snapshot(sealed, call="call_y", key=b"k" * 32) is None
    assert open_snapshot(sealed, call="call_x", key=b"z" * 32) is None
    assert open_snapshot("garbage", call="call_x", key=b"k" * 32) is None


def test_the_table_of_phases_ends_in_gone_and_refuses_the_rest() -> None:
    actions = {a for _, a in TABLE}
    for phase in Phase:
        for action in actions:
            if (phase, action) in TABLE:
                assert step(phase, action) is TABLE[(phase, action)]
            else:
                with pytest.raises(BadTransition):
                    step(phase, action)
    assert not any(phase is Phase.GONE for phase, _ in TABLE)


# -------------------------------------------------------------------------------------------------------- denials


def test_what_an_edge_has_denied_it_never_takes_up_to_that_epoch() -> None:
    calls = Calls(None, None, Pacer(lambda _, __: None))  # type: ignore[arg-type]  # neither is asked
    assert calls.deny("call", 3)
    assert calls.deny("call", 2)
    for epoch in (1, 3):
        with pytest.raises(Refusal, match="given up"):
            calls.own(SimpleNamespace(call="call", epoch=epoch, turn=None))  # type: ignore[arg-type]
    calls.context = SimpleNamespace(settings=SimpleNamespace(capacity_calls=1))  # type: ignore[assignment]
    calls.own(SimpleNamespace(call="call", epoch=4, turn=None, claims=None))  # type: ignore[arg-type]


def test_a_call_that_is_owned_or_has_something_unsent_is_not_denied() -> None:
    calls = Calls(None, None, None)  # type: ignore[arg-type]
    outbox = Outbox("call", 1)
    session = SimpleNamespace(call="call", epoch=1, phase=Phase.OWNING, outbox=outbox)
    calls._sessions["call", 1] = session  # type: ignore[assignment]
    assert not calls.deny("call", 1)
    session.phase = Phase.MUTE
    put(outbox, 1)
    assert not calls.deny("call", 1)
    outbox.acknowledge(1)
    assert calls.deny("call", 1)
