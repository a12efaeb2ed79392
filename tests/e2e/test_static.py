"""Static stability, in short: everything but the edges is killed and started again, and no call is any the worse for it.

The ten minutes that are promised take ten minutes: `make static`.
"""

from __future__ import annotations

import pytest

from tests.chaos import static_stability
from tests.chaos.static_stability import Options, deployed
from voxplane import watch

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OUTAGE_S = 4.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may hold an edge up for seconds: here a call moves because its edge dies, and pauses are no breach."""
    monkeypatch.setattr(watch, "PREPARE_AFTER_MS", 20_000)
    monkeypatch.setattr(watch, "TAKE_AFTER_MS", 25_000)
    monkeypatch.setattr(static_stability, "SILENT_SECONDS_MAX", 20)


async def test_calls_outlive_everything_but_their_edges_and_all_is_told_afterwards() -> None:
    async with deployed(fsync=False) as deployment:
        seen = await static_stability.run(
            Options(length_s=OUTAGE_S, calls=3, tickets=2, fluent_s=1.0), deployment
        )
    assert seen.breaches == []
    assert seen.killed
    assert seen.gaps_s, "the calls of the edge that died have moved"
    assert len(seen.history.calls) == 5
    told: set[str] = {e.type for c in seen.history.calls for e in c.events}
    assert {"tool.called", "dtmf.received", "turn.ended", "call.reconnecting", "call.reconnected"} <= told
    assert "events.lost" not in told, (
        "there was room for all of it, with the edges and in the callers' snapshots"
    )
