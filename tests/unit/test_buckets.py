"""How often something may be asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.buckets import Buckets


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_stretch_of_time_has_more_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    buckets, now, taken = Buckets(burst=3, per_s=0.5), 0.0, []
    for pause in pauses:
        now += pause
        if buckets.take("x", now):
            taken.append(now)
    for i, begin in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= 3 + 0.5 * (taken[j] - begin) + 1e-6


def test_names_do_not_share_and_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = Buckets(burst=1, per_s=1)
    assert buckets.take("a", 10)
    assert not buckets.take("a", 5)
    assert buckets.take("b", 5)
