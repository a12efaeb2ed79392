"""When a call that runs is moved for a gain: never by noise, never back and forth, and always when the gain lasts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.clock import SystemClock
from app.fleet.view import Fleet
from app.placement.gain import (
    CONFIDENCE_MIN,
    GAIN_MS,
    GAIN_SHARE,
    REST_S,
    WINDOWS,
    Gain,
    Lately,
    Rows,
    Way,
    look,
)
from app.placement.learning import Learning
from regions.wire.measuring import Measured, Witnessed

Window = tuple[float | None, list[Way]]


def way(region: str, ms: float, **more: object) -> Way:
    return Way(region, ms, **({"source": "history", "confidence": 0.9} | more))  # type: ignore[arg-type]


def moves(windows: list[Window], moved_ago_s: float | None = None) -> list[tuple[int, Gain]]:
    """(window, gain) of each; the call stays where it is, so that every decision is seen."""
    rows: Rows = {}
    found = []
    for i, (here_ms, elsewhere) in enumerate(windows):
        rows, gain = look(rows, here_ms, elsewhere, moved_ago_s)
        if gain is not None:
            found.append((i, gain))
            rows = {}
    return found


def test_a_gain_that_lasts_moves_after_three_windows_with_its_figures() -> None:
    lasting: list[Window] = [(180.0, [way("eu-west", 90.0), way("ap-south", 120.0)])] * WINDOWS
    assert moves(lasting[:-1]) == []
    assert moves(lasting) == [(2, Gain("eu-west", 180.0, 90.0))]


def test_the_cases_that_do_not_move() -> None:
    for here_ms, there in (
        (100.0, way("b", 61.0)),  # 39 ms
        (200.0, way("b", 151.0)),  # 49 ms, and less than a quarter
        (400.0, way("b", 50.0, source="prior")),
        (400.0, way("b", 50.0, source="geography", confidence=1.0)),
        (400.0, way("b", 50.0, source="alike")),
        (400.0, way("b", 50.0, confidence=CONFIDENCE_MIN - 0.01)),
        (400.0, way("b", 50.0, open=False)),
        (None, way("b", 50.0)),
    ):
        assert moves([(here_ms, [there])] * 10) == [], (here_ms, there)
    assert moves([(400.0, [way("b", 50.0)])] * 10, moved_ago_s=REST_S - 1) == []
    assert len(moves([(400.0, [way("b", 50.0)])] * 3, moved_ago_s=REST_S)) == 1


def test_the_same_region_has_to_be_nearer_each_time_and_one_that_fills_up_waits() -> None:
    b, c = way("b", 50.0), way("c", 50.0)
    assert moves([(400.0, [b]), (400.0, [c]), (400.0, [b]), (400.0, [c])]) == []
    assert moves([(400.0, [b]), (400.0, [b]), (None, [b]), (400.0, [b]), (400.0, [b])]) == []
    full = b._replace(open=False)
    assert [i for i, _ in moves([(400.0, [b]), (400.0, [b]), (400.0, [full]), (400.0, [b])])] == [3]
    both = [(400.0, [b._replace(ms=50.0 + i % 2), c._replace(ms=51.0 - i % 2)]) for i in range(3)]
    assert len(moves(both)) == 1, "two that are nearer do not keep each other from it"


@settings(max_examples=300, deadline=None)
@given(
    st.floats(20, 400),
    st.lists(st.tuples(st.floats(0, GAIN_MS - 1), st.floats(0, GAIN_MS - 1)), min_size=3, max_size=60),
)
def test_noise_around_equal_ways_never_moves(base_ms: float, noise: list[tuple[float, float]]) -> None:
    assert moves([(base_ms + here, [way("b", base_ms + there)]) for here, there in noise]) == []


@settings(max_examples=300, deadline=None)
@given(
    st.floats(60, 2_000), st.floats(0.01, 0.99), st.lists(st.floats(0, 500), min_size=WINDOWS, max_size=20)
)
def test_a_lasting_gain_always_moves_in_the_third_window(
    there_ms: float, over: float, noise: list[float]
) -> None:
    least_ms = max(GAIN_MS + there_ms, there_ms / (1 - GAIN_SHARE)) + over
    found = moves([(least_ms + n, [way("a", least_ms), way("b", there_ms)]) for n in noise])
    assert found[0][0] == WINDOWS - 1 and found[0][1].region == "b"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, WINDOWS - 1), min_size=1, max_size=20), st.lists(st.integers(1, 3), min_size=20)
)
def test_what_flaps_within_three_windows_never_moves(better: list[int], worse: list[int]) -> None:
    windows: list[Window] = []
    for good, bad in zip(better, worse, strict=False):
        windows += [(400.0, [way("b", 50.0)])] * good + [(60.0, [way("b", 50.0)])] * bad
    assert moves(windows) == []


def test_of_a_window_the_least_counts_and_nothing_is_kept_beyond_it() -> None:
    lately = Lately()
    for rtt_ms in (90.0, 60.0, 300.0):
        lately.report(1, "a", rtt_ms)
    lately.report(2, "a", 10.0)
    assert lately.take() == {(1, "a"): 60.0, (2, "a"): 10.0}
    assert lately.take() == {}


def test_what_edges_witness_is_there_by_network_and_nonsense_is_not() -> None:
    learning = Learning(Fleet, SystemClock())
    one, other = learning.listen(), learning.listen()

    def seen(network: str, rtt_ms: float, samples: int = 3) -> Witnessed:
        return Witnessed(network=network, rtt_ms=rtt_ms, jitter_ms=1.0, samples=samples)

    good, bad = seen("203.0.113.0/24", 80.0), seen("203.0.113.9/24", 5.0)
    learning.heard(
        "a", Measured(callers=[good, bad, seen("198.51.100.0/24", -1.0), seen("192.0.2.0/24", 9.0, 0)])
    )
    number = learning.network("203.0.113.7")
    assert number is not None
    assert one.take() == other.take() == {(number.number, "a"): 80.0}
