"""How an edge lets a call go, how its caller leaves it, and when a turn has ended: for every history."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from regions.edge.handover import (
    ANSWER_WITHIN_MS,
    GONE_WITHIN_MS,
    QUIET_MS,
    Boundary,
    Drop,
    Go,
    Handover,
    Offer,
)
from regions.edge.kept import MUTE_KEPT_MS, UNSENT_KEPT_MS, Kept
from voxplane.moving import LINGER_MAX_MS, LINGER_MIN_MS, Overlap
from voxplane.moving import QUIET_MS as OLD_QUIET_MS
from voxplane.watch import State, Take, Watch


def test_a_ready_caller_goes_at_the_end_of_a_turn() -> None:
    handover = Handover([4, 5], 0, 60_000)
    assert handover.tick(0, boundary=True) == Offer(4, 60_000)
    assert handover.tick(20, boundary=True) is None
    handover.ready(5, "")
    handover.ready(4, "")
    assert handover.tick(40, boundary=False) is None
    assert handover.tick(60, boundary=True) == Go(4)
    assert handover.gone
    assert handover.tick(80, boundary=True) is None


def test_the_deadline_waits_for_no_turn_and_silence_is_dropped() -> None:
    handover = Handover([4], 0, 100)
    handover.tick(0, boundary=False)
    handover.ready(4, "")
    assert handover.tick(99, boundary=False) is None
    assert handover.tick(100, boundary=False) == Go(4)
    mute = Handover([4], 0, 0)
    mute.tick(0, boundary=True)
    assert mute.tick(ANSWER_WITHIN_MS - 1, boundary=True) is None
    assert mute.tick(ANSWER_WITHIN_MS, boundary=True) == Drop()


def test_what_is_not_forced_is_off_when_the_time_is_over_and_drops_nobody() -> None:
    gentle = Handover([4, 5], 0, 100, forced=False)
    gentle.tick(0, boundary=False)
    gentle.ready(4, "")
    assert gentle.tick(100, boundary=False) is None
    assert gentle.failed and not gentle.gone
    assert gentle.tick(60_000, boundary=True) is None
    at_turn = Handover([4], 0, 100, forced=False)
    at_turn.tick(0, boundary=False)
    at_turn.ready(4, "")
    assert at_turn.tick(99, boundary=True) == Go(4)
    mute = Handover([4], 0, 0, forced=False)
    assert [mute.tick(t, boundary=True) for t in (0, 20, ANSWER_WITHIN_MS, 60_000)] == [None] * 4


def test_a_caller_that_stayed_is_offered_the_next_and_in_the_end_it_is_kept() -> None:
    handover = Handover([4, 5], 0, 0)
    handover.tick(0, boundary=True)
    handover.ready(4, "")
    assert handover.tick(20, boundary=True) == Go(4)
    assert handover.tick(20 + GONE_WITHIN_MS, boundary=True) == Offer(5, 0)
    handover.ready(5, "full")
    assert handover.failed
    assert handover.tick(60_000, boundary=True) is None


WHAT = st.sampled_from(("tick", "turn", "ready", "refuse", "again"))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.integers(2, 9), unique=True, min_size=1, max_size=3),
    st.integers(0, 5_000),
    st.lists(st.tuples(WHAT, st.integers(0, 900), st.integers(2, 9)), max_size=60),
)
def test_no_history_goes_where_nobody_is_ready(
    epochs: list[int], within_ms: int, history: list[tuple[str, int, int]]
) -> None:
    handover, now, ready = Handover(epochs, 0, within_ms), 0, set[int | None]()
    offered: int | None = None
    answered = False
    for what, wait_ms, epoch in history:
        now += wait_ms
        match what:
            case "ready":
                handover.ready(epoch, "")
                ready |= {epoch} & {offered}
                answered |= epoch == offered
            case "refuse":
                handover.ready(epoch, "full")
                answered |= epoch == offered
            case "again":
                handover.again(now)
                offered = offered if handover.gone else None
            case _:
                said = handover.tick(now, boundary=what == "turn")
                if isinstance(said, Offer):
                    assert said.epoch in epochs
                    offered = said.epoch
                    ready.discard(offered)
                elif isinstance(said, Go):
                    assert said.epoch == offered and said.epoch in ready
                    assert what == "turn" or now >= within_ms
                elif isinstance(said, Drop):
                    assert not answered and now >= within_ms


def test_a_turn_has_ended_when_the_agent_has_and_not_while_the_caller_waits() -> None:
    boundary = Boundary()
    assert boundary.at(0, agent=False, caller=False), "nobody has spoken"
    assert not boundary.at(20, agent=False, caller=True)
    assert not boundary.at(40, agent=False, caller=False), "the caller waits for its answer"
    assert not boundary.at(60, agent=True, caller=False)
    assert boundary.at(80, agent=False, caller=False)
    boundary.at(100, agent=False, caller=True)
    assert boundary.at(100 + QUIET_MS, agent=False, caller=False), "no answer comes"


def test_the_edge_that_is_left_is_heard_until_the_new_one_speaks_or_it_has_no_more_to_say() -> None:
    overlap = Overlap(0)
    assert overlap.old_spoke(10)
    overlap.backend_up()
    assert not overlap.over(OLD_QUIET_MS + 20), "what the caller said last is on its way"
    assert overlap.over(LINGER_MIN_MS)
    talking = Overlap(0)
    talking.backend_up()
    talking.old_spoke(LINGER_MIN_MS)
    assert not talking.over(LINGER_MIN_MS + OLD_QUIET_MS - 1)
    talking.new_spoke()
    assert not talking.old_spoke(LINGER_MIN_MS + 1)
    assert talking.over(LINGER_MIN_MS + 1)
    alone = Overlap(0)
    assert not alone.over(LINGER_MAX_MS - 1)
    assert alone.over(LINGER_MAX_MS)


def test_a_planned_take_keeps_the_owner_until_the_new_one_is_attached() -> None:
    watch = Watch([1, 2, 4, 5], 1, 0)
    assert watch.planned(4, 10) == [Take(4, "planned")]
    assert watch.state is State.MOVING
    assert watch.planned(5, 11) == []
    watch.heard(20)
    assert watch.tick(500) == []
    watch.attached(4, 510)
    assert (watch.state, watch.epoch) == (State.ATTACHED, 4)
    assert watch.planned(2, 520) == [], "never a lower epoch"


def test_a_planned_take_that_is_refused_leaves_the_owner_and_one_that_is_lost_goes_on() -> None:
    watch = Watch([1, 4, 5], 1, 0)
    watch.planned(4, 10)
    assert watch.declined(4, 20) == []
    assert (watch.state, watch.epoch) == (State.ATTACHED, 1)
    assert watch.planned(5, 30) == [Take(5, "planned")]
    lost = Watch([1, 4, 5], 1, 0)
    lost.planned(4, 10)
    assert lost.failed(4, 20) == [Take(5, "refused")], "it may have been taken: no way back"
    silent = Watch([1, 4, 5], 1, 0)
    silent.planned(4, 10)
    assert silent.tick(1_511) == [Take(5, "refused")]
    closed = Watch([1, 4, 5], 1, 0)
    closed.planned(4, 10)
    assert closed.closed(20) == [], "the take is on its way"
    assert closed.attached(4, 30) == [] and closed.epoch == 4


def test_how_long_a_session_is_kept() -> None:
    for ended, settled, after_ms in (
        (True, True, 0),
        (False, True, MUTE_KEPT_MS + 1),
        (True, False, UNSENT_KEPT_MS + 1),
    ):
        kept = Kept()
        kept.over(0, ended=ended, settled=settled)
        assert kept.over(after_ms, ended=ended, settled=settled)
        assert not after_ms or not kept.over(after_ms - 1, ended=ended, settled=settled)
