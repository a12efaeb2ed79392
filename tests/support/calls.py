"""A call whose owners write to it as edges do, without edges."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec
import redis.asyncio as redis

from app.ids import new_id
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.events import EdgeEvent, Origin
from regions.wire.keeping import opening
from regions.wire.snapshot import TAIL_FIELDS, Tail, read_tail, tail_key
from regions.wire.uplink import AppendStatus, CallEvents
from tests.support.api import Api, Project
from tests.support.fleet import add_region

WITHIN_S = 15.0
AT_MS = 1_700_000_000_123


async def owners_in(api: Api, regions: tuple[str, ...]) -> list[EdgeIdentity]:
    made = [(region, await add_region(api, region)) for region in regions]
    return [EdgeIdentity(edge, incarnation, region) for region, (edge, incarnation) in made]


@dataclass(slots=True)
class WrittenCall:
    """`owners`: by epoch, the primary first. `ticket`: its caller's. `seq`: the newest that was written here."""

    id: str
    owners: list[EdgeIdentity]
    project: Project
    ticket: str
    seq: int = 0

    async def append(self, api: Api, epoch: int, *events: EdgeEvent) -> AppendStatus:
        """As the owner of that epoch, through that instance; again while somebody else has the call locked."""
        run = CallEvents(call=self.id, epoch=epoch, events=list(events))
        async with asyncio.timeout(WITHIN_S):
            while True:
                (status,) = await api.control.appender.append(self.owners[epoch - 1], [run])
                if status.status != "busy":
                    break
        assert status.status == "durable", status
        self.seq = max(self.seq, status.seq or 0)
        return status

    async def write(self, **entry: Any) -> Any:
        answer = await self.project.client.post(f"/v1/calls/{self.id}/conversation", json=entry)
        self.seq = max(self.seq, answer.json().get("seq") or 0)
        return answer

    async def read(self, **asked: Any) -> Any:
        """What was written here is waited for, since any other test's transaction holds the durable horizon back."""
        asked = {"min_seq": self.seq, "wait_ms": 10_000} | asked
        return await self.project.client.get(f"/v1/calls/{self.id}/conversation", params=asked)


async def create_call(project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    latencies = [{"region": o.region, "rtt_ms": 20 + 60 * i} for i, o in enumerate(owners)]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": latencies}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    return WrittenCall(made.json()["id"], owners, project, made.json()["ticket"])


def event(n: int, type_: str = "speech.started", *, origin: Origin | None = None, **data: Any) -> EdgeEvent:
    event_id = ids.encode(ids.EVENT, new_id())
    raw = msgspec.Raw(msgspec.json.encode(data))
    return EdgeEvent(n=n, id=event_id, type=type_, at_ms=AT_MS + n, data=raw, origin=origin)


def said(n: int, role: str, text: str) -> EdgeEvent:
    return event(n, "turn.ended", role=role, text=text)


async def tail_in(api: Api, url: str, call: str) -> Tail | None:
    async with redis.from_url(url) as client:
        head, turns = await client.hmget(tail_key(call), TAIL_FIELDS)
    opened = opening(lambda: api.control.keyring.fleet_secrets)
    return read_tail(head, turns, opened) if head is not None else None


async def tail_at(api: Api, url: str, call: str, seq: int) -> Tail:
    """The region's tail of `call` once it stands at `seq` or above."""
    async with asyncio.timeout(WITHIN_S):
        while (tail := await tail_in(api, url, call)) is None or tail.seq < seq:
            await asyncio.sleep(0.01)
    return tail
