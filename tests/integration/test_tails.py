"""The tail of a call: in the memory of every region that may have to serve it, whatever happened on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis
from structlog.testing import capture_logs

from app.local.valkey import Valkey
from app.log import tail_region, tail_sweep
from app.log.append import EdgeIdentity
from app.telemetry import (
    tail_lag_seconds,
    tail_oldest_waiting_seconds,
    tail_steps_total,
    tails_dropped_total,
)
from regions.edge.tails import TailReader
from regions.edge.valkey import RegionValkey
from regions.wire import ids
from regions.wire.events import Origin
from regions.wire.keeping import opening
from regions.wire.snapshot import Tail, tail_key
from tests.support.api import Api, Project, serving
from tests.support.calls import WITHIN_S, WrittenCall, create_call, event, owners_in, said, tail_at, tail_in
from tests.support.edges import until
from tests.support.engines import REGIONS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, REGIONS)


@pytest.fixture
async def call(project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    return await create_call(project, owners)


def steps(step: str) -> float:
    return float(tail_steps_total.labels(step)._value.get())


async def logged(api: Api, call: WrittenCall, seq: int) -> Tail:
    """The tail that the log gives, by itself."""
    facts = await api.control.tails._facts.of([ids.decode(ids.CALL, call.id)])
    ((call_id, known),) = facts.items()
    found = await api.control.tails.log.read(call_id, known.key, None, up_to_seq=seq, horizon=None, now_ms=0)
    assert found is not None
    return found


async def everywhere(api: Api, call: WrittenCall, seq: int) -> None:
    """Every region has the tail of `seq`, and it is the fold of the log."""
    wanted = await logged(api, call, seq)
    for region in REGIONS:
        tail = await tail_at(api, api.settings.redis_urls[region], call.id, seq)
        assert tail.seq == seq
        assert (tail.turns, tail.said_seq) == (wanted.turns, wanted.said_seq)


async def test_an_ordinary_call_is_folded_in_memory_and_stands_in_every_region(
    api: Api, call: WrittenCall
) -> None:
    read, folded = steps("read"), steps("fold")
    lags = {r: tail_lag_seconds.labels(r)._sum.get() for r in REGIONS}
    for n in range(1, 30, 3):
        status = await call.append(
            api, 1, said(n, "caller", f"question {n}"), event(n + 1), said(n + 2, "agent", f"answer {n}")
        )
    await everywhere(api, call, status.seq)
    tail = await tail_at(api, api.settings.redis_urls[REGIONS[0]], call.id, status.seq)
    assert (tail.epoch, tail.n, len(tail.turns)) == (1, 30, 20)
    assert [t.seq for t in tail.turns][:4] == [2, 4, 5, 7]
    assert (steps("read") - read, steps("fold") - folded) == (0, 10)
    assert all(tail_lag_seconds.labels(r)._sum.get() > lags[r] for r in REGIONS)
    assert api.control.supervisor.unhealthy == []


async def test_an_event_that_says_nothing_moves_the_place_and_not_the_turns(
    api: Api, call: WrittenCall
) -> None:
    await call.append(api, 1, said(1, "caller", "hello"))
    status = await call.append(api, 1, event(2), event(3))
    for region in REGIONS:
        tail = await tail_at(api, api.settings.redis_urls[region], call.id, status.seq)
        assert (tail.seq, tail.said_seq, tail.n, len(tail.turns)) == (4, 2, 3, 1)


async def test_what_the_project_writes_and_what_the_control_plane_writes_is_in_it(
    api: Api, call: WrittenCall
) -> None:
    await call.append(api, 1, said(1, "caller", "hello"))
    written = await call.write(type="turn", role="agent", text="a person takes over", key="p1")
    assert written.status_code == 201
    status = await call.append(api, 1, said(2, "caller", "good"))
    await everywhere(api, call, status.seq)
    tail = await tail_at(api, api.settings.redis_urls[REGIONS[1]], call.id, status.seq)
    assert [(t.text, t.by) for t in tail.turns] == [
        ("hello", ""),
        ("a person takes over", "project"),
        ("good", ""),
    ]
    await call.project.client.post(f"/v1/calls/{call.id}/end")
    assert (
        await tail_at(api, api.settings.redis_urls[REGIONS[0]], call.id, status.seq + 1)
    ).seq == status.seq + 1


async def test_resends_and_adoptions_give_the_fold_of_the_log(api: Api, call: WrittenCall) -> None:
    run = [said(1, "caller", "one"), event(2), said(3, "agent", "two")]
    await call.append(api, 1, *run)
    lost = [said(4, "caller", "three"), said(5, "agent", "four")]
    await call.append(api, 1, lost[0])
    await call.append(api, 1, *run, lost[0])
    adopted = [
        msgspec.structs.replace(e, n=i, origin=Origin(epoch=1, n=e.n)) for i, e in enumerate(lost, start=2)
    ]
    status = await call.append(api, 2, event(1, "call.reconnecting"), *adopted, said(4, "agent", "five"))
    await call.append(api, 2, *adopted)
    await everywhere_of(api, call, status.seq, (REGIONS[1],))
    tail = await tail_at(api, api.settings.redis_urls[REGIONS[1]], call.id, status.seq)
    assert [t.text for t in tail.turns] == ["one", "two", "three", "four", "five"]
    assert (tail.epoch, tail.n) == (2, 4)


async def everywhere_of(api: Api, call: WrittenCall, seq: int, regions: tuple[str, ...]) -> None:
    wanted = await logged(api, call, seq)
    for region in regions:
        assert (await tail_at(api, api.settings.redis_urls[region], call.id, seq)).turns == wanted.turns


async def test_two_instances_that_write_in_turn_keep_one_tail(api: Api, call: WrittenCall) -> None:
    async with serving(dataclasses.replace(api.settings, port=0)) as other:
        for n in range(1, 21):
            through = (api, other)[n % 3 == 0]
            status = await call.append(through, 1, said(n, "caller", f"turn {n}"))
            if n % 5 == 0:
                written = await call.write(type="turn", role="agent", text=f"note {n}", key=f"n{n}")
                assert written.status_code == 201
        await everywhere(api, call, status.seq + 1)


async def test_an_instance_that_died_with_its_tails_is_made_up_for(api: Api, call: WrittenCall) -> None:
    """One that has no way to any region writes; the sweep of another finds what is missing."""
    async with serving(dataclasses.replace(api.settings, port=0, redis_urls={})) as blind:
        status = await call.append(blind, 1, said(1, "caller", "hello"), said(2, "agent", "good morning"))
    api.control.tails.lost.set()
    await everywhere(api, call, status.seq)


async def test_new_standbys_get_what_was_said_before_them(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    alone = await create_call_in(project, owners[:1])
    status = await alone.append(api, 1, said(1, "caller", "hello"))
    await tail_at(api, api.settings.redis_urls[REGIONS[0]], alone.id, status.seq)
    assert await tail_in(api, api.settings.redis_urls[REGIONS[1]], alone.id) is None
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        await connection.execute(
            "update vx.calls set request = request - 'regions' where id = $1", ids.decode(ids.CALL, alone.id)
        )
    finally:
        await connection.close()
    nobody = await api.client()
    ticket = await nobody.post(f"/v1/calls/{alone.id}/ticket", json={"ticket": alone.ticket})
    assert ticket.status_code == 200, ticket.text
    tail = await tail_at(api, api.settings.redis_urls[REGIONS[1]], alone.id, status.seq)
    assert [t.text for t in tail.turns] == ["hello"]


async def create_call_in(project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    """In the region of the first owner and nowhere else."""
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"allow": [owners[0].region]}}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": project.id})
    assert made.status_code == 201, made.text
    return WrittenCall(made.json()["id"], owners, project, made.json()["ticket"])


async def test_a_call_says_how_far_each_memory_is(api: Api, call: WrittenCall) -> None:
    status = await call.append(api, 1, said(1, "caller", "hello"), event(2))
    for region in REGIONS:
        await tail_at(api, api.settings.redis_urls[region], call.id, status.seq)
    async with serving(dataclasses.replace(api.settings, port=0, redis_urls={})) as blind:
        plain = (await call.project.client.get(f"/v1/calls/{call.id}")).json()
        level = (await call.project.client.get(f"/v1/calls/{call.id}", params={"tails": "true"})).json()
        await call.append(blind, 1, event(3), event(4))
        behind = (await call.project.client.get(f"/v1/calls/{call.id}", params={"tails": "true"})).json()
    assert "tails" not in plain
    assert [(t["region"], t["role"], t["seq"], t["behind"], t["lag_s"]) for t in level["tails"]] == [
        (REGIONS[0], "owner", 3, 0, 0.0), (REGIONS[1], "standby", 3, 0, 0.0),
    ]  # fmt: skip
    for tail in behind["tails"]:
        assert (tail["reachable"], tail["seq"], tail["behind"]) == (True, 3, 2)
        assert tail["lag_s"] >= 0
        assert tail["written_at"] is not None


# ----------------------------------------------------------------------------------------------- a region that is lost


@asynccontextmanager
async def own_region() -> AsyncIterator[tuple[Path, Valkey]]:
    folder = Path(tempfile.mkdtemp(prefix="voxplane-test-"))
    folder.chmod(0o755)
    try:
        async with Valkey(folder / "valkey") as valkey:
            yield folder, valkey
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_region_that_comes_back_empty_is_caught_up_from_the_log(
    api: Api, project: Project, owners: list[EdgeIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, and restarted without a byte: by two instances, for calls that neither has heard of since."""
    monkeypatch.setattr(tail_sweep, "EVERY_S", 0.3)
    monkeypatch.setattr(tail_sweep, "AWAY_EVERY_S", 0.2)
    monkeypatch.setattr(tail_sweep, "GRACE_S", 0.05)
    calls = [await create_call(project, owners) for _ in range(20)]
    for call in calls:
        await call.append(api, 1, said(1, "caller", call.id), said(2, "agent", "x" * 2_000))
    async with own_region() as (folder, valkey):
        urls = api.settings.redis_urls | {REGIONS[1]: valkey.url}
        settings = dataclasses.replace(api.settings, port=0, redis_urls=urls)
        async with serving(settings) as one, serving(settings) as two:
            for call in calls:
                assert len((await tail_at(api, valkey.url, call.id, 3)).turns) == 2
            valkey.process.kill()
            valkey.process.wait()
            client = await one.client(project.key)
            away = (await client.get(f"/v1/calls/{calls[0].id}", params={"tails": "true"})).json()["tails"]
            assert [(t["region"], t["reachable"], t["behind"]) for t in away] == [
                (REGIONS[0], True, 0), (REGIONS[1], False, None),
            ]  # fmt: skip
            status = await calls[0].append(one, 1, said(3, "caller", "while it was away"))
            async with asyncio.timeout(WITHIN_S):
                while one.control.tails.regions[REGIONS[1]].waiting == 0:
                    await asyncio.sleep(0.01)
            await valkey.stop()
            shutil.rmtree(folder / "valkey" / "data")
            await valkey.start()
            for call in calls[1:]:
                tail = await tail_at(api, valkey.url, call.id, 3)
                assert [t.text for t in tail.turns] == [call.id, "x" * 2_000]
            assert len((await tail_at(api, valkey.url, calls[0].id, status.seq)).turns) == 3
            assert two.control.supervisor.unhealthy == []


FULL = ("config set maxmemory-policy noeviction", "config set maxmemory 1")
ROOM = ("config set maxmemory 0",)
REPLICA, OWN_AGAIN = ("replicaof 127.0.0.1 1",), ("replicaof no one",)
WITHOUT_COPIES, ALONE = ("config set min-replicas-to-write 1",), ("config set min-replicas-to-write 0",)


@pytest.mark.parametrize(
    ("breaks", "mends", "error"),
    [
        (FULL, ROOM, "OutOfMemoryError"),
        (REPLICA, OWN_AGAIN, "ReadOnlyError"),
        (WITHOUT_COPIES, ALONE, "ResponseError"),
    ],
)
async def test_a_region_that_takes_no_writes_is_waited_for_and_told_of(
    api: Api,
    project: Project,
    owners: list[EdgeIdentity],
    monkeypatch: pytest.MonkeyPatch,
    breaks: tuple[str, ...],
    mends: tuple[str, ...],
    error: str,
) -> None:
    """Else its alert, which asks for how long the oldest tail has waited, would never be raised."""
    monkeypatch.setattr(tail_region, "RETRY_S", 0.01)
    monkeypatch.setattr(tail_sweep, "EVERY_S", 600.0)
    monkeypatch.setattr(tail_sweep, "AWAY_EVERY_S", 600.0)
    call = await create_call(project, owners)
    async with own_region() as (_, valkey), redis.from_url(valkey.url) as administrator:
        urls = api.settings.redis_urls | {REGIONS[1]: valkey.url}
        async with serving(dataclasses.replace(api.settings, port=0, redis_urls=urls)) as one:
            await call.append(one, 1, said(1, "caller", "before"))
            await tail_at(api, valkey.url, call.id, 2)
            for command in breaks:
                await administrator.execute_command(command)
            dropped = tails_dropped_total.labels(REGIONS[1])._value
            before = dropped.get()
            with capture_logs() as lines:
                status = await call.append(one, 1, said(2, "caller", "while it was full"))
                assert status.status == "durable"
                await until(
                    lambda: tail_oldest_waiting_seconds.labels(REGIONS[1])._value.get() > 1,
                    "that it has waited for longer than twenty tries take",
                )
            assert dropped.get() == before
            assert [x["error"] for x in lines if x["event"] == "tails.away"] == [error]
            for command in mends:
                await administrator.execute_command(command)
            assert len((await tail_at(api, valkey.url, call.id, status.seq)).turns) == 2
            assert one.control.supervisor.unhealthy == []


async def test_an_edge_reads_what_the_control_plane_wrote(api: Api, call: WrittenCall) -> None:
    status = await call.append(api, 1, said(1, "caller", "hello"))
    url = api.settings.redis_urls[REGIONS[1]]
    wanted = await tail_at(api, url, call.id, status.seq)
    valkey = RegionValkey(url)
    try:
        reader = TailReader(valkey, opening(lambda: api.control.keyring.fleet_secrets))
        async with asyncio.timeout(WITHIN_S):
            while (found := await reader.read(call.id)) is None:
                await asyncio.sleep(0.01)
        assert found == wanted
        assert await reader.read("call_of_nobody") is None
        assert valkey.client is not None
        assert b"hello" not in b"".join(await valkey.client.hvals(tail_key(call.id)))  # type: ignore[misc]
    finally:
        await valkey.close()
