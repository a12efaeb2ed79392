"""The reconciler on the real database and real uplinks: what is overdue is asked for, and ends only where nobody can hold it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.calls import overdue
from app.calls.overdue import BATCH, Overdue
from app.calls.reconciler import Reconciler
from app.ids import new_id
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.events import EdgeEvent
from regions.wire.uplink import CallEvents
from tests.support.api import Api, Project
from tests.support.fleet import add_region

EXPIRED = """
update vx.calls set attach_by = now() - interval '2 hours', grants_expire_at = now() - interval '1 hour' where id = $1
"""
COPIES = """
insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by,
                      n, seq, feed_xid, region, edge_id, request, placement, max_duration_s, created_at, answered_at)
select uuidv7(), project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by,
       n, seq, feed_xid, region, edge_id, request, placement, max_duration_s, created_at, answered_at
  from vx.calls cross join generate_series(1, $2) where id = $1
returning id
"""


@dataclass
class Case:
    """A call with one edge per region, all on paper, and a reconciler without patience."""

    api: Api
    project: Project
    call: str
    edges: list[EdgeIdentity]
    reconciler: Reconciler
    overdue: Overdue
    told: list[tuple[UUID, int]] = field(default_factory=list)

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.api.settings.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def answer_call(self, epoch: int = 1) -> None:
        event = EdgeEvent(
            n=1,
            id=ids.encode(ids.EVENT, new_id()),
            type="call.answered" if epoch == 1 else "call.reconnecting",
            at_ms=1_700_000_000_000,
        )
        run = CallEvents(call=self.call, epoch=epoch, events=[event])
        assert (await self.api.control.appender.append(self.edges[epoch - 1], [run]))[0].status == "durable"

    async def let_go(self, edge: EdgeIdentity, epoch: int = 1) -> None:
        await self.overdue.lapsed(edge.edge_id, [(self.id, epoch)])

    async def deny(self, edge: EdgeIdentity, *, denies: bool = True) -> None:
        grants = "select array_positions(grant_edges, $2) from vx.calls where id = $1"
        epoch = max((await self.sql(grants, self.id, edge.edge_id))[0][0])
        await self.overdue.answered(edge.edge_id, edge.incarnation, [(self.id, epoch, denies)])

    async def restart(self, edge: EdgeIdentity) -> None:
        await self.sql("update vx.edges set incarnation = $2 where id = $1", edge.edge_id, uuid4())

    @property
    def id(self) -> UUID:
        return ids.decode(ids.CALL, self.call)

    async def state(self) -> tuple[str, str | None]:
        call = (await self.project.client.get(f"/v1/calls/{self.call}")).json()
        return call["state"], call["end_reason"]

    async def asked(self) -> set[UUID]:
        rows = await self.sql("select edge_id from vx.desired where kind = 'deny' and call_id = $1", self.id)
        return {r["edge_id"] for r in rows}


@pytest.fixture
async def case(api: Api, project: Project) -> Case:
    names = [f"r-{uuid4().hex[:8]}" for _ in range(3)]
    edges = [EdgeIdentity(*(await add_region(api, name)), name) for name in names]
    latencies = [{"region": name, "rtt_ms": 20 + 60 * i} for i, name in enumerate(names)]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": latencies, "regions": {"allow": names}}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    overdue = Overdue(api.control.db)
    reconciler = Reconciler(overdue, api.control.commands, api.control.appender, patience_s=0.0)
    return Case(api, project, made.json()["id"], edges, reconciler, overdue)


async def test_a_caller_that_has_gone_ends_the_call_once_every_edge_has_denied_it(case: Case) -> None:
    await case.answer_call()
    await case.reconciler.round()
    assert (await case.asked(), await case.state()) == (set(), ("in_progress", None))
    await case.let_go(case.edges[0])
    await case.reconciler.round()
    assert await case.asked() == {e.edge_id for e in case.edges}
    for edge in case.edges:
        assert await case.state() == ("in_progress", None)
        await case.deny(edge)
        await case.reconciler.round()
    assert await case.state() == ("failed", "caller_lost")
    await case.reconciler.round()
    assert await case.sql("select from vx.overdue where call_id = $1", case.id) == []
    final = await case.sql(
        "select epoch, type from vx.events where call_id = $1 order by seq desc limit 1", case.id
    )
    assert tuple(final[0]) == (4, "call.ended")


async def test_an_edge_that_holds_the_call_keeps_it_alive(case: Case) -> None:
    await case.answer_call()
    await case.let_go(case.edges[0])
    await case.reconciler.round()
    for edge in case.edges[:2]:
        await case.deny(edge)
    await case.deny(case.edges[2], denies=False)
    await case.reconciler.round()
    assert await case.state() == ("in_progress", None)
    assert await case.sql("select from vx.overdue where call_id = $1", case.id) == []


async def test_a_call_that_has_moved_on_is_not_overdue(case: Case) -> None:
    await case.answer_call()
    await case.let_go(case.edges[0])
    await case.answer_call(epoch=2)
    await case.reconciler.round()
    await case.let_go(case.edges[0])
    assert await case.sql("select from vx.overdue where call_id = $1", case.id) == []
    assert await case.asked() == set()


async def test_silence_is_no_denial(case: Case) -> None:
    await case.answer_call()
    silent = case.edges[2]
    await case.sql(
        "update vx.edges set seen_at = clock_timestamp() - interval '1 day' where id = $1", silent.edge_id
    )
    await case.restart(case.edges[0])
    await case.reconciler.round()
    assert await case.asked() == {case.edges[1].edge_id}
    await case.deny(case.edges[1])
    for _ in range(3):
        await case.reconciler.round()
    assert await case.state() == ("in_progress", None)
    waiting = (await case.api.operator.get("/admin/v1/calls/waiting")).json()["data"]
    (mine,) = [w for w in waiting if w["call_id"] == case.call]
    assert (mine["reason"], {e["region"]: e["answer"] for e in mine["edges"] if e["region"]}) == (
        "edge_lost",
        {case.edges[1].region: "denied", silent.region: "silent"},
    )
    await case.restart(silent)
    await case.reconciler.round()
    assert await case.state() == ("failed", "edge_lost")


async def test_grants_that_have_expired_need_nobodys_word(case: Case) -> None:
    await case.answer_call()
    await case.sql(EXPIRED, case.id)
    await case.reconciler.round()
    assert await case.state() == ("failed", "edge_lost")


async def test_nobody_answered(case: Case) -> None:
    await case.sql("update vx.calls set attach_by = now() - interval '1 hour' where id = $1", case.id)
    await case.reconciler.round()
    assert await case.asked() == {e.edge_id for e in case.edges}
    for edge in case.edges:
        await case.deny(edge)
    await case.reconciler.round()
    assert await case.state() == ("no_answer", "no_answer")


async def test_a_ticket_that_is_granted_while_the_edges_deny_keeps_the_call_alive(case: Case) -> None:
    """The new grant is on edges that have denied the old ones: they are asked anew."""
    await case.answer_call()
    await case.let_go(case.edges[0])
    await case.reconciler.round()
    for edge in case.edges:
        await case.deny(edge)
    granted = await case.sql(
        "select vx.grant_epochs($1, $2, $3, $4, now() + interval '1 hour')",
        ids.decode(ids.PROJECT, case.project.id), case.id, [e.edge_id for e in case.edges[:1]],
        [e.incarnation for e in case.edges[:1]],
    )  # fmt: skip
    assert granted[0][0] == 4
    await case.reconciler.round()
    assert await case.state() == ("in_progress", None)
    await case.deny(case.edges[0])
    await case.reconciler.round()
    assert await case.state() == ("failed", "caller_lost")


async def test_two_reconcilers_write_one_end(case: Case) -> None:
    await case.sql(EXPIRED, case.id)
    await asyncio.gather(*(case.reconciler.round() for _ in range(4)))
    ends = await case.sql("select from vx.events where call_id = $1 and type = 'call.ended'", case.id)
    assert len(ends) == 1


async def test_more_calls_than_are_looked_at_at_once_all_get_their_turn(case: Case) -> None:
    await case.answer_call()
    copies = {row["id"] for row in await case.sql(COPIES, case.id, BATCH + 100)}
    try:
        await case.restart(case.edges[0])
        for _ in range(2):
            await case.overdue.note()
        noted = await case.sql("select call_id from vx.overdue")
        assert copies <= {row["call_id"] for row in noted}
        asked: set[tuple[UUID, UUID]] = set()
        for _ in range(2 * len(copies) // BATCH + 1):
            asked |= {(q.call_id, q.edge_id) for q in await case.overdue.questions(0.0)}
        assert {(call, edge.edge_id) for call in copies for edge in case.edges[1:]} <= asked
    finally:
        await case.sql("delete from vx.overdue where call_id = any($1)", copies)
        await case.sql("delete from vx.calls where id = any($1)", copies)


@pytest.mark.parametrize("statement", ["SELECT_OVER", "ASK", "DROP"])
async def test_a_look_at_what_is_overdue_is_a_look_at_no_other_call(case: Case, statement: str) -> None:
    """However many run: each overdue one is found by its id."""
    text = getattr(overdue, statement)
    values = [0.0] if "$1" in text else []
    (row,) = await case.sql(f"explain (format json) {text}", *values)
    waiting, indexes = [json.loads(row[0])[0]["Plan"]], []
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        if node.get("Relation Name", "").startswith("calls_"):
            indexes.append(node.get("Index Name", node["Node Type"]))
    assert indexes and all(name.endswith("_pkey") for name in indexes), indexes
