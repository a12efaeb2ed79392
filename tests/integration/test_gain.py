"""Calls that have asked for it are moved to a region that has been nearer for three windows; others never are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from app.draining import Draining
from app.fleet.gain_worker import GainWorker
from app.placement.history import window_of
from app.settings import Settings
from regions.wire import ids
from regions.wire.measuring import Measured, Witnessed
from regions.wire.ticket import MovedFor, Sealed, read, unb64, unseal
from tests.support.api import serving
from tests.support.calls import WrittenCall, event
from tests.support.place import Place

REGIONS = ("us-east", "us-west", "eu-west")
ADDRESS, NETWORK = "203.0.113.7", "203.0.113.0/24"
USUALLY_MS = {"us-east": 20.0, "eu-west": 60.0, "us-west": 150.0}


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[Place]:
    """The network of the callers is usually nearest to us-east."""
    async with serving(settings) as api:
        made = Place(api, await api.project())
        for region in REGIONS:
            await made.add(region, region[:2])
        learning = api.control.learning
        network = learning.network(ADDRESS)
        assert network is not None
        now = window_of(api.control.clock.now().timestamp())
        for ago in (3, 2, 1):
            for region, rtt_ms in USUALLY_MS.items():
                learning.history.learn(network.number, region, now - ago, rtt_ms)
        yield made


async def create(place: Place, **regions: Any) -> Any:
    body = {
        "agent": {"url": "ws://127.0.0.1:9/"},
        "caller": {"address": ADDRESS},
        "regions": regions,
    }
    return await place.project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})


async def in_progress(place: Place, **regions: Any) -> WrittenCall:
    made = await create(place, **regions)
    assert made.status_code == 201, made.text
    assert made.json()["region"] == "us-east"
    call = WrittenCall(made.json()["id"], [place.edges["us-east"]], place.project, made.json()["ticket"])
    await call.append(place.api, 1, event(1, "call.answered", encoding="pcm16", sample_rate=16_000))
    return call


def instance(place: Place) -> GainWorker:
    return Draining.of(place.api.control.db, place.api.control.calls).gains


async def window(place: Place, worker: GainWorker, region: str, rtt_ms: float) -> int:
    """What that region's edge has witnessed of the network, and the look at it."""
    witnessed(place, region, rtt_ms)
    return await worker.round()


def witnessed(place: Place, region: str, rtt_ms: float) -> None:
    seen = Witnessed(network=NETWORK, rtt_ms=rtt_ms, jitter_ms=2.0, samples=9)
    place.api.control.learning.heard(region, Measured(callers=[seen]))


async def test_a_call_that_asked_for_it_moves_once_and_one_that_did_not_never(place: Place) -> None:
    call, other = await in_progress(place, move_for_gain=True), await in_progress(place)
    worker = instance(place)
    assert [await window(place, worker, "us-east", 220.0) for _ in range(3)] == [0, 0, 1]
    [asked] = (await place.asked("us-east")).items()
    assert asked[0] == call.id
    control = place.api.control
    commands = await control.fleet_store.commands(place.edges["us-east"].edge_id, 0)
    [order] = [c for c, _ in await control.draining.orders.complete(commands) if c.kind == "move"]
    assert order.body["forced"] == "false" and 0 < int(order.body["within_ms"]) <= 30_000
    claims = read(order.body["ticket"], keys=control.keyring.public_keys)
    assert claims.grants[0].region == "eu-west"
    plain = unseal(
        claims.sealed, keys={k.id: unb64(k.key) for k in control.keyring.fleet_keys}, bound_to=call.id
    )
    why = msgspec.json.decode(plain, type=Sealed).moved_for
    assert isinstance(why, MovedFor)
    assert (why.by, why.from_region, why.to_region, why.before_ms) == ("gain", "us-east", "eu-west", 220.0)
    assert 60 <= why.after_ms <= 120 and why.windows == 3
    await place.take(call, asked[1])
    await control.draining.moves._store.settle()
    learning = control.learning
    network = learning.network(ADDRESS)
    assert network is not None
    learning.history.learn(network.number, "us-east", window_of(control.clock.now().timestamp()), 20.0)
    assert [await window(place, worker, "eu-west", 400.0) for _ in range(5)] == [0] * 5, "it rests"
    await place.sql("update vx.moves set asked_at = asked_at - interval '1 hour'")
    assert [await window(place, worker, "eu-west", 400.0) for _ in range(3)] == [0, 0, 1]
    rows = await place.sql("select call_id from vx.moves where call_id = $1", ids.decode(ids.CALL, other.id))
    assert rows == []


async def test_a_spell_of_two_windows_moves_nobody_and_two_instances_move_once(place: Place) -> None:
    await in_progress(place, move_for_gain=True)
    one, two = instance(place), instance(place)
    for rtt_ms in (220.0, 220.0, 25.0, 220.0, 220.0):
        for worker in (one, two):
            assert await window(place, worker, "us-east", rtt_ms) == 0
    witnessed(place, "us-east", 220.0)
    first = asyncio.create_task(one.round())
    await asyncio.sleep(0)
    assert await window(place, two, "us-east", 220.0) + await first == 1
    [row] = await place.sql("select count(*) from vx.moves")
    assert row["count"] == 1


async def test_a_drain_does_not_wait_for_a_move_that_is_for_a_gain(place: Place) -> None:
    call = await in_progress(place, move_for_gain=True)
    worker = instance(place)
    assert sum([await window(place, worker, "us-east", 220.0) for _ in range(3)]) == 1
    await place.command("regions/us-east", "drain", within_s=600)

    async def asked_by_the_drain() -> Any:
        return await place.sql("select epoch from vx.moves where drain_id is not null and outcome is null")

    [row] = await place.until(asked_by_the_drain, "the drain asks")
    assert row["epoch"] > 4
    [off] = await place.sql("select outcome, call_id from vx.moves where why is not null")
    assert (off["outcome"], off["call_id"]) == ("canceled", ids.decode(ids.CALL, call.id))


async def test_residency_and_a_full_region_hold_a_call_where_it_is(place: Place) -> None:
    await in_progress(place, move_for_gain=True, allow=["us-east", "us-west"])
    worker = instance(place)
    assert [await window(place, worker, "us-east", 120.0) for _ in range(4)] == [0] * 4
    await in_progress(place, move_for_gain=True)
    await place.sql("update vx.edges set calls = capacity_calls * 9 / 10 where region = 'eu-west'")
    await place.api.control.fleet.refresh()
    assert [await window(place, worker, "us-east", 120.0) for _ in range(4)] == [0] * 4, "within the reserve"
    await place.sql("update vx.edges set calls = 0 where region = 'eu-west'")
    await place.api.control.fleet.refresh()
    assert await window(place, worker, "us-east", 120.0) == 1


async def test_the_network_is_kept_of_calls_alone_that_asked_and_bad_wishes_are_refused(place: Place) -> None:
    await in_progress(place, move_for_gain=True)
    await in_progress(place)
    rows = await place.sql(
        "select request ->> 'network' as network, request::text as text from vx.calls order by id"
    )
    assert [r["network"] for r in rows] == [NETWORK, None]
    assert not any(ADDRESS in r["text"] for r in rows)
    pinned = await create(place, move_for_gain=True, pin="us-east")
    assert (pinned.status_code, pinned.json()["errors"][0]["pointer"]) == (422, "/regions/move_for_gain")
    assert pinned.json()["fix"]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"move_for_gain": True}}
    nowhere = await place.project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": "n"})
    assert (nowhere.status_code, nowhere.json()["errors"][0]["pointer"]) == (422, "/regions/move_for_gain")
