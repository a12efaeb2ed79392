"""Where an edge's uplink goes next."""

from __future__ import annotations

from regions.edge.retry import PAUSE_MAX_S, PAUSE_MIN_S, STEADY_S, Retry

URLS = ["a", "b", "c"]


def attempts(retry: Retry, *served_s: float) -> list[tuple[str, float]]:
    return [(retry.url(URLS), retry.ended(URLS, s)) for s in served_s]


def test_every_url_is_tried_before_there_is_a_pause_and_pauses_grow_by_the_round() -> None:
    assert attempts(Retry(), *[0.0] * 7) == [
        ("a", 0.0), ("b", 0.0), ("c", PAUSE_MIN_S), ("a", 0.0), ("b", 0.0), ("c", 2 * PAUSE_MIN_S), ("a", 0.0),
    ]  # fmt: skip


def test_an_uplink_that_was_good_is_followed_by_the_next_url_at_once() -> None:
    retry = Retry()
    attempts(retry, *[0.0] * 5)
    assert attempts(retry, STEADY_S, 0.0, 0.0) == [("c", 0.0), ("a", 0.0), ("b", PAUSE_MIN_S)]


def test_an_uplink_that_ends_at_once_each_time_is_not_opened_without_pause() -> None:
    pauses = [pause for _, pause in attempts(Retry(), *[STEADY_S / 2] * 60)]
    assert sum(p > 0 for p in pauses) == 20
    assert max(pauses) == PAUSE_MAX_S


def test_the_only_url_is_never_tried_without_pause() -> None:
    retry = Retry()
    for served_s in (0.0, STEADY_S, 0.0):
        assert retry.url(["a"]) == "a"
        assert retry.ended(["a"], served_s) >= PAUSE_MIN_S
