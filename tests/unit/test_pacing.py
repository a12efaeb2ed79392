"""When a batch of events may go: at once where nothing is under way, else spread over the time that an answer takes."""

from __future__ import annotations

from collections import deque

from regions.edge.pacing import GAP_MAX_S, Pace
from regions.wire.uplink import BATCHES_IN_FLIGHT_MAX

ANSWER_S = 0.16


def used(answer_s: float = ANSWER_S) -> Pace:
    pace = Pace()
    pace.sent(0.0, full=False)
    pace.answered(answer_s)
    return pace


def test_nothing_waits_while_nothing_is_under_way() -> None:
    assert used().wait_s(0.001, under_way=0) == 0.0
    assert used().wait_s(0.001, under_way=1) > 0.0


def test_what_a_full_batch_left_behind_goes_at_once() -> None:
    pace = used()
    pace.sent(1.0, full=True)
    assert pace.wait_s(1.0, under_way=1) == 0.0
    pace.sent(1.0, full=False)
    assert pace.wait_s(1.0, under_way=2) > 0.0


def test_a_log_that_is_slow_makes_no_batch_wait_longer_than_so() -> None:
    pace = used(5.0)
    pace.sent(1.0, full=False)
    assert pace.wait_s(1.0, under_way=3) > 0.0
    assert pace.wait_s(1.001 + GAP_MAX_S, under_way=3) == 0.0


def test_an_event_waits_for_a_share_of_an_answer_and_not_for_all_of_it() -> None:
    """An event every 5 ms, an answer after 160 ms: sent when one may go, batches would leave four at a time and then wait."""
    pace, under_way, waiting, waits = Pace(), deque[float](), 0, []
    oldest_s = 0.0
    for ms in range(3_000):
        now_s = ms / 1000
        while under_way and now_s - under_way[0] >= ANSWER_S:
            pace.answered(now_s - under_way.popleft())
        if ms % 5 == 0:
            oldest_s = oldest_s if waiting else now_s
            waiting += 1
        if waiting and len(under_way) < BATCHES_IN_FLIGHT_MAX and not pace.wait_s(now_s, len(under_way)):
            waits.append(now_s - oldest_s)
            pace.sent(now_s, full=False)
            under_way.append(now_s)
            waiting = 0
    settled = waits[len(waits) // 2 :]
    assert max(settled) <= ANSWER_S / BATCHES_IN_FLIGHT_MAX + 0.005
