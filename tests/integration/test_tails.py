"""The tail of a call: in the memory of every region that may have to serve it, folded from what the log has stored."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec
import redis.asyncio as redis

from app.ids import new_id
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.events import EdgeEvent
from regions.wire.snapshot import Tail, tail_decoder, tail_key
from regions.wire.uplink import CallEvents
from tests.support.api import Api, Project
from tests.support.engines import REGIONS
from tests.support.fleet import add_region

WITHIN_S = 10.0


def said(n: int, role: str, text: str) -> EdgeEvent:
    data = msgspec.Raw(msgspec.json.encode({"role": role, "text": text}))
    event_id = ids.encode(ids.EVENT, new_id())
    return EdgeEvent(n=n, id=event_id, type="turn.ended", at_ms=1_700_000_000_000, data=data)


async def tail_at(url: str, call: str, seq: int) -> Tail:
    """The region's tail of `call` once it stands at `seq`."""
    async with redis.from_url(url) as client, asyncio.timeout(WITHIN_S):
        while True:
            found = await client.get(tail_key(call))
            if found is not None and (tail := tail_decoder.decode(found)).seq >= seq:
                return tail
            await asyncio.sleep(0.01)


async def test_what_was_said_stands_in_every_region_of_the_call(api: Api, project: Project) -> None:
    placed = [await add_region(api, region) for region in REGIONS]
    latencies = [{"region": region, "rtt_ms": 20 + 60 * i} for i, region in enumerate(REGIONS)]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": latencies}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    call = made.json()["id"]
    owner = EdgeIdentity(*placed[0], REGIONS[0])
    for n, event in enumerate((said(1, "caller", "where is it"), said(2, "agent", "on its way")), start=1):
        run = CallEvents(call=call, epoch=1, events=[event])
        (status,) = await api.control.appender.append(owner, [run])
        assert status.status == "durable"
        for region in REGIONS:
            tail = await tail_at(api.settings.redis_urls[region], call, status.seq)
            assert (tail.epoch, tail.n) == (1, n)
    assert [(t.role, t.text) for t in tail.turns] == [("caller", "where is it"), ("agent", "on its way")]
    assert api.control.supervisor.unhealthy == []
