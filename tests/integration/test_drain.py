"""Drains and moves over the API, with edges that do as they are told: what is asked of whom, what is refused, what is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.draining import Draining
from app.fleet.drain_store import DrainStore
from app.fleet.drain_worker import DrainWorker
from app.fleet.plan import Ask, Leaving
from app.settings import Settings
from regions.wire import ids
from regions.wire.ticket import read
from tests.support.api import Api, serving
from tests.support.calls import WrittenCall, create_call, event
from tests.support.place import Place

WITHIN_S = 20.0


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[Place]:
    async with serving(settings) as api:
        made = Place(api, await api.project())
        for region in ("us-east", "us-west", "eu-west"):
            await made.add(region, region[:2])
        yield made


def problem(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["fix"] and body["detail"], body
    return response.status_code, body["code"]


async def test_a_region_is_drained_call_by_call_with_its_progress(place: Place) -> None:
    calls = [await place.call("us-east") for _ in range(4)]
    staying = await place.call("us-west")
    begun = await place.command("regions/us-east", "drain", within_s=600)
    assert begun.status_code == 202, begun.text
    assert (begun.json()["kind"], begun.json()["total"], begun.json()["by"]) == ("drain", 4, "operator")
    shown = (await place.api.operator.get("/admin/v1/regions/us-east")).json()
    assert shown["admin_state"] == "draining"
    asked = await place.until(lambda: _all(place, calls), "every call asked")
    assert staying.id not in asked
    assert (await place.progress("regions/us-east"))["under_way"] == 4
    for call in calls[:3]:
        assert asked[call.id] > 1
        await place.take(call, asked[call.id])
    await place.until(lambda: _is(place, "regions/us-east", moved=3, left=1), "three have moved")
    await calls[3].append(place.api, 1, event(2, "call.ended", end_reason="caller_hung_up"))
    done = await place.until(lambda: _is(place, "regions/us-east", state="drained"), "drained")
    assert (done["moved"], done["ended"], done["failed"], done["left"]) == (3, 1, 0, 0)
    assert done["drained_at"] is not None
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": [{"region": "us-east", "rtt_ms": 1}]}
    made = await place.project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": "new"})
    assert made.json()["region"] != "us-east"
    assert (await place.command("regions/us-east", "uncordon")).json()["admin_state"] == "active"
    assert (await place.progress("regions/us-east"))["state"] == "canceled"


async def test_a_call_that_ends_in_the_midst_of_a_look_is_counted_when_the_drain_is_done(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await place.call("us-east")
    await place.command("regions/us-east", "drain", within_s=600)
    await place.until(lambda: _all(place, [call]), "the call asked")
    settle, ends = DrainStore.settle, [event(2, "call.ended", end_reason="caller_hung_up")]

    async def settled_before_it_ends(store: DrainStore) -> None:
        await settle(store)
        while ends:
            await call.append(place.api, 1, ends.pop())

    monkeypatch.setattr(DrainStore, "settle", settled_before_it_ends)
    done = await place.until(lambda: _is(place, "regions/us-east", state="drained"), "drained")
    assert (done["moved"], done["ended"], done["failed"], done["left"]) == (0, 1, 0, 0)


async def _all(place: Place, calls: list[WrittenCall]) -> dict[str, int] | None:
    asked = await place.asked("us-east")
    return asked if {c.id for c in calls} <= set(asked) else None


async def _is(place: Place, what: str, **wanted: Any) -> dict[str, Any] | None:
    shown = await place.progress(what)
    return shown if all(shown[k] == v for k, v in wanted.items()) else None


async def test_a_command_to_move_carries_a_fresh_ticket_and_none_is_stored(place: Place) -> None:
    call = await place.call("us-east")
    await place.command("regions/us-east", "drain", within_s=50)
    asked = await place.until(lambda: _all(place, [call]), "the call asked")
    stored = await place.sql("select body from vx.desired where kind = 'move'")
    assert [json.loads(r["body"]) for r in stored] == [{"epoch": str(asked[call.id])}]
    edge = place.edges["us-east"]
    commands = await place.api.control.fleet_store.commands(edge.edge_id, 0)
    completed = await place.api.control.draining.orders.complete(commands)
    [move] = [c for c, _ in completed if c.kind == "move"]
    claims = read(move.body["ticket"], keys=place.api.control.keyring.public_keys)
    assert claims.call == call.id
    assert [g.epoch for g in claims.grants] == list(range(asked[call.id], asked[call.id] + 2))
    assert "us-east" not in {g.region for g in claims.grants}
    assert 0 < int(move.body["within_ms"]) <= 50_000
    await place.command("regions/us-east", "uncordon")
    assert [c.kind for c, i in await place.api.control.draining.orders.complete(commands) if i] == ["stay"]


async def test_a_call_whose_measurements_are_gone_goes_to_the_next_nearest_of_its_record(
    place: Place,
) -> None:
    """A drain, a move and a new ticket start from what was believed when the call was placed."""
    await place.add("ap-south", "in")
    way = {"us-east": 10, "us-west": 200, "eu-west": 90, "ap-south": 150}
    calls = []
    for key in ("one", "two"):
        body = {
            "agent": {"url": "ws://127.0.0.1:9/"},
            "latencies": [{"region": r, "rtt_ms": ms} for r, ms in way.items()],
        }
        made = await place.project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": key})
        call = WrittenCall(made.json()["id"], [place.edges["us-east"]], place.project, made.json()["ticket"])
        await call.append(place.api, 1, event(1, "call.answered", encoding="pcm16", sample_rate=16_000))
        calls.append(call)
    await place.sql("update vx.calls set request = request - 'latencies'")
    new = await place.project.client.post(f"/v1/calls/{calls[0].id}/ticket", json={"ticket": calls[0].ticket})
    grants = read(new.json()["ticket"], keys=place.api.control.keyring.public_keys).grants
    assert [g.region for g in grants] == ["us-east", "eu-west", "ap-south"]
    moving = await place.project.client.post(f"/v1/calls/{calls[0].id}/move")
    assert moving.json()["region"] == "eu-west"
    await place.command("regions/us-east", "drain", within_s=600)
    await place.until(lambda: _all(place, calls), "both asked")
    rows = await place.sql("select to_edge from vx.moves")
    assert {r["to_edge"] for r in rows} == {place.edges["eu-west"].edge_id}


async def test_an_uncordon_leaves_alone_what_was_asked_for_by_itself(place: Place) -> None:
    own, drained = await place.call("us-east"), await place.call("us-east")
    asked = await place.project.client.post(f"/v1/calls/{own.id}/move", json={"within_s": 600})
    assert asked.status_code == 202, asked.text
    await place.command("regions/us-east", "drain", within_s=600)
    await place.until(lambda: _all(place, [drained]), "the other call asked")
    await place.command("regions/us-east", "uncordon")
    commands = await place.api.control.fleet_store.commands(place.edges["us-east"].edge_id, 0)
    completed = await place.api.control.draining.orders.complete(commands)
    said = [(c.kind, ids.encode(ids.CALL, i) if i is not None else None) for c, i in completed]
    assert {kind for kind, call in said if call == own.id} == {"move"}
    assert {kind for kind, call in said if call == drained.id} == {"stay"}
    assert [kind for kind, call in said if call is None] == ["drain", "undrain"]


async def test_residency_holds_a_call_where_it_is_and_is_said(place: Place) -> None:
    bound = await place.call("us-east", allow=["us-east"])
    free = await place.call("us-east", pin="us-east")
    await place.command("regions/us-east", "evacuate")
    shown = await place.until(lambda: _stuck(place, "regions/us-east"), "the stuck call")
    assert shown["stuck"] == [{"call_id": bound.id, "why": "residency"}]
    assert set(await place.asked("us-east")) == {free.id}, "a pin binds no call that must leave"


async def _stuck(place: Place, what: str) -> dict[str, Any] | None:
    shown = await place.progress(what)
    return shown if shown["stuck"] and shown["under_way"] else None


async def test_nothing_is_asked_of_an_edge_that_has_no_room(place: Place) -> None:
    small = await place.add("us-south", capacity=2)
    calls = [await place.call("us-east", allow=["us-east", "us-south"]) for _ in range(5)]
    await place.command("regions/us-east", "drain")
    await place.until(lambda: _some(place), "two asked")
    shown = await place.until(lambda: _is(place, "regions/us-east", under_way=2, left=5), "two under way")
    for _ in range(3):
        await place.sql("update vx.drains set claimed_until = '-infinity'")
        await DrainWorker.round(_worker(place.api))
    [row] = await place.sql("select count(*) from vx.moves where to_edge = $1", small.edge_id)
    assert row["count"] == 2
    shown = await place.until(lambda: _stuck(place, "regions/us-east"), "three stuck")
    assert [s["why"] for s in shown["stuck"]] == ["full"] * 3
    assert len(calls) == 5


async def _some(place: Place) -> bool:
    return len(await place.asked("us-east")) == 2


def _worker(api: Api) -> DrainWorker:
    """Another instance's."""
    return Draining.of(api.control.db, api.control.calls).worker


async def test_a_new_call_takes_no_place_that_a_call_on_its_way_will_need(place: Place) -> None:
    """Two places are free, and two live calls come: who is new is told that it is full, and finds room once they are not."""
    calls = [await place.call("us-east") for _ in range(2)]
    await place.sql("update vx.edges set capacity_calls = 2 where region = 'us-west'")
    await place.sql("update vx.edges set admin_state = 'cordoned' where region = 'eu-west'")
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"allow": ["us-west"]}}
    assert (await place.command("regions/us-east", "drain", within_s=600)).status_code == 202

    async def answer() -> tuple[int, str]:
        made = await place.project.client.post(
            "/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())}
        )
        return made.status_code, made.json().get("code", "")

    await place.until(lambda: _all(place, calls), "both asked")
    await place.api.control.fleet.refresh()
    assert await answer() == (503, "temporary-reduced-capacity")
    for call in calls:
        await call.append(place.api, 1, event(2, "call.ended", end_reason="caller_hung_up"))

    async def room() -> bool:
        return (await answer())[0] == 201

    await place.until(room, "a place again")


async def test_many_instances_ask_each_call_once(place: Place) -> None:
    calls = [await place.call("us-east") for _ in range(12)]
    await place.command("regions/us-east", "evacuate")
    await asyncio.gather(*(_worker(place.api).round() for _ in range(8)))
    await place.until(lambda: _all(place, calls), "every call asked")
    [row] = await place.sql("select count(*) as moves, count(distinct call_id) as calls from vx.moves")
    assert (row["moves"], row["calls"]) == (12, 12)
    granted = await place.sql("select epoch_granted, cardinality(grant_edges) as edges from vx.calls")
    assert all(r["epoch_granted"] == r["edges"] for r in granted)


async def test_what_contradicts_what_is_under_way_is_refused(place: Place) -> None:
    await place.call("us-east")
    assert (await place.command("regions/us-east", "cordon")).json()["admin_state"] == "cordoned"
    assert (await place.command("regions/us-east", "drain")).status_code == 202
    assert problem(await place.command("regions/us-east", "cordon")) == (409, "is_draining")
    edge = ids.encode(ids.EDGE, place.edges["us-east"].edge_id)
    assert problem(await place.command(f"edges/{edge}", "drain")) == (409, "is_draining")
    again = await place.command("regions/us-east", "drain", within_s=900)
    assert again.status_code == 202
    assert (await place.command("regions/us-east", "evacuate")).json()["kind"] == "evacuate"
    assert problem(await place.command("regions/us-east", "drain")) == (409, "is_evacuating")
    [row] = await place.sql("select count(*) from vx.drains")
    assert row["count"] == 1


async def test_the_last_region_that_takes_calls_is_not_drained(place: Place) -> None:
    both = await asyncio.gather(
        *(
            place.command(f"regions/{r}", v)
            for r, v in (("us-east", "drain"), ("us-west", "evacuate"), ("eu-west", "drain"))
        )
    )
    assert sorted(r.status_code for r in both) == [202, 202, 409], (
        "commands at once are decided one after the other"
    )
    [refused] = [r for r in both if r.status_code == 409]
    assert problem(refused) == (409, "nowhere_to_go")
    states = [r["admin_state"] for r in (await place.api.operator.get("/admin/v1/regions")).json()["data"]]
    assert sorted(states) == ["active", "draining", "draining"]


async def test_an_evacuation_needs_room_somewhere(place: Place) -> None:
    await place.sql("update vx.edges set calls = capacity_calls where region <> 'us-east'")
    await place.sql("update vx.edges set calls = 1 where region = 'us-east'")
    refused = await place.command("regions/us-east", "evacuate")
    assert problem(refused) == (409, "no_room")


async def test_targets_that_are_none_and_operators_that_are_none(place: Place) -> None:
    for what in ("regions/nowhere", "edges/edge_00000000000000000000000000", "edges/nonsense"):
        for verb in ("cordon", "drain", "evacuate", "uncordon"):
            assert problem(await place.command(what, verb)) == (404, "not_found")
        assert problem(await place.api.operator.get(f"/admin/v1/{what}/drain")) == (404, "not_found")
    assert problem(await place.api.operator.get("/admin/v1/regions/eu-west/drain")) == (404, "not_found")
    denied = await place.project.client.post("/admin/v1/regions/us-east/drain")
    assert problem(denied) == (403, "forbidden")
    anonymous = await place.api.client()
    assert problem(await anonymous.post("/admin/v1/regions/us-east/drain")) == (401, "unauthenticated")
    assert problem(await place.command("regions/us-east", "drain", within_s=0))[0] == 422
    for what in ("regions/us-east", f"edges/{ids.encode(ids.EDGE, place.edges['us-east'].edge_id)}"):
        assert problem(await place.command(what, "evacuate", within_s=60))[0] == 422, "it waits for nothing"
        shown = (await place.api.operator.get(f"/admin/v1/{what}")).json()
        assert shown["admin_state"] == "active", "and nothing of it was done"


async def test_one_call_is_moved_where_its_project_wants_it(place: Place) -> None:
    call = await place.call("us-east")
    path = f"/v1/calls/{call.id}/move"
    viewer = await place.api.key(place.project, "viewer")
    assert problem(await viewer.post(path)) == (403, "forbidden")
    other = await place.api.project()
    assert problem(await other.client.post(path)) == (404, "not_found")
    assert problem(await place.project.client.post(path, json={"region": "nowhere"}))[0] == 422
    assert problem(await place.project.client.post(path, json={"region": "us-east"})) == (
        409,
        "nowhere_to_go",
    )
    moving = await place.project.client.post(path, json={"region": "eu-west"})
    assert moving.status_code == 202, moving.text
    assert (moving.json()["region"], moving.json()["call_id"]) == ("eu-west", call.id)
    assert (await place.project.client.post(path)).json() == moving.json()
    assert problem(await place.project.client.post(path, json={"region": "us-west"})) == (
        409,
        "move_under_way",
    )
    await place.take(call, moving.json()["epoch"])
    shown = (await place.project.client.get(f"/v1/calls/{call.id}")).json()
    assert (shown["region"], shown["epoch"], shown["state"]) == (
        "eu-west",
        moving.json()["epoch"],
        "in_progress",
    )
    there = await place.project.client.post(path, json={"region": "eu-west"})
    assert problem(there) == (409, "nowhere_to_go")
    assert there.json()["detail"].startswith("The call is in eu-west already")
    on = await place.project.client.post(path, json={"region": "us-west"})
    assert on.status_code == 202, "it may be moved on"
    await place.project.client.post(f"/v1/calls/{call.id}/end")
    assert problem(await place.project.client.post(path)) == (409, "call_ended")


async def test_a_call_that_found_no_place_is_asked_again_at_once_and_not_past_its_deadline(
    place: Place,
) -> None:
    call, other = await place.call("us-east"), await place.call("us-east")
    edge, orders = place.edges["us-east"], place.api.control.draining.orders
    await place.command("regions/us-east", "drain", within_s=600)
    asked = await place.until(lambda: _all(place, [call, other]), "both asked")
    call_id, first = ids.decode(ids.CALL, call.id), asked[call.id]
    elsewhere = place.edges["us-west"].edge_id
    await orders.not_taken(elsewhere, [(call_id, first)])
    await orders.not_taken(edge.edge_id, [(call_id, first + 1), (uuid4(), 1)])
    assert (await place.progress("regions/us-east"))["failed"] == 0, "said by whom it is none of"
    for _ in range(2):
        await orders.not_taken(edge.edge_id, [(call_id, first)])

    async def again() -> int | None:
        epoch = (await place.asked("us-east"))[call.id]
        return epoch if epoch > first else None

    await place.take(call, await place.until(again, "the call asked again"))
    done = await place.until(lambda: _is(place, "regions/us-east", moved=1), "it has moved")
    assert (done["failed"], done["under_way"]) == (1, 1), "the other is waited for"


async def test_of_two_who_saw_the_same_place_one_is_given_it(place: Place) -> None:
    """As where a drain and a move, or two drains, are decided in the same moment."""
    calls = [await place.call("us-east"), await place.call("eu-west")]
    store = DrainStore(place.api.control.db)
    target = place.api.control.fleet.now.edge(place.edges["us-west"].edge_id)
    assert target is not None
    seen, _ = await store.reserved()

    async def move(call: WrittenCall, seen: dict[UUID, int]) -> int:
        edge = call.owners[0].edge_id
        leaving = Leaving(call_id=ids.decode(ids.CALL, call.id), epoch=1, edge_id=edge)
        force_at = place.api.control.clock.now() + timedelta(seconds=60)
        return len(await store.move(None, edge, force_at, [Ask(leaving, (target,))], seen))

    assert sorted(await asyncio.gather(*(move(call, seen) for call in calls))) == [0, 1]
    seen, _ = await store.reserved()
    assert seen == {target.id: 1}
    assert sum(await asyncio.gather(*(move(call, seen) for call in calls))) == 1, "whoever looks again"


async def test_a_move_that_came_to_nothing_stands_in_nobodys_way(place: Place) -> None:
    call = await place.call("us-east")
    path = f"/v1/calls/{call.id}/move"
    first = (await place.project.client.post(path, json={"region": "eu-west"})).json()["epoch"]
    call_id = ids.decode(ids.CALL, call.id)
    orders = place.api.control.draining.orders
    await orders.not_taken(place.edges["us-east"].edge_id, [(call_id, first)])
    again = await place.project.client.post(path, json={"region": "us-west"})
    assert (again.status_code, again.json()["region"]) == (202, "us-west"), again.text
    await place.take(call, again.json()["epoch"])
    await orders.not_taken(place.edges["us-east"].edge_id, [(call_id, again.json()["epoch"])])
    await place.until(lambda: _moved(place, call_id), "what has moved has moved, whatever the old edge says")


async def _moved(place: Place, call_id: UUID) -> bool:
    await DrainStore(place.api.control.db).settle()
    rows = await place.sql("select outcome from vx.moves where call_id = $1 order by epoch", call_id)
    return [r["outcome"] for r in rows] == ["failed", "moved"]


async def test_a_move_that_a_project_asked_for_keeps_no_drain_waiting_past_its_deadline(place: Place) -> None:
    call = await place.call("us-east")
    path = f"/v1/calls/{call.id}/move"
    asked = {"region": "eu-west", "within_s": 3_600}
    moving = (await place.project.client.post(path, json=asked)).json()
    drain = (await place.command("regions/us-east", "drain", within_s=7_200)).json()
    assert drain["deadline"] > moving["deadline"]
    evacuation = (await place.command("regions/us-east", "evacuate")).json()
    assert evacuation["deadline"] < moving["deadline"]

    async def hurried() -> bool:
        shown = (await place.project.client.post(path, json=asked)).json()
        assert (shown["epoch"], shown["region"]) == (moving["epoch"], "eu-west"), "it is the same move"
        told = await place.sql(
            "select count(*) as n from vx.desired where edge_id = $1 and kind = 'move'",
            place.edges["us-east"].edge_id,
        )
        return bool(shown["deadline"] <= evacuation["deadline"] and told[0]["n"] == 2)

    await place.until(hurried, "the edge told of the nearer deadline, once")
    await place.command("regions/us-east", "uncordon")
    kept = (await place.project.client.post(path, json=asked)).json()
    assert kept["epoch"] == moving["epoch"], "what a project asked for is not taken back with the drain"


async def test_a_call_that_nobody_has_attached_to_is_not_moved(place: Place) -> None:
    call = await create_call(place.project, [place.edges["us-east"]])
    assert problem(await place.project.client.post(f"/v1/calls/{call.id}/move")) == (409, "not_attached")
    unknown = await place.project.client.post(f"/v1/calls/{call.id}/move", json={"region": "nowhere"})
    assert problem(unknown)[0] == 422, "what will never do is said before what does not do yet"


async def test_an_edge_that_is_told_to_stop_is_drained_until_it_lives_anew(place: Place) -> None:
    call = await place.call("us-east")
    edge = place.edges["us-east"]
    await place.api.control.draining.orders.stopping(edge.edge_id, edge.incarnation, 40.0)
    await place.api.control.draining.orders.stopping(edge.edge_id, edge.incarnation, 40.0)
    await place.until(lambda: _all(place, [call]), "the call asked")
    name = f"edges/{ids.encode(ids.EDGE, edge.edge_id)}"
    shown = await place.progress(name)
    assert (shown["by"], shown["state"], shown["total"]) == ("edge", "running", 1)
    await place.api.control.fleet.refresh()
    seen = place.api.control.fleet.now.edge(edge.edge_id)
    assert seen is not None and seen.draining and seen.admin_state == "active"
    await place.sql("update vx.edges set incarnation = $2 where id = $1", edge.edge_id, uuid4())
    await place.until(lambda: _is(place, name, state="stopped"), "the drain over")
    await place.api.control.fleet.refresh()
    seen = place.api.control.fleet.now.edge(edge.edge_id)
    assert seen is not None and not seen.draining
