"""The quick histogram says what the library's would say, to the byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from app.tallies import Tallies
from app.telemetry import FAST_S

SECONDS = st.one_of(st.floats(0, 100), st.sampled_from([*FAST_S, 0.0, 1e9]))


@given(st.lists(st.tuples(st.sampled_from("ab"), SECONDS), max_size=30))
def test_it_says_what_the_librarys_says(seen: list[tuple[str, float]]) -> None:
    said = []
    for kind in (Tallies, Histogram):
        registry = CollectorRegistry()
        histogram = kind("took_seconds", "How long.", ["stage"], buckets=FAST_S, registry=registry)
        for stage, seconds in seen:
            histogram.labels(stage).observe(seconds)
        lines = generate_latest(registry).decode().splitlines()
        said.append([line for line in lines if "_created" not in line])
    assert said[0] == said[1]
