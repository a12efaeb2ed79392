"""The append and its verdicts on the real database: fence, density, duplicates, adoption, the final event."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from app.fleet.frames import BadFrame, check_event
from app.ids import new_id
from app.log.append import APPEND, EdgeIdentity
from app.log.given import rows_of
from regions.edge.journal import Journal
from regions.wire import ids
from regions.wire.events import EdgeEvent, Origin, Source
from regions.wire.uplink import AppendStatus, CallEvents
from tests.support.api import Api, Project
from tests.support.fleet import add_region


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    """The primary's edge and its standbys', in order."""
    made = [(r, await add_region(api, r)) for r in ("us-east", "eu-west", "ap-south")]
    return [EdgeIdentity(edge, incarnation, region) for region, (edge, incarnation) in made]


class Log:
    """One call, and how its owners write to it."""

    def __init__(self, api: Api, call: str, owners: list[EdgeIdentity]) -> None:
        self.api, self.call, self.owners = api, call, owners

    async def append(self, epoch: int, *events: EdgeEvent, edge: EdgeIdentity | None = None) -> AppendStatus:
        run = CallEvents(call=self.call, epoch=epoch, events=list(events))
        return (await self.api.control.appender.append(edge or self.owners[epoch - 1], [run]))[0]

    async def stored(self) -> list[tuple[int, int, str]]:
        rows = await self.rows("select seq, epoch, type from vx.events where call_id = $1 order by seq")
        return [tuple(r) for r in rows]

    async def rows(self, statement: str) -> list[Any]:
        connection = await asyncpg.connect(self.api.settings.database_url)
        try:
            return await connection.fetch(statement, ids.decode(ids.CALL, self.call))
        finally:
            await connection.close()


@pytest.fixture
async def log(api: Api, project: Project, owners: list[EdgeIdentity]) -> Log:
    latencies = [{"region": o.region, "rtt_ms": 20 + 60 * i} for i, o in enumerate(owners)]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": latencies}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    return Log(api, made.json()["id"], owners)


def event(
    n: int, type_: str = "speech.started", data: dict[str, Any] | None = None, **more: Any
) -> EdgeEvent:
    raw = msgspec.Raw(msgspec.json.encode(data or {}))
    return EdgeEvent(
        n=n, id=ids.encode(ids.EVENT, new_id()), type=type_, at_ms=1_700_000_000_000, data=raw, **more
    )


def again(e: EdgeEvent, n: int, epoch: int) -> EdgeEvent:
    """The same event, as a successor adopts it."""
    return msgspec.structs.replace(e, n=n, origin=Origin(epoch=epoch, n=e.n))


async def test_events_get_dense_numbers_and_a_resend_changes_nothing(log: Log) -> None:
    run = [event(1, "call.answered"), event(2), event(3)]
    first = await log.append(1, *run)
    second = await log.append(1, *run)
    assert (first.status, first.durable_n, first.seq) == ("durable", 3, 4)
    assert (second.status, second.durable_n, second.seq) == ("durable", 3, 4)
    assert [s for s, _, _ in await log.stored()] == [1, 2, 3, 4]


async def test_a_gap_names_where_to_go_on(log: Log) -> None:
    await log.append(1, event(1))
    answer = await log.append(1, event(3))
    assert (answer.status, answer.durable_n) == ("gap", 1)
    assert len(await log.stored()) == 2


async def test_the_same_number_with_another_content_is_a_conflict(log: Log) -> None:
    await log.append(1, event(1))
    assert (await log.append(1, event(1))).status == "conflict"
    assert len(await log.stored()) == 2


async def test_only_the_edge_and_incarnation_that_was_granted_an_epoch_may_write_at_it(log: Log) -> None:
    stranger = EdgeIdentity(new_id(), uuid4(), "us-east")
    restarted = EdgeIdentity(log.owners[0].edge_id, uuid4(), "us-east")
    for edge in (stranger, restarted, log.owners[1]):
        assert (await log.append(1, event(1), edge=edge)).status == "refused"
    assert (await log.append(9, event(1), edge=stranger)).status == "refused"
    assert len(await log.stored()) == 1


async def test_what_a_successor_brings_after_all_is_late_no_longer(log: Log) -> None:
    """The spool of the owner before may be flushed between two batches of its successor."""
    lost = [event(1, "call.answered"), event(2), event(3)]
    assert (await log.append(2, event(1, "call.reconnecting"))).status == "durable"
    assert (await log.append(1, *lost)).status == "fenced"
    late = "select origin_n from vx.late_events where call_id = $1 order by 1"
    assert [r["origin_n"] for r in await log.rows(late)] == [1, 2, 3]
    assert (await log.append(2, again(lost[0], 2, 1), again(lost[1], 3, 1))).status == "durable"
    assert [r["origin_n"] for r in await log.rows(late)] == [3]
    assert len(await log.stored()) == 4


async def test_a_run_that_adopts_an_event_twice_is_refused_and_holds_no_other_up(log: Log) -> None:
    lost = event(1, "speech.started")
    run = [event(1, "call.reconnecting"), again(lost, 2, 1), again(lost, 3, 1)]
    assert (await log.append(2, *run)).status == "refused"
    assert (await log.append(2, *run[:2])).status == "durable"
    assert len(await log.stored()) == 3


async def test_a_higher_epoch_fences_the_lower_for_ever(log: Log) -> None:
    await log.append(1, event(1, "call.answered"))
    assert (await log.append(2, event(1, "call.reconnecting"))).status == "durable"
    fenced = await log.append(1, event(2))
    assert (fenced.status, fenced.end_reason) == ("fenced", ""), "another has the call"
    assert (await log.append(3, event(1, "call.reconnecting"))).status == "durable"
    assert (await log.append(2, event(2))).status == "fenced"
    assert [e for _, e, _ in await log.stored()] == [1, 1, 2, 3]
    late = await log.rows("select origin_epoch, origin_n from vx.late_events where call_id = $1 order by 1")
    assert [tuple(r) for r in late] == [(1, 2), (2, 2)]


async def test_adoption_stores_what_is_missing_and_nothing_twice(log: Log) -> None:
    first, second, third = event(1, "call.answered"), event(2), event(3)
    await log.append(1, first, second)
    taken = await log.append(
        2, event(1, "call.reconnecting"), again(second, 2, 1), again(third, 3, 1), event(4)
    )
    assert (taken.status, taken.durable_n, taken.seq) == ("durable", 4, 6)
    old = await log.append(1, third)
    assert old.status == "durable"
    assert (await log.append(1, event(3))).status == "fenced"
    assert len(await log.stored()) == 6


async def test_the_final_event_stands_above_every_grant_and_nothing_follows(log: Log) -> None:
    end = event(2, "call.ended", {"end_reason": "caller_hung_up"})
    await log.append(1, event(1, "call.answered"), end)
    assert (await log.append(1, end)).status == "durable"
    for over in (await log.append(1, event(3)), await log.append(2, event(1, "call.reconnecting"))):
        assert (over.status, over.end_reason) == ("fenced", "caller_hung_up"), "nobody has it"
    assert (await log.stored())[-1] == (3, 4, "call.ended")
    row = (await log.rows("select state, end_reason, epoch, seq from vx.calls where id = $1"))[0]
    assert tuple(row) == ("completed", "caller_hung_up", 4, 3)


async def test_a_locked_call_is_busy_and_the_others_go_on(log: Log) -> None:
    connection = await asyncpg.connect(log.api.settings.database_url)
    try:
        async with connection.transaction():
            await connection.execute(
                "select from vx.calls where id = $1 for update", ids.decode(ids.CALL, log.call)
            )
            assert (await log.append(1, event(1))).status == "busy"
    finally:
        await connection.close()
    assert (await log.append(1, event(1))).status == "durable"


async def test_racing_owners_leave_one_dense_history(log: Log) -> None:
    async def own(epoch: int) -> None:
        for n in range(1, 15):
            item = event(n)
            while (answer := await log.append(epoch, item)).status == "busy":
                await asyncio.sleep(0)
            if answer.status == "fenced":
                return

    await asyncio.gather(own(1), own(2), own(3))
    stored = await log.stored()
    assert [s for s, _, _ in stored] == list(range(1, len(stored) + 1))
    epochs = [e for _, e, _ in stored]
    assert epochs == sorted(epochs)
    assert epochs.count(3) == 14


async def test_control_writes_are_stored_once_per_key(api: Api, project: Project, log: Log) -> None:
    project_id, call_id = ids.decode(ids.PROJECT, project.id), ids.decode(ids.CALL, log.call)

    async def write(reason: str, key: str, owner: UUID = project_id) -> str:
        data = {"end_reason": reason}
        outcome = await api.control.appender.control(
            owner, call_id, type="call.ended", data=data, source=Source.CONTROL, source_key=key
        )
        return outcome.status

    foreign = ids.decode(ids.PROJECT, (await api.project()).id)
    assert await write("ended_by_api", "end", foreign) == "unknown"
    racing = await asyncio.gather(*(write("ended_by_api", "end") for _ in range(5)))
    assert sorted(racing) == ["duplicate"] * 4 + ["stored"]
    assert [await write("ended_by_api", "end"), await write("canceled", "end"), await write("x", "other")] == [
        "duplicate", "conflict", "ended",
    ]  # fmt: skip
    assert len(await log.stored()) == 2


async def test_content_is_not_readable_in_the_database(log: Log) -> None:
    await log.append(1, event(1, "turn.ended", {"role": "caller", "text": "a canary sings"}))
    row = (await log.rows("select data, content from vx.events where call_id = $1 and seq = 2"))[0]
    assert row["data"] is None
    assert b"canary" not in row["content"]


async def test_turns_fold_into_the_conversation(project: Project, log: Log) -> None:
    written = await log.append(
        1,
        event(1, "turn.ended", {"role": "caller", "text": "hello"}),
        event(2, "tool.called", {"id": "t", "name": "look", "arguments": {"a": 1}}),
        event(3, "tool.result", {"id": "t", "result": [1]}),
        event(4, "turn.interrupted", {"role": "agent", "text": "it"}),
    )
    asked = {"min_seq": written.seq, "wait_ms": 10_000}
    read = (await project.client.get(f"/v1/calls/{log.call}/conversation", params=asked)).json()
    assert [(t["role"], t.get("text") or t.get("result")) for t in read["turns"]] == [
        ("caller", "hello"), ("tool", [1]), ("agent", "it"),
    ]  # fmt: skip
    early = await project.client.get(f"/v1/calls/{log.call}/conversation", params={"min_seq": 99})
    assert (early.status_code, early.json()["code"]) == (409, "not_yet")


def lost(n: int, from_n: int, epoch: int = 1) -> EdgeEvent:
    return event(n, "events.lost", {"epoch": epoch, "from_n": from_n, "to_n": n, "reason": "spool"})


async def test_numbers_that_are_lost_for_good_do_not_wedge_the_call(log: Log) -> None:
    await log.append(1, event(1, "call.answered"))
    answer = await log.append(1, lost(5, 2), event(6))
    assert (answer.status, answer.durable_n, answer.seq) == ("durable", 6, 4)
    assert [t for _, _, t in await log.stored()] == [
        "call.created", "call.answered", "events.lost", "speech.started",
    ]  # fmt: skip
    turned_up = [event(3), event(4)]
    for _ in range(2):
        assert (await log.append(1, *turned_up)).status == "durable"
    assert len(await log.stored()) == 4
    late = await log.rows("select origin_epoch, origin_n from vx.late_events where call_id = $1 order by 2")
    assert [tuple(r) for r in late] == [(1, 3), (1, 4)]


async def test_a_log_that_lost_what_it_had_acknowledged_is_told_so_and_the_call_goes_on(log: Log) -> None:
    journal = Journal(log.call, 1, lambda: ids.encode(ids.EVENT, new_id()), lambda: None)

    async def flush() -> AppendStatus:
        run = journal.outbox.run()
        journal.outbox.sent(run)
        return await log.append(1, *run)

    for _ in range(4):
        journal.record("speech.started", {})
    journal.acknowledged((await flush()).durable_n)
    assert journal.outbox.settled
    await log.rows("delete from vx.events where call_id = $1 and seq > 2 returning seq")
    await log.rows("update vx.calls set n = 1, seq = 2 where id = $1 returning id")
    journal.record("call.ended", {"end_reason": "caller_hung_up"})
    gap = await flush()
    assert (gap.status, gap.durable_n) == ("gap", 1)
    journal.go_on_from(gap.durable_n)
    assert [(e.n, e.type) for e in journal.outbox.unacked] == [(4, "events.lost"), (5, "call.ended")]
    answer = await flush()
    assert (answer.status, answer.durable_n) == ("durable", 5)
    journal.acknowledged(answer.durable_n)
    assert journal.outbox.settled
    assert [t for _, _, t in await log.stored()][1:] == ["speech.started", "events.lost", "call.ended"]


async def test_a_lost_range_fills_nothing_but_its_own_numbers(log: Log) -> None:
    await log.append(1, event(1))
    for nonsense in (lost(5, 3), lost(5, 2, epoch=2), lost(5, 6), event(5, "events.lost", {"from_n": 2})):
        assert (await log.append(1, nonsense)).status == "gap"
    for run in ([event(2), lost(5, 2)], [lost(3, 2), event(5)], [event(2), event(4), lost(5, 4)]):
        assert (await log.append(1, *run)).status == "refused"
    taken = await log.append(2, event(1, "call.reconnecting"), again(lost(5, 2), 2, 1))
    assert (taken.status, taken.durable_n) == ("durable", 2)


@pytest.mark.parametrize("numbers", [(1, 1, 3), (1, 3), (2, 1)])
async def test_a_run_that_is_not_dense_is_refused_however_it_looks(
    log: Log, numbers: tuple[int, ...]
) -> None:
    answer = await log.append(1, *[event(n) for n in numbers])
    dense = sorted(numbers) == list(range(1, len(numbers) + 1))
    assert answer.status == ("durable" if dense else "refused")
    assert len(await log.stored()) == 1 + (len(numbers) if dense else 0)


async def test_runs_that_are_given_through_each_other_are_judged_each_by_itself(
    log: Log, project: Project, api: Api, owners: list[EdgeIdentity]
) -> None:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"pin": owners[0].region}}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    gap, whole = ids.decode(ids.CALL, log.call), ids.decode(ids.CALL, made.json()["id"])
    key = (await api.control.vault.for_project(ids.decode(ids.PROJECT, project.id))).new_call(gap)
    rows = [
        rows_of(call, CallEvents(call="", epoch=1, events=[event(n)]), key)[0]
        for call, n in ((gap, 1), (whole, 1), (gap, 3))
    ]
    async with api.control.db.pool("append").acquire() as connection:
        found = await connection.fetch(APPEND, owners[0].edge_id, owners[0].incarnation, "r", rows)
    assert {row["call_id"]: row["status"] for row in found} == {gap: "refused", whole: "durable"}


async def test_what_is_adopted_in_the_midst_of_an_epoch_keeps_its_origin(log: Log) -> None:
    lost = event(1)
    await log.append(2, event(1, "call.reconnecting"))
    assert (await log.append(2, event(2), again(lost, 3, 1))).status == "durable"
    origins = await log.rows(
        "select origin_epoch, origin_n from vx.events where call_id = $1 and origin_n is not null order by seq"
    )
    assert [tuple(o) for o in origins] == [(2, 1), (2, 2), (1, 1)]


DOCUMENTS = [
    rb'{"x":"\\u0000"}', rb'{"\\u0000":1}', rb'{"x":"\\\u0000"}', rb'{"x":"\u0000"}', rb'{"x":"\\\\u0000"}', rb'{"\u0000":1}',
    rb'{"x":1e1000}', rb'{"x":1E-1000}', rb'{"x":1e131072}', rb'{"x":1e-99999}', rb'{"x":"1e99999"}', rb'{"x":-1.5E+9999999}',
    rb'{"x":1e9999999999999999999}', rb'{"x":1e0001}', rb'{"x":' + b"9" * 5_000 + b"}", b'{"x":"\xff"}', '{"x":"ü"}'.encode(),
    b'{"x":' + b"[" * 400 + b"]" * 400 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("raw", DOCUMENTS, ids=range(len(DOCUMENTS)))
async def test_what_is_let_in_can_be_stored_and_what_cannot_is_not_let_in(log: Log, raw: bytes) -> None:
    given = msgspec.structs.replace(event(1), data=msgspec.Raw(raw))
    try:
        check_event(given, 1)
    except BadFrame:
        stored = False
    else:
        stored = True
        assert (await log.append(1, given)).status == "durable"
    connection = await asyncpg.connect(log.api.settings.database_url)
    try:
        await connection.fetchval("select convert_from($1, 'UTF8')::jsonb::text", raw)
    except asyncpg.PostgresError:
        assert not stored
    else:
        assert stored or b"e" in raw.lower(), "a number of a thousand digits nobody needs"
    finally:
        await connection.close()


async def test_what_only_the_database_finds_unfit_is_found_by_halves_and_replaced(log: Log) -> None:
    nul = msgspec.Raw(rb'{"x":"\u0000"}')
    run = [event(n) if n != 3 else msgspec.structs.replace(event(n), data=nul) for n in range(1, 6)]
    for stored in (5, 0):
        answer = await log.append(1, *run)
        assert (answer.status, answer.durable_n, answer.stored) == ("durable", 5, stored)
    types = await log.rows("select type from vx.events where call_id = $1 order by seq")
    assert [r["type"] for r in types].count("events.lost") == 1
    last = msgspec.structs.replace(event(6, "call.ended"), data=nul)
    assert (await log.append(1, last)).status == "durable"
