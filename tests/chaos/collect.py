"""What the log and REST say once all is quiet: the last page of the history.

Decides when it is quiet enough to look: every call has ended or waits for its grants to expire, and every webhook and stream
has caught up; or nothing has moved for too long, and then what is missing is a violation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx

from regions.wire import ids
from tests.chaos.history import Call, Event
from voxplane import AsyncClient

LOOK_EVERY_S = 1.0
QUIET_WITHIN_S = 600.0
STILL_S = 90.0
"""A call that nobody attached to ends by itself after a minute or so in which nothing else need happen."""
AT_A_TIME = 8

ORIGINS = "select e.call_id, e.seq, e.origin_epoch, e.origin_n from vx.events e where e.origin_n is not null"
LATE = "select count(*) from vx.late_events"
STANDING = "select id, seq, ended_at is not null as ended from vx.calls"

Origins = dict[tuple[str, int], tuple[int, int]]


async def until_quiet(
    dsn: str, operator: Callable[[], httpx.AsyncClient], arrived: Callable[[], list[int]]
) -> dict[str, str]:
    """`arrived`: how many events each reader and the webhooks have got. The calls that still wait, and why."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUIET_WITHIN_S
    moved_s, before = loop.time(), [0]
    waiting: dict[str, str] = {}
    while True:
        rows = await _rows(dsn, STANDING)
        unended = [r for r in rows if not r["ended"]]
        if unended:
            waiting = await _waiting(operator)
        events = sum(r["seq"] for r in rows)
        if not unended and all(n >= events for n in arrived()):
            return {}
        now = [events, len(unended), *arrived()]
        if now != before:
            moved_s, before = loop.time(), now
        if loop.time() > min(deadline, moved_s + STILL_S):
            return waiting
        await asyncio.sleep(LOOK_EVERY_S)


async def _waiting(operator: Callable[[], httpx.AsyncClient]) -> dict[str, str]:
    """Only those that an edge may hold which cannot be asked: all others the reconciler has to have ended."""
    async with operator() as client:
        found = (await client.get("/admin/v1/calls/waiting", params={"limit": 200})).json()["data"]
    waits: dict[str, str] = {}
    for call in found:
        answers = {edge["answer"] for edge in call["edges"]}
        if "silent" in answers:
            waits[call["call_id"]] = f"{call['reason']}: {sorted(answers)}, until {call['grants_expire_at']}"
    return waits


async def complete(
    client: AsyncClient, dsn: str, known: dict[str, Call], waiting: dict[str, str]
) -> tuple[list[Call], int]:
    """Every call of the project as REST has it, joined with what its caller saw; and how many events are kept as late."""
    origins = await _origins(dsn)
    late = (await _rows(dsn, LATE))[0]["count"]
    limit = asyncio.Semaphore(AT_A_TIME)
    listed = [view async for view in client.list_calls(limit=200)]

    async def one(view: dict[str, Any]) -> Call:
        call = known.get(view["id"]) or Call(view["id"], view["metadata"]["name"])
        async with limit:
            events = await client.events_of(call.id)
            turns = await _turns(client, call.id)
            now = await client.get_call(call.id)
        call.state, call.seq, call.end_reason = now["state"], now["seq"], now["end_reason"]
        call.turns = turns
        call.waiting = waiting.get(call.id, "")
        call.events = [
            Event(
                e["seq"], e["id"], e["type"], e["epoch"], e["region"], e["data"],
                origins.get((call.id, e["seq"])),
            )
            for e in events
        ]  # fmt: skip
        return call

    calls = await asyncio.gather(*(one(view) for view in listed))
    # a call that a create has answered and no list has is lost
    lost = [call for call_id, call in known.items() if call_id not in {c.id for c in calls}]
    return [*calls, *lost], late


async def _turns(client: AsyncClient, call_id: str) -> list[dict[str, Any]]:
    """The whole conversation, page by page into the past."""
    page = await client.conversation(call_id)
    found: list[dict[str, Any]] = page["turns"]
    while page["next_before_seq"] is not None:
        page = await client.conversation(call_id, before_seq=page["next_before_seq"])
        found = page["turns"] + found
    return found


async def _origins(dsn: str) -> Origins:
    return {
        (ids.encode(ids.CALL, r["call_id"]), r["seq"]): (r["origin_epoch"], r["origin_n"])
        for r in await _rows(dsn, ORIGINS)
    }


async def _rows(dsn: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()
