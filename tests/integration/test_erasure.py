"""What is erased opens nowhere any more: in the log, in memory, in any region, and at no edge."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from app.erasure.region import TOMBSTONE_SEQ
from app.erasure.store import Erasure
from app.gauges import Gauges
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire import spool as names
from regions.wire.snapshot import tail_key
from tests.support.api import Api, Project, serving
from tests.support.calls import WrittenCall, create_call, event, owners_in, said, tail_at, tail_in
from tests.support.engines import REGIONS

CANARY = "canary-4f1c"
NUMBER = "+14155550123"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, REGIONS)


async def made(project: Project, **more: Any) -> str:
    body = {"agent": {"url": f"ws://127.0.0.1:9/a/{CANARY}?q=1", "parameters": {"p": CANARY}}} | more
    answer = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def told(api: Api, project: Project, erasure: str) -> dict[str, Any]:
    """Once all but the edges have done their part: these are doubles, and say so when the test wants it."""
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = (await project.client.get(f"/v1/erasures/{erasure}")).json()
            undone = {p["kind"] for p in found["places"] if p["done_at"] is None}
            if found["state"] == "done" or (found["state"] == "telling" and undone == {"edge"}):
                return found
            await asyncio.sleep(0.02)


async def open_for_s(api: Api) -> float:
    """What the metric says of the erasure that has been open longest."""
    await Gauges(api.control).look()
    shown = (await api.operator.get("/metrics")).text
    return float(shown.partition('\nvoxplane_erasure_oldest_open_seconds{cell="0"} ')[2].partition("\n")[0])


async def carried_out(api: Api, owners: list[EdgeIdentity]) -> None:
    for owner in owners:
        await api.control.fleet_store.commands_done(owner.edge_id, 1 << 40)


async def everything(api: Api, call: UUID) -> str:
    """All that the database has of a call, as somebody who owns it sees it."""
    owner = await asyncpg.connect(api.settings.database_url)
    try:
        found = ""
        for table, column in (
            ("calls", "id"), ("events", "call_id"), ("late_events", "call_id"), ("call_labels", "call_id"),
            ("idempotency", "call_id"), ("deliveries", "call_id"), ("delivery_attempts", "call_id"), ("desired", "call_id"),
        ):  # fmt: skip
            for row in await owner.fetch(f"select t::text from vx.{table} t where {column} = $1", call):
                found += row[0]
        found += str(await owner.fetch("select e::text from vx.erasures e"))
        return found
    finally:
        await owner.close()


async def test_a_call_is_erased_in_the_log_in_memory_in_every_region_and_at_its_edges(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    caller = {"from": NUMBER, "to": "+14155550199"}
    text = await made(
        project,
        caller=caller,
        metadata={"name": CANARY},
        webhook_url=f"http://127.0.0.1:9/{CANARY}",
        subject=CANARY,
    )
    placed = (await project.client.get(f"/v1/calls/{text}")).json()
    order = [placed["region"], *(s["region"] for s in placed["placement"]["standbys"])]
    call = WrittenCall(text, [next(o for o in owners if o.region == r) for r in order], project, "")
    await call.append(
        api, 1, event(1, "call.answered"), said(2, "caller", CANARY), event(3, "dtmf.received", digit="7")
    )
    await call.write(type="turn", key=CANARY, role="agent", text=CANARY)
    before = await project.client.get(f"/v1/calls/{text}/events", params={"limit": 50})
    for url in api.settings.redis_urls.values():
        await tail_at(api, url, text, call.seq)

    answer = await project.client.post(f"/v1/calls/{text}/erase")
    shown = (await project.client.get(f"/v1/calls/{text}")).json()
    assert (answer.status_code, answer.json()["state"], answer.json()["calls"]) == (202, "telling", 1)
    assert (shown["state"], shown["end_reason"], shown["metadata"], shown["webhook_url"]) == (
        "completed",
        "erased",
        {},
        None,
    )
    assert (shown["erased_at"] is not None, shown["agent"]["url"], shown["caller"]["from"]) == (
        True,
        "ws://127.0.0.1:9/",
        None,
    )
    await told(api, project, answer.json()["id"])
    found = await everything(api, ids.decode(ids.CALL, text))
    assert (
        text
        and "erased" in found
        and CANARY not in found
        and NUMBER[1:] not in found
        and CANARY.encode().hex() not in found
    )

    async with asyncio.timeout(10):
        while (
            len(
                events := (await project.client.get(f"/v1/calls/{text}/events", params={"limit": 50})).json()[
                    "data"
                ]
            )
            < call.seq + 1
        ):
            await asyncio.sleep(0.05)
    assert [e["seq"] for e in events] == list(range(1, call.seq + 2))
    known = [e["id"] for e in before.json()["data"]]
    assert [e["id"] for e in events][: len(known)] == known
    assert [e["data"] for e in events if e["type"] in ("turn.ended", "dtmf.received")] == [
        {"erased": True}
    ] * 3
    for path in (f"/v1/calls/{text}/conversation", f"/v1/calls/{text}/tools/k"):
        gone = await project.client.get(path)
        assert (gone.status_code, gone.json()["code"]) == (410, "call_erased")
    assert (await call.write(type="turn", key="k", role="agent", text="x")).status_code == 410
    for url in api.settings.redis_urls.values():
        assert await tail_in(api, url, text) is None

    # a straggler with the old number is told to send no more, and nothing of it is kept
    (status,) = await api.control.appender.append(call.owners[0], [run_of(text, said(9, "caller", CANARY))])
    assert (status.status, status.end_reason) == ("fenced", "erased")
    commands = [
        c
        for o in owners
        for c in await api.control.fleet_store.commands(o.edge_id, 0)
        if c[1] == ids.decode(ids.CALL, text)
    ]
    assert {(c.kind, c.body["end_reason"]) for c, _ in commands} == {("end", "erased")} and len(
        commands
    ) == len(order)
    await carried_out(api, owners)
    done = await told(api, project, answer.json()["id"])
    assert {p["kind"] for p in done["places"]} == {"instance", "valkey", "edge"}
    async with asyncio.timeout(10):
        while (await project.client.get(f"/v1/erasures/{done['id']}")).json()["state"] != "done":
            await asyncio.sleep(0.02)
    again = await project.client.post(f"/v1/calls/{text}/erase")
    assert (again.status_code, again.json()["id"]) == (202, done["id"])


async def test_the_key_is_gone_when_the_answer_comes_though_another_instance_is_at_it(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = api.control.erasures.worker
    drive, store = worker.drive, worker._store
    others: list[Erasure] = []

    async def after_another(only: UUID | None = None) -> None:
        if only is None:
            return
        if not others:
            claimed = await store.claim(only)
            assert claimed is not None
            others.append(claimed)
            await drive(only)
        elif len(others) == 1:
            others.append(others[0])
            await worker._destroy(others[0])
            await store.release(others[0].id, again_s=0.0)

    monkeypatch.setattr(worker, "drive", after_another)
    key = {"Idempotency-Key": str(uuid4())}
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "caller": {"from": NUMBER}}
    call = (await project.client.post("/v1/calls", json=body, headers=key)).json()["id"]
    answer = await project.client.post(f"/v1/calls/{call}/erase")
    again = await project.client.post("/v1/calls", json=body, headers=key)
    assert (answer.status_code, answer.json()["calls"], again.status_code) == (202, 1, 410), again.text
    await carried_out(api, owners)


def run_of(call: str, *events: Any) -> Any:
    from regions.wire.uplink import CallEvents

    return CallEvents(call=call, epoch=1, events=list(events))


@pytest.mark.parametrize("by", ["subject", "number", "metadata"])
async def test_somebody_is_forgotten_in_every_call_and_nobody_else(
    api: Api, project: Project, owners: list[EdgeIdentity], by: str
) -> None:
    other = await api.project()
    whom: dict[str, Any] = {"subject": CANARY, "number": NUMBER, "metadata": {"name": CANARY, "n": "1"}}[by]
    given: dict[str, Any] = {
        "subject": {"subject": CANARY},
        "number": {"caller": {"to": "tel:" + NUMBER}},
        "metadata": {"metadata": {"name": CANARY, "n": "1", "x": "y"}},
    }[by]
    mine = [await made(project, **given) for _ in range(3)]
    spared = [await made(project, metadata={"name": CANARY}, subject="other", caller={"to": "+14155550000"})]
    foreign = await made(other, **given)

    answer = await project.client.post("/v1/erasures", json={by: whom})
    assert (answer.status_code, answer.json()["kind"]) == (202, by), answer.text
    shown = await told(api, project, answer.json()["id"])
    assert shown["calls"] == 3
    for call in mine:
        assert (await project.client.get(f"/v1/calls/{call}")).json()["erased_at"]
    for client, call in ((project.client, spared[0]), (other.client, foreign)):
        assert (await client.get(f"/v1/calls/{call}")).json()["erased_at"] is None
    assert (await other.client.get(f"/v1/erasures/{shown['id']}")).status_code == 404
    assert CANARY not in str(await api.control.db.pool("worker").fetch("select e::text from vx.erasures e"))
    await carried_out(api, owners)


async def test_a_region_that_was_away_is_told_when_it_is_back(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    """And an instance that starts in the meantime takes it up."""
    urls = dict(api.settings.redis_urls)
    away = next(iter(urls))
    worker = api.control.erasures.worker
    call = await create_call(project, owners)
    await call.append(api, 1, event(1, "call.answered"), said(2, "caller", CANARY))
    await tail_at(api, urls[away], call.id, 3)
    worker._redis_urls = urls | {away: "redis://127.0.0.1:1"}
    try:
        answer = await project.client.post(f"/v1/calls/{call.id}/erase")
        await carried_out(api, owners)
        async with asyncio.timeout(20):
            while True:
                shown = (await project.client.get(f"/v1/erasures/{answer.json()['id']}")).json()
                undone = [p["place"] for p in shown["places"] if p["done_at"] is None]
                if undone == [away]:
                    break
                await asyncio.sleep(0.02)
        assert shown["state"] == "telling" and await tail_in(api, urls[away], call.id) is not None
        assert await open_for_s(api) > 0
    finally:
        worker._redis_urls = {}
    async with serving(dataclasses.replace(api.settings, port=0)):
        async with asyncio.timeout(20):
            while (await project.client.get(f"/v1/erasures/{shown['id']}")).json()["state"] != "done":
                await asyncio.sleep(0.05)
    worker._redis_urls = urls
    assert await tail_in(api, urls[away], call.id) is None
    async with asyncio.timeout(20):
        while await open_for_s(api):
            await asyncio.sleep(0.05)


async def test_a_regions_memory_takes_nothing_back_and_its_spools_are_emptied(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    import redis.asyncio as redis

    call = await create_call(project, owners)
    edge, life = ids.encode(ids.EDGE, owners[0].edge_id), str(owners[0].incarnation)
    run, other = names.run_name(call.id, 1), names.run_name(ids.encode(ids.CALL, uuid4()), 1)
    url = api.settings.redis_urls[owners[0].region]
    async with redis.from_url(url) as client:
        await client.sadd(names.incarnations_key(edge), life)
        await client.sadd(names.calls_key(edge, life), run, other)
        await client.hset(names.events_key(edge, life, run), "7", b"sealed")
        answer = await project.client.post(f"/v1/calls/{call.id}/erase")
        await told(api, project, answer.json()["id"])
        assert await client.hgetall(names.events_key(edge, life, run)) == {}
        # the other may be gone as well by now: its call is unknown here, and whoever flushes spools has looked at it
        assert await client.smembers(names.calls_key(edge, life)) <= {other.encode()}
        assert await client.hgetall(tail_key(call.id)) == {
            b"seq": b"%d" % TOMBSTONE_SEQ,
            b"said_seq": b"%d" % TOMBSTONE_SEQ,
        }
        await client.srem(names.calls_key(edge, life), other)
    await carried_out(api, owners)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subject": "a", "number": NUMBER},
        {"number": "nobody"},
        {"metadata": {}},
        {"subject": ""},
        {"who": "x"},
        {"subject": "x" * 300},
    ],
)
async def test_an_erasure_of_nobody_in_particular_is_refused(project: Project, body: dict[str, Any]) -> None:
    before = (await project.client.get("/v1/erasures")).json()["data"]
    answer = await project.client.post("/v1/erasures", json=body)
    assert answer.status_code == 422 and answer.json()["fix"]
    assert (await project.client.get("/v1/erasures")).json()["data"] == before
    assert (await project.client.get("/v1/erasures", params={"cursor": "x"})).status_code == 400
    assert (await project.client.post(f"/v1/calls/{ids.encode(ids.CALL, uuid4())}/erase")).status_code == 404
