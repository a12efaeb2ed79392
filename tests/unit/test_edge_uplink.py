"""What the edge's end of the uplink puts into a batch."""

from __future__ import annotations

from typing import Any

import msgspec

from app.fleet.frames import read_frame
from regions.edge.outbox import Outbox
from regions.edge.uplink import Uplink
from regions.wire import ids
from regions.wire.uplink import Events

CALL = ids.encode(ids.CALL, ids.uuid7(1_700_000_000_000, 1))


class Owner:
    """A session, as far as the uplink looks at it."""

    def __init__(self, call: str, epoch: int, events: int) -> None:
        self.call, self.epoch, self.outbox = call, epoch, Outbox(call, epoch)
        for i in range(events):
            event_id = ids.encode(ids.EVENT, ids.uuid7(1_700_000_000_000, epoch << 8 | i))
            self.outbox.add(id=event_id, type="speech.started", at_ms=0, data=b"{}")


async def test_two_owners_of_one_call_on_this_edge_do_not_meet_in_a_batch() -> None:
    """A new ticket may lead back to the edge that still has events of an earlier epoch: such a batch is refused as nonsense, and
    the uplink with it."""
    nobody: Any = None
    uplink = Uplink([], "us-east", nobody, nobody, nobody)
    owners = [Owner(CALL, 1, 2), Owner(CALL, 4, 3)]
    for owner in owners:
        uplink.notify(owner)  # type: ignore[arg-type]
    batches: list[Events] = []
    while (batch := uplink._next_batch()) is not None:
        batches.append(batch)
    for batch in batches:
        assert read_frame(msgspec.json.encode(batch).decode()) == batch
    sent = [(run.epoch, len(run.events)) for batch in batches for run in batch.calls]
    assert sorted(sent) == [(1, 2), (4, 3)]
