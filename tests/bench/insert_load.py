"""A process of its own that inserts the same rows without asking anything: ``python -m tests.bench.insert_load DSN CALLS EXCHANGES``.

``INSERT … SELECT FROM unnest`` into `vx.events` itself, so the indexes and the partitions are the same; as the superuser, so
row-level security is not asked; batches of the same size, as many under way at a time as an uplink has, each its own
transaction on its own connection. Calls are made up, content is random bytes of the length that sealing gives. The rows
stand in memory as the driver wants them before the clock starts. Prints rows and seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import uvloop

from app.ids import new_id
from regions.wire.events import EVENT_TYPES
from regions.wire.uplink import BATCHES_IN_FLIGHT_MAX, EVENTS_PER_BATCH_MAX
from tests.bench.talk import exchange

SEALING_BYTES = 28
HASH_BYTES = 16

INSERT = """
insert into vx.events (call_id, seq, project_id, id, type, epoch, source, origin_epoch, origin_n, region, at, data,
                       content, hash, feed_xid)
select call_id, n, $1, event_id, type, 1, 'edge', 1, n, 'us-east', at, data, content, hash,
       pg_current_xact_id()::text::bigint
  from unnest($2::uuid[], $3::integer[], $4::uuid[], $5::text[], $6::timestamptz[], $7::jsonb[], $8::bytea[], $9::bytea[])
       as g(call_id, n, event_id, type, at, data, content, hash)
"""

Batch = tuple[list[Any], ...]


def batch(calls: list[UUID], number: int) -> Batch:
    rows = []
    at = datetime.now(UTC)
    said = exchange(number)
    for call in calls:
        for i, (type_, data) in enumerate(said, 1):
            raw = msgspec.json.encode(data)
            content = os.urandom(len(raw) + SEALING_BYTES) if EVENT_TYPES[type_].content else None
            rows.append(
                (
                    call,
                    number * len(said) + i,
                    new_id(),
                    type_,
                    at,
                    None if content else raw.decode(),
                    content,
                    os.urandom(HASH_BYTES),
                )
            )
    return tuple(list(column) for column in zip(*rows, strict=True))


async def main(dsn: str, calls: int, exchanges: int) -> None:
    project = uuid4()
    made_up = [new_id() for _ in range(calls)]
    per_batch = EVENTS_PER_BATCH_MAX // len(exchange(0))
    lanes = [made_up[i : i + per_batch] for i in range(0, calls, per_batch)]
    due = iter([batch(lane, number) for number in range(exchanges) for lane in lanes])
    connections = [await asyncpg.connect(dsn) for _ in range(BATCHES_IN_FLIGHT_MAX)]
    statements = [await c.prepare(INSERT) for c in connections]

    async def insert(statement: Any) -> None:
        for columns in due:
            await statement.fetch(project, *columns)

    began = time.perf_counter()
    await asyncio.gather(*(insert(statement) for statement in statements))
    seconds = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    print(json.dumps({"events": calls * exchanges * len(exchange(0)), "seconds": seconds}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
