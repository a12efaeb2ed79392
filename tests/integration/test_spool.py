"""The spool on a real Valkey and the real append: what an edge left behind reaches the log once, whoever flushes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
import redis.asyncio as redis
from redis.exceptions import NoPermissionError, ResponseError

from app.ids import new_id
from app.log.append import EdgeIdentity
from app.log.spool import SpoolFlusher
from regions.edge.outbox import Outbox
from regions.edge.spool import Spool
from regions.edge.valkey import RegionValkey
from regions.wire import ids
from regions.wire import spool as names
from regions.wire.keeping import sealing
from regions.wire.uplink import CallEvents
from tests.support.api import Api, Project
from tests.support.fleet import add_region

WITHIN_S = 20.0
REGION = "us-east"


@dataclass
class Left:
    """A call on an edge, its outbox, and the spool that the edge keeps of it."""

    api: Api
    call: str
    edge: UUID
    incarnation: UUID
    outbox: Outbox
    spool: Spool
    valkey: redis.Redis
    flusher: SpoolFlusher
    redis_url: str

    @property
    def outboxes(self) -> list[Outbox]:
        return [self.outbox]

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            evt = ids.encode(ids.EVENT, new_id())
            self.outbox.add(id=evt, type="speech.started", at_ms=self.api.control.clock.now_ms(), data=b"{}")

    async def keep(self) -> None:
        await self.spool.sweep(after_ms=0)

    async def restart(self) -> None:
        """The edge has come back as another incarnation."""
        await self._set("update vx.edges set incarnation = $2 where id = $1", uuid4())

    async def silence(self) -> None:
        await self._set("update vx.edges set seen_at = $2 - interval '1 minute' where id = $1", None)

    async def _set(self, statement: str, value: Any) -> None:
        statement = statement.replace("$2 -", "clock_timestamp() -") if value is None else statement
        connection = await asyncpg.connect(self.api.settings.database_url)
        try:
            await connection.execute(statement, self.edge, *([] if value is None else [value]))
        finally:
            await connection.close()
        await self.api.control.fleet.refresh()

    async def flush(self) -> None:
        await self.flusher.round(REGION, self.valkey)

    async def flushed(self) -> None:
        """Until something is there: the instance looks by itself, too, and while it writes the call is busy."""
        async with asyncio.timeout(WITHIN_S):
            while not await self.stored():
                await self.flush()

    async def append(self, *numbers: int) -> str:
        """By the uplink."""
        owner = EdgeIdentity(self.edge, self.incarnation, REGION)
        events = [e for e in self.outbox.unacked if e.n in numbers]
        run = CallEvents(call=self.call, epoch=1, events=events)
        return (await self.api.control.appender.append(owner, [run]))[0].status

    async def stored(self, table: str = "events") -> list[tuple[str, int]]:
        connection = await asyncpg.connect(self.api.settings.database_url)
        try:
            rows = await connection.fetch(
                f"select type, origin_n from vx.{table} where call_id = $1 and origin_n is not null order by origin_n",
                ids.decode(ids.CALL, self.call),
            )
        finally:
            await connection.close()
        return [tuple(r) for r in rows]

    async def entries(self) -> list[str]:
        prefix = names.spool_prefix(ids.encode(ids.EDGE, self.edge))
        return sorted([k.decode() async for k in self.valkey.scan_iter(f"{prefix}*")])


@pytest.fixture
async def left(api: Api, project: Project, redis_urls: dict[str, str]) -> AsyncIterator[Left]:
    connection = await asyncpg.connect(api.settings.database_url)
    await connection.execute("update vx.edges set admin_state = 'cordoned'")
    await connection.close()
    edge, incarnation = await add_region(api, REGION)
    made = await project.client.post(
        "/v1/calls",
        json={"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"pin": REGION}},
        headers={"Idempotency-Key": str(uuid4())},
    )
    assert made.json()["edge"] == ids.encode(ids.EDGE, edge)
    control = api.control
    url = await control.edge_access.url_for(REGION, edge)
    assert url is not None
    region_valkey = RegionValkey(url)
    flusher = SpoolFlusher(
        redis_urls,
        control.edge_access,
        lambda: control.fleet.now,
        control.appender,
        control.clock,
        control.keyring,
    )
    async with redis.from_url(redis_urls[REGION]) as admin:
        held = Left(
            api, made.json()["id"], edge, incarnation, Outbox(made.json()["id"], 1), None, admin, flusher, redis_urls[REGION]  # type: ignore[arg-type]
        )  # fmt: skip
        held.spool = Spool(
            region_valkey, held, control.clock.now_ms, sealing(lambda: control.keyring.fleet_key)
        )
        held.spool.identity = (ids.encode(ids.EDGE, edge), str(incarnation))
        yield held
    await region_valkey.close()


async def test_what_a_dead_edge_had_spooled_reaches_the_log_and_leaves_the_spool(left: Left) -> None:
    left.write(3)
    assert await left.append(1) == "durable"
    await left.keep()
    await left.restart()
    await asyncio.gather(left.flush(), left.flush())
    assert await left.stored() == [("speech.started", 1), ("speech.started", 2), ("speech.started", 3)]
    await left.flush()
    assert await left.entries() == []


async def test_the_spool_of_an_edge_that_lives_is_its_own_business(left: Left) -> None:
    left.write(2)
    await left.keep()
    await left.flush()
    assert await left.stored() == []
    await left.silence()
    await left.flush()
    assert len(await left.stored()) == 2


async def test_a_hole_is_given_up_once_the_owner_has_ended_and_not_before(left: Left) -> None:
    left.write(5)
    assert await left.append(1) == "durable"
    await left.keep()
    key = names.events_key(
        ids.encode(ids.EDGE, left.edge), str(left.incarnation), names.run_name(left.call, 1)
    )
    await left.valkey.hdel(key, "2", "3")
    await left.silence()
    await left.flush()
    assert await left.stored() == [("speech.started", 1)]
    await left.restart()
    await left.flush()
    assert await left.stored() == [
        ("speech.started", 1), ("events.lost", 3), ("speech.started", 4), ("speech.started", 5),
    ]  # fmt: skip
    await left.flush()
    assert await left.entries() == []


async def test_nothing_that_was_typed_can_be_read_in_the_spool(left: Left) -> None:
    evt = ids.encode(ids.EVENT, new_id())
    data = b'{"digit":"8"}'
    left.outbox.add(id=evt, type="dtmf.received", at_ms=left.api.control.clock.now_ms(), data=data)
    await left.keep()
    kept = [await left.valkey.hvals(k) for k in await left.entries() if left.call in k]
    assert kept[0]
    assert not any(b"digit" in value or evt.encode() in value for values in kept for value in values)
    await left.restart()
    await left.flush()
    assert await left.stored() == [("dtmf.received", 1)]


async def test_a_key_that_this_instance_has_not_read_yet_costs_no_event(left: Left) -> None:
    left.write(2)
    await left.keep()
    await left.restart()
    left.api.control.keyring.fleet_secrets = {}
    await left.flushed()
    assert await left.stored() == [("speech.started", 1), ("speech.started", 2)]


async def test_an_event_of_which_the_log_has_another_is_given_up_alone(left: Left) -> None:
    left.write(7)
    await left.keep()
    owner = EdgeIdentity(left.edge, left.incarnation, REGION)
    others = [msgspec.structs.replace(e, data=msgspec.Raw(b'{"x":1}')) for e in left.outbox.unacked[1:3]]
    run = CallEvents(call=left.call, epoch=1, events=[left.outbox.unacked[0], *others])
    assert (await left.api.control.appender.append(owner, [run]))[0].status == "durable"
    await left.restart()
    async with asyncio.timeout(20):
        while (
            await left.entries()
        ):  # the instance flushes as well: one may find the call in the other's hands
            await left.flush()
    assert await left.stored() == [("speech.started", n) for n in range(1, 8)]


async def test_entries_that_are_no_events_cost_the_call_nothing_but_themselves(left: Left) -> None:
    left.write(3)
    await left.keep()
    name = ids.encode(ids.EDGE, left.edge)
    key = names.events_key(name, str(left.incarnation), names.run_name(left.call, 1))
    await left.valkey.hset(key, "2", b"{poison")
    await left.valkey.sadd(names.calls_key(name, str(left.incarnation)), "nonsense")
    await left.restart()
    await left.flush()
    assert await left.stored() == [("speech.started", 1), ("events.lost", 2), ("speech.started", 3)]
    await left.flush()
    assert await left.entries() == [f"spool:{name}:aside"]


@pytest.mark.parametrize("which", ["incarnations", "calls", "events", "aside"])
async def test_an_edge_that_writes_other_kinds_of_values_stops_nobody_elses_spool(
    left: Left, which: str
) -> None:
    other, theirs = await add_region(left.api, REGION)
    name, incarnation, run = ids.encode(ids.EDGE, other), str(theirs), names.run_name(left.call, 1)
    key = {
        "incarnations": names.incarnations_key(name),
        "calls": names.calls_key(name, incarnation),
        "events": names.events_key(name, incarnation, run),
        "aside": f"{names.spool_prefix(name)}aside",
    }[which]
    url = await left.api.control.edge_access.url_for(REGION, other)
    assert url is not None
    async with redis.from_url(url) as edge:
        await edge.sadd(names.incarnations_key(name), incarnation)
        await edge.sadd(names.calls_key(name, incarnation), run, "nonsense")
        await edge.delete(key)
        await (edge.sadd(key, "x") if which == "events" else edge.hset(key, "1", "x"))
    left.write(2)
    await left.keep()
    await left.restart()
    await left.flush()
    assert len(await left.stored()) == 2
    assert await left.valkey.llen(f"{names.spool_prefix(name)}aside") > 0


async def test_what_comes_after_the_end_is_kept_as_late(left: Left, project: Project) -> None:
    left.write(2)
    assert await left.append(1) == "durable"
    await left.keep()
    assert (await project.client.post(f"/v1/calls/{left.call}/end")).status_code == 200
    await left.restart()
    await left.flush()
    assert await left.stored() == [("speech.started", 1)]
    assert await left.stored("late_events") == [("speech.started", 2)]
    await left.flush()
    assert await left.entries() == []


async def test_an_edge_reads_tails_and_writes_its_own_spool_and_nothing_else(left: Left) -> None:
    await left.valkey.hset("tail:x", "head", "t")
    url = await left.api.control.edge_access.url_for(REGION, left.edge)
    assert url is not None
    mine, other = names.spool_prefix(ids.encode(ids.EDGE, left.edge)), names.spool_prefix("edge_other")
    async with redis.from_url(url) as edge:
        assert await edge.hmget("tail:x", "head") == [b"t"]
        await edge.hset(f"{mine}k", "1", "x")
        for forbidden in (
            edge.set("tail:x", "y"), edge.hset(f"{other}k", "1", "x"), edge.delete("tail:x"), edge.hmget(f"{other}k", "1"),
            edge.keys("*"),
            edge.publish("hints", "x"), edge.config_get("*"), edge.flushall(), edge.execute_command("ACL LIST"),
        ):  # fmt: skip
            with pytest.raises(NoPermissionError):
                await forbidden


async def is_busy(valkey: redis.Redis) -> bool:
    try:
        await valkey.ping()
    except ResponseError:
        return True
    return False


async def test_a_server_that_is_busy_gives_no_edge_more_than_its_own(left: Left) -> None:
    before = await left.valkey.config_get("busy-reply-threshold")
    await left.valkey.config_set("busy-reply-threshold", 10)
    async with redis.from_url(left.redis_url, socket_timeout=30) as other:
        running = asyncio.ensure_future(other.eval("while true do end", 0))
        try:
            async with asyncio.timeout(10):
                while not await is_busy(left.valkey):
                    await asyncio.sleep(0.01)
            with pytest.raises(ResponseError):
                await left.flush()
        finally:
            await left.valkey.script_kill()
            with pytest.raises(ResponseError):
                await running
    await left.valkey.config_set("busy-reply-threshold", before["busy-reply-threshold"])
    url = await left.api.control.edge_access.url_for(REGION, left.edge)
    assert url is not None and ids.encode(ids.EDGE, left.edge) in url


async def test_a_server_that_forgot_its_users_gets_them_back(left: Left) -> None:
    user = ids.encode(ids.EDGE, left.edge)
    await left.valkey.execute_command("ACL DELUSER", user)
    await left.flush()
    assert user in await left.valkey.execute_command("ACL USERS")
    left.write()
    await left.keep()
    assert await left.entries()
