"""A running call whose standby is not worth anything any more is granted others, and the ticket is on its way to its caller."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.fleet.standby_worker import StandbyWorker
from app.settings import Settings
from regions.wire import ids
from regions.wire.ticket import Claims, read
from regions.wire.uplink import Command
from tests.support.api import serving
from tests.support.calls import WrittenCall, event
from tests.support.place import Place

REGIONS = ("us-east", "us-west", "eu-west", "ap-south")


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[Place]:
    async with serving(settings) as api:
        made = Place(api, await api.project())
        for region in REGIONS:
            await made.add(region, region[:2])
        yield made


async def tickets(place: Place, call: WrittenCall) -> list[Claims]:
    """What the uplink of the call's owner would send it now, in order."""
    rows = await place.sql(
        "select version, body from vx.desired where call_id = $1 and kind = 'ticket' order by version",
        ids.decode(ids.CALL, call.id),
    )
    commands = [
        (
            Command(version=r["version"], kind="ticket", body=json.loads(r["body"])),
            ids.decode(ids.CALL, call.id),
        )
        for r in rows
    ]
    completed = await place.api.control.draining.orders.complete(commands)  # type: ignore[arg-type]
    found = [c.body.get("ticket") for c, _ in completed]
    return [read(t, keys=place.api.control.keyring.public_keys) for t in found if t]


async def renewed(place: Place, call: WrittenCall) -> Claims:
    async def look() -> Any:
        return await tickets(place, call)

    found = await place.until(look, "a ticket")
    return found[-1]  # type: ignore[no-any-return]


def regions_of(claims: Claims) -> list[str]:
    return [g.region for g in claims.grants]


@pytest.mark.parametrize("how", ["cordon", "drain", "evacuate"])
async def test_a_standby_in_a_region_that_is_taken_out_of_service_is_replaced(place: Place, how: str) -> None:
    call = await place.call("us-east")
    untouched = await place.call("us-west")
    first = read(call.ticket, keys=place.api.control.keyring.public_keys)
    assert len(first.grants) == 3
    away, stays = first.grants[1], first.grants[2]
    fourth = next(r for r in REGIONS if r not in {g.region for g in first.grants})
    assert (await place.command(f"regions/{away.region}", how)).status_code < 300
    claims = await renewed(place, call)
    assert regions_of(claims) == [stays.region, fourth]
    assert [g.epoch for g in claims.grants] == [4, 5], "above all that were granted before"
    assert claims.call == call.id
    assert claims.sealed and claims.exp == first.exp
    if away.region not in regions_of(read(untouched.ticket, keys=place.api.control.keyring.public_keys)):
        assert await tickets(place, untouched) == []


async def test_an_edge_that_has_restarted_or_was_lost_is_replaced_and_said_once(place: Place) -> None:
    call = await place.call("us-east")
    first = read(call.ticket, keys=place.api.control.keyring.public_keys)
    lost = first.grants[1]
    await place.sql(
        "update vx.edges set incarnation = gen_random_uuid() where id = $1", ids.decode(ids.EDGE, lost.edge)
    )
    claims = await renewed(place, call)
    assert {g.edge for g in claims.grants} >= {first.grants[2].edge}
    assert all((g.edge, g.incarnation) != (lost.edge, lost.incarnation) for g in claims.grants)
    worker: StandbyWorker = place.api.control.draining.standbys
    await place.api.control.fleet.refresh()
    assert await worker.round() == 0
    [row] = await place.sql("select epoch_granted from vx.calls where id = $1", ids.decode(ids.CALL, call.id))
    assert row["epoch_granted"] == 5


async def test_a_takeover_that_used_a_standby_up_gets_another(place: Place) -> None:
    call = await place.call("us-east")
    await place.take(call, 2)
    claims = await renewed(place, call)
    first = read(call.ticket, keys=place.api.control.keyring.public_keys)
    assert regions_of(claims)[0] == first.grants[2].region
    assert len(claims.grants) == 2


async def test_two_instances_grant_once_and_a_call_that_has_ended_or_is_being_moved_gets_nothing(
    place: Place,
) -> None:
    call, ended = await place.call("us-east"), await place.call("us-east")
    first = read(call.ticket, keys=place.api.control.keyring.public_keys)
    statement = "select call_id from vx.renew_standbys($1, $2, $3, $4, $5, $6, $7, $8)"
    [south] = await place.sql("select id, incarnation from vx.edges where region = 'ap-south'")
    edge, incarnation = south["id"], south["incarnation"]
    owner = place.edges["us-east"].edge_id

    async def renew(of: WrittenCall, granted: int, epoch: int = 1) -> int:
        call_id = ids.decode(ids.CALL, of.id)
        none: list[Any] = [None]
        return len(
            await place.sql(
                statement, owner, [call_id], [epoch], [granted], [edge], [incarnation], none, none
            )
        )

    granted = len(first.grants)
    assert [await renew(call, granted) for _ in range(2)] == [1, 0]
    assert await renew(call, granted + 1, epoch=2) == 0, "the owner has changed"
    await ended.append(place.api, 1, event(2, "call.ended", end_reason="caller_hung_up"))
    assert await renew(ended, granted) == 0
    moved = await place.project.client.post(f"/v1/calls/{call.id}/move", json={"within_s": 600})
    assert moved.status_code == 202, moved.text
    [row] = await place.sql("select epoch_granted from vx.calls where id = $1", ids.decode(ids.CALL, call.id))
    assert await renew(call, row["epoch_granted"]) == 0


async def test_residency_is_kept(place: Place) -> None:
    call = await place.call("us-east", allow=["us-east", "us-west"])
    assert (await place.command("regions/us-west", "cordon")).status_code == 200
    await place.api.control.fleet.refresh()
    assert await place.api.control.draining.standbys.round() == 0
    assert await tickets(place, call) == []
