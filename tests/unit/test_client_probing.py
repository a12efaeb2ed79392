"""What a client makes of the samples that have come back."""

from __future__ import annotations

import pytest

from voxplane.probing import Samples


@pytest.mark.parametrize(
    ("rtts_ms", "out_since_ms", "now_ms", "loss"),
    [
        ([80.0], None, 300.0, 0.0),
        ([80.0], 200.0, 300.0, 0.0),
        ([80.0], 50.0, 300.0, 0.5),
        ([5.0, 6.0, 7.0], 100.0, 300.0, 0.25),
    ],
)
def test_a_sample_that_may_still_come_back_is_not_lost(
    rtts_ms: list[float], out_since_ms: float | None, now_ms: float, loss: float
) -> None:
    assert Samples(rtts_ms, out_since_ms).loss(now_ms) == loss
