"""When a caller prepares and takes: the rules of the takeover, for every history."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import watch_histories
from voxplane.watch import AskTicket, GiveUp, LetGo, Prepare, Retry, State, Take, Watch


def test_silence_prepares_and_takes_only_when_the_standby_answers() -> None:
    watch = Watch([1, 2, 3], 1, 0)
    assert watch.tick(399) == []
    assert watch.tick(400) == [Prepare(2)]
    assert watch.tick(600) == []
    assert watch.prepared(2, 620) == [Take(2, "silent")]
    watch.attached(2, 700)
    assert (watch.state, watch.epoch) == (State.ATTACHED, 2)


def test_an_owner_heard_again_keeps_the_call() -> None:
    watch = Watch([1, 2, 3], 1, 0)
    watch.tick(400)
    assert watch.heard(450) == [LetGo(2)]
    assert watch.state is State.ATTACHED
    assert watch.prepared(2, 460) == []


def test_a_closed_socket_takes_at_once() -> None:
    watch = Watch([1, 2, 3], 1, 0)
    assert watch.closed(10) == [Take(2, "closed")]
    assert watch.failed(2, 20) == [Take(3, "refused")]
    assert watch.failed(3, 30) == [AskTicket()]
    assert watch.granted([4, 5], 40) == [Take(4, "refused")]


def test_both_silent_is_the_callers_own_network_and_the_epoch_stays() -> None:
    watch = Watch([1, 2], 1, 0)
    watch.tick(400)
    assert watch.tick(1_500) == [Retry(1)]
    watch.attached(1, 1_600)
    assert watch.epoch == 1


def test_the_owner_is_tried_again_at_growing_intervals_that_chance_shortens() -> None:
    def retries(draw: float) -> list[int]:
        watch = Watch([1], 1, 0, lambda: draw)
        return [now for now in range(0, 12_000, 20) if Retry(1) in watch.tick(now)]

    assert retries(0.0) == [1_500, 2_500, 4_000, 6_000, 9_000]
    assert retries(1.0) == [1_500, 2_260, 3_400, 4_900, 7_160, 9_420, 11_680]
    watch = Watch([1], 1, 0)
    watch.tick(1_500)
    watch.tick(1_500)
    watch.heard(1_600)
    watch.tick(2_000)
    assert watch.tick(3_099) == []
    assert watch.tick(3_100) == [Retry(1)], "heard: it begins anew"


def test_the_grants_of_the_newest_ticket_come_first_and_the_older_ones_are_not_forgotten() -> None:
    watch = Watch([1, 2, 3], 1, 0)
    assert watch.granted([4, 5], 10) == []
    assert watch.tick(400) == [Prepare(4)]
    assert watch.failed(4, 410) == [Prepare(5)]
    assert watch.failed(5, 420) == [Prepare(2)]
    assert watch.prepared(2, 600) == [Take(2, "silent")]
    hurried = Watch([1, 2, 3], 1, 0)
    hurried.granted([4, 5], 10)
    assert hurried.closed(20) == [Take(4, "closed")]
    assert hurried.failed(4, 30) == [Take(5, "refused")]
    assert hurried.failed(5, 40) == [AskTicket()], "no lower epoch afterwards"


def test_it_gives_up_in_the_end() -> None:
    watch = Watch([1], 1, 0)
    assert watch.closed(0) == [AskTicket()]
    watch.not_granted(10)
    assert watch.tick(30_001) == [GiveUp()]
    assert watch.state is State.OVER


WHAT = st.sampled_from(
    ("heard", "closed", "prepared", "failed", "attached", "tick", "granted", "not_granted")
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(WHAT, st.integers(0, 900)), max_size=80))
def test_no_history_takes_an_epoch_twice_or_goes_back(history: list[tuple[str, int]]) -> None:
    watch, now, taken, asked, highest = Watch([1, 2, 3], 1, 0), 0, [], 0, 3
    pending: int | None = None
    for what, wait_ms in history:
        now += wait_ms
        actions = []
        if what in ("prepared", "failed", "attached"):
            target = pending if pending is not None else 2
            actions = getattr(watch, what)(target, now)
        elif what == "granted" and asked:
            highest += 2
            actions = watch.granted([highest - 1, highest], now)
        elif what == "not_granted" and asked:
            actions = watch.not_granted(now)
        elif what in ("heard", "closed", "tick"):
            actions = getattr(watch, what)(now)
        for action in actions:
            if isinstance(action, Take):
                assert action.epoch > max(taken, default=1) or action.epoch > watch.epoch
                assert action.epoch not in taken
                taken.append(action.epoch)
                pending = action.epoch
            elif isinstance(action, Prepare):
                pending = action.epoch
            elif isinstance(action, AskTicket):
                asked += 1
    assert taken == sorted(taken)


def test_the_reason_why_the_owner_was_left_outlives_a_standby_that_is_gone_as_well() -> None:
    watch = Watch([1, 2, 3], 1, 0.0)
    assert watch.closed(10.0) == [Take(2, "closed")]
    assert watch.failed(2, 20.0) == [Take(3, "refused")]
    assert watch.left_for == "closed"


def test_the_histories_that_other_libraries_are_held_to_are_this_watchs() -> None:
    assert watch_histories.FILE.read_text(encoding="utf-8") == watch_histories.text(), (
        "run python -m tests.support.watch_histories"
    )
