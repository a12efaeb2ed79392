"""Until when an edge may carry out a hang-up: the arithmetic of several clocks."""

from __future__ import annotations

from app.fleet.hang_ups import WITHIN_MS, EdgeTime, aged, body, timed
from regions.wire.uplink import Command

WRITTEN = Command(version=1, kind="hangup", body=body(1, 8))


def test_what_has_lain_too_long_is_void() -> None:
    assert timed(WRITTEN, age_s=0.5, edge_ms=5).body == {"epoch": "1", "socket": "8", "until_ms": "1005"}
    assert timed(WRITTEN, age_s=WITHIN_MS / 1000, edge_ms=5).body == {}


def test_without_its_age_or_the_edges_time_it_is_void() -> None:
    assert timed(WRITTEN, age_s=None, edge_ms=5).body == {}
    assert timed(WRITTEN, age_s=0.1, edge_ms=None).body == {}


def test_each_database_takes_off_its_part() -> None:
    once = aged(body(1, 8), 1.0)
    assert (
        timed(Command(version=1, kind="hangup", body=once), age_s=0.25, edge_ms=0).body["until_ms"] == "250"
    )
    assert aged(once, 0.5) == {} and aged({}, 0.0) == {}


def test_a_clock_that_seems_to_have_gone_back_gives_no_more_time() -> None:
    assert aged(body(1, 8), -5.0)["within_ms"] == str(WITHIN_MS)


def test_an_edges_time_is_never_put_too_late() -> None:
    """A heartbeat of 1,000 ms that took 0.3 s to come: half a second after it came the clock shows 1,800."""
    edge = EdgeTime()
    assert edge.at_least_ms(7.0) is None
    edge.heard(1_000, 7.3)
    assert edge.at_least_ms(7.8) == 1_500
