"""The detector in its own world, in small: seeds that stay clean, each check seen to notice, and that a seed replays."""

from __future__ import annotations

import pytest

from tests.simulation.watch_mutations import WATCH_MUTATIONS, watch_with

NOTICED_BY = {"third": 25, "silence": 1, "lag": 1, "recovery": 1, "reports": 1}
"""A seed that is known to; which of them it is changes with every pause in the detector: `make sim ONLY=mutations` tells."""


@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_breaks(seed: int) -> None:
    world = watch_with(seed)
    assert world.violation is None
    assert not world.loop.unhandled
    assert world.counts["transitions"]


@pytest.mark.parametrize("name", WATCH_MUTATIONS)
def test_what_is_switched_off_is_noticed(name: str) -> None:
    assert watch_with(NOTICED_BY[name], name).violation is not None


def test_a_seed_replays() -> None:
    one, other = watch_with(3), watch_with(3)
    assert (one.loop.steps, one.counts) == (other.loop.steps, other.counts)
