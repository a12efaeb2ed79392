"""Drills over the API, with edges on paper that do as they are told: what is cut when, what is reported, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from app.drilling import Drilling
from app.fleet.drill_shapes import DrillRequest
from app.fleet.drill_worker import DrillWorker
from app.fleet.policy import Target
from app.settings import Settings
from regions.wire import ids
from regions.wire.events import Origin
from regions.wire.uplink import Cut
from tests.support.api import problem, serving
from tests.support.calls import WrittenCall, event
from tests.support.place import Place

pytestmark = pytest.mark.slow

DRILLS = "/admin/v1/drills"
AT_MS = 1_700_000_000_000
REAL: dict[str, Any] = {"kind": "region.loss", "target": "us-east", "calls": "real", "share": 1}


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[Place]:
    async with serving(settings) as api:
        made = Place(api, await api.project())
        for region in ("us-east", "us-west", "eu-west"):
            await made.add(region, region[:2])
        yield made


class Drill:
    """One that was begun, and the edges' part in it."""

    def __init__(self, place: Place, body: dict[str, Any]) -> None:
        self.place = place
        self.id: str = body["id"]
        self.answered: set[str] = set()

    async def show(self) -> dict[str, Any]:
        shown = await self.place.api.operator.get(f"{DRILLS}/{self.id}")
        assert shown.status_code == 200, shown.text
        found: dict[str, Any] = shown.json()
        return found

    async def asked(self, region: str = "us-east") -> list[tuple[str, int]]:
        """(call, epoch) of the cuts that the region's edge was told of and has not answered."""
        commands = await self.place.api.control.fleet_store.commands(self.place.edges[region].edge_id, 0)
        found = [
            (ids.encode(ids.CALL, call), int(c.body["epoch"]))
            for c, call in commands
            if c.kind == "cut" and call is not None
        ]
        return [f for f in dict.fromkeys(found) if f[0] not in self.answered]

    async def cut(self, call: str, epoch: int = 1, region: str = "us-east", **said: Any) -> None:
        self.answered.add(call)
        edge = self.place.edges[region].edge_id
        given = {"at_ms": AT_MS, "acked_seq": 2} | said
        await self.place.api.control.draining.orders.cut(edge, [Cut(call=call, epoch=epoch, **given)])

    async def until(self, **wanted: Any) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            shown = await self.show()
            return shown if all(shown[k] == v for k, v in wanted.items()) else None

        found: dict[str, Any] = await self.place.until(there, f"{wanted}")
        return found

    async def until_asked(self, count: int) -> list[tuple[str, int]]:
        async def there() -> list[tuple[str, int]] | None:
            found = await self.asked()
            return found if len(found) == count else None

        found: list[tuple[str, int]] = await self.place.until(there, f"{count} cuts")
        return found


async def begin(place: Place, **more: Any) -> Drill:
    made = await place.api.operator.post(DRILLS, json=REAL | more)
    assert made.status_code == 202, made.text
    return Drill(place, made.json())


async def refused(place: Place, **more: Any) -> tuple[int, str]:
    return problem(await place.api.operator.post(DRILLS, json=REAL | more))


async def take_over(
    place: Place, call: WrittenCall, *, after_ms: int = 120, adopt: Origin | None = None
) -> None:
    """The caller has taken its first standby, and audio flows there."""
    [row] = await place.sql(
        "select grant_edges[2] as edge from vx.calls where id = $1", ids.decode(ids.CALL, call.id)
    )
    call.owners.append(next(e for e in place.edges.values() if e.edge_id == row["edge"]))
    taken = [event(1, "call.reconnecting", from_epoch=1, to_epoch=2, reason="closed", history="snapshot")]
    if adopt is not None:
        taken.append(event(2, "speech.started", origin=adopt))
    n = len(taken) + 1
    served, back = event(n, "agent.connected"), event(n + 1, "call.reconnected", from_epoch=1, region="x")
    later = [
        msgspec.structs.replace(e, at_ms=AT_MS + after_ms + late) for e, late in ((served, 0), (back, 30))
    ]
    await call.append(place.api, 2, *taken, *later)


async def types(place: Place) -> list[tuple[str, dict[str, Any]]]:
    found = (await place.api.operator.get("/admin/v1/events", params={"limit": 100})).json()["data"]
    return [(e["type"], e["data"]) for e in found if e["type"].startswith("drill.")]


async def test_a_drill_goes_in_waves_and_reports_each_call(place: Place) -> None:
    calls = {c.id: c for c in [await place.call("us-east") for _ in range(12)]}
    drill = await begin(place)
    for number, size in enumerate((1, 2, 9), start=1):
        asked = await drill.until_asked(size)
        assert (await drill.show())["wave"] == number
        for i, (call, epoch) in enumerate(asked):
            assert epoch == 1
            await drill.cut(call, unacked=[Origin(epoch=1, n=2), Origin(epoch=1, n=3)])
            await take_over(place, calls[call], after_ms=100 + i, adopt=Origin(epoch=1, n=2))
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["reason"], shown["total"], shown["wave"]) == ("passed", "", 12, 3)
    summary = shown["summary"]
    assert (summary["cut"], summary["recovered"], summary["lost"], summary["open"]) == (12, 12, 0, 0)
    assert (summary["lost_events"], summary["adopted_events"], summary["dropped_events"]) == (0, 12, 12)
    assert {c["wave"] for c in shown["per_call"]} == {1, 2, 3}
    for told in shown["per_call"]:
        assert (told["from_region"], told["from_epoch"], told["to_epoch"]) == ("us-east", 1, 2)
        assert told["to_region"] in ("us-west", "eu-west") and told["outcome"] == "recovered"
        assert told["audio_ms"] == told["rto_ms"] + 30
        events = await calls[told["call_id"]].project.client.get(f"/v1/calls/{told['call_id']}/events")
        [drilled] = [e for e in events.json()["data"] if e["type"] == "call.drilled"]
        assert drilled["data"]["drill_id"] == drill.id and drilled["data"]["from_epoch"] == 1
    await place.until(lambda: _said(place, ["drill.started", "drill.finished"]), "the events")


async def _said(place: Place, wanted: list[str]) -> bool:
    return [t for t, _ in await types(place)] == wanted


async def test_a_drill_whose_bound_is_broken_stops_after_its_first_wave(place: Place) -> None:
    calls = {c.id: c for c in [await place.call("us-east") for _ in range(12)]}
    drill = await begin(place, bounds={"max_lost_events": 0})
    [(call, _)] = await drill.until_asked(1)
    # the edge was told of three events, and the log has two
    await drill.cut(call, acked_seq=3)
    await take_over(place, calls[call])
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["reason"], shown["wave"]) == ("stopped", "max_lost_events", 1)
    assert (shown["summary"]["cut"], shown["summary"]["lost_events"]) == (1, 1)
    assert await drill.asked() == []
    await place.until(
        lambda: _said(place, ["drill.started", "drill.stopped", "drill.finished"]), "the events"
    )
    assert (await types(place))[1][1]["reason"] == "max_lost_events"


async def test_a_clock_that_is_an_hour_off_is_not_believed(place: Place) -> None:
    call = await place.call("us-east")
    drill = await begin(place)
    await drill.until_asked(1)
    await drill.cut(call.id, at_ms=AT_MS - 3_600_000)
    await take_over(place, call)
    shown = await drill.until(state="ended")
    [told] = shown["per_call"]
    assert told["clock"] == "database" and told["rto_ms"] < 60_000


async def test_a_call_that_does_not_come_back_breaks_the_bound_and_one_that_hangs_up_does_not(
    place: Place,
) -> None:
    calls = {c.id: c for c in [await place.call("us-east") for _ in range(2)]}
    drill = await begin(place, bounds={"max_failed_calls": 0})
    [(first, _)] = await drill.until_asked(1)
    await drill.cut(first)
    await calls[first].append(place.api, 1, event(2, "call.ended", end_reason="caller_hung_up"))
    [(second, _)] = await drill.until_asked(1)
    await drill.cut(second)
    await calls[second].append(place.api, 1, event(2, "call.ended", end_reason="edge_lost"))
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["reason"]) == ("failed", "max_failed_calls"), "nothing was left to spare"
    assert {c["call_id"]: c["outcome"] for c in shown["per_call"]} == {first: "ended", second: "lost"}


async def test_a_call_that_has_left_is_untouched_and_another_is_cut_instead(place: Place) -> None:
    calls = [await place.call("us-east") for _ in range(3)]
    drill = await begin(place, max_calls=1)
    [(first, _)] = await drill.until_asked(1)
    await drill.cut(first, held=False)
    [(second, _)] = await drill.until_asked(1)
    assert second != first
    await drill.cut(second)
    await take_over(place, next(c for c in calls if c.id == second))
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["summary"]["cut"], shown["summary"]["untouched"]) == ("passed", 1, 1)


async def test_an_edge_that_does_not_answer_is_asked_again_and_then_given_up(place: Place) -> None:
    await place.call("us-east")
    drill = await begin(place)
    await drill.until_asked(1)
    for _ in range(4):
        await place.sql("update vx.drill_calls set asked_at = asked_at - interval '4 seconds'")
        await place.sql("update vx.drills set claimed_until = '-infinity'")
        await _worker(place).round()
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["reason"]) == ("stopped", "no_calls")
    [row] = await place.sql("select asks from vx.drill_calls")
    assert row["asks"] == 3


def _worker(place: Place) -> DrillWorker:
    """Another instance's."""
    control = place.api.control
    return Drilling.of(
        control.db, control.calls, control.appender, control.fleet_events, control.audit
    ).worker


async def test_many_instances_begin_each_wave_once(place: Place) -> None:
    for _ in range(6):
        await place.call("us-east")
    drill = await begin(place)
    store = _worker(place)._store
    found, places = await _worker(place).candidates_of(uuid4(), _request(), _target(place))
    assert len(places) == 6
    await drill.until_asked(1)
    drill_id = ids.decode(ids.DRILL, drill.id)
    await asyncio.gather(*(store.next_wave(drill_id, 2, found[i : i + 2]) for i in range(4)))
    [row] = await place.sql("select count(*) from vx.drill_calls where wave = 2")
    assert row["count"] <= 2
    await place.api.operator.post(f"{DRILLS}/{drill.id}/stop")


def _request() -> DrillRequest:
    return DrillRequest(**REAL)


def _target(place: Place) -> Target:
    return Target(place.api.control.fleet.now, "us-east", None)


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(place: Place) -> None:
    for _ in range(10):
        await place.call("us-east")
    await place.call("us-east", allow=["us-east"])
    shown = await place.api.operator.post(DRILLS, json=REAL | {"share": 0.5, "dry_run": True})
    assert shown.status_code == 200, shown.text
    found = shown.json()
    assert (found["on_target"], found["unprotected"], found["total"], found["waves"]) == (11, 1, 6, [1, 1, 4])
    assert sum(d["calls"] for d in found["destinations"]) == 6
    assert "us-east" not in {d["region"] for d in found["destinations"]}
    assert (await place.api.operator.get(DRILLS)).json()["data"] == []
    [row] = await place.sql("select count(*) from vx.desired where kind = 'cut'")
    assert row["count"] == 0


async def test_an_operator_stops_a_drill_and_what_was_cut_is_followed(place: Place) -> None:
    calls = {c.id: c for c in [await place.call("us-east") for _ in range(4)]}
    drill = await begin(place)
    [(call, _)] = await drill.until_asked(1)
    await drill.cut(call)
    stopped = (await place.api.operator.post(f"{DRILLS}/{drill.id}/stop")).json()
    assert stopped["state"] == "stopping"
    await take_over(place, calls[call])
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["reason"], shown["summary"]["recovered"]) == ("cancelled", "operator", 1)
    again = await place.api.operator.post(f"{DRILLS}/{drill.id}/stop")
    assert again.json()["verdict"] == "cancelled"
    listed = (await place.api.operator.get(DRILLS)).json()["data"]
    assert [(d["id"], d["per_call"]) for d in listed] == [(drill.id, None)]


async def test_a_cut_that_the_edge_was_not_told_of_before_the_drill_was_stopped_is_never_told(
    place: Place,
) -> None:
    """Its edge had no uplink: what waits for it there is stale once the drill is off."""
    await place.call("us-east")
    drill = await begin(place)
    await drill.until_asked(1)
    orders, store = place.api.control.draining.orders, place.api.control.fleet_store

    async def told() -> list[dict[str, str]]:
        waiting = await store.commands(place.edges["us-east"].edge_id, 0)
        return [c.body for c, _ in await orders.complete(waiting) if c.kind == "cut"]

    assert {b["epoch"] for b in await told()} == {"1"}
    await place.api.operator.post(f"{DRILLS}/{drill.id}/stop")
    assert [b for b in await told() if b] == []


async def test_a_drain_that_begins_stops_the_drill(place: Place) -> None:
    calls = {c.id: c for c in [await place.call("us-east") for _ in range(4)]}
    await place.call("us-west")
    drill = await begin(place)
    [(call, _)] = await drill.until_asked(1)
    assert (await place.command("regions/us-west", "drain", within_s=600)).status_code == 202
    await drill.cut(call)
    await take_over(place, calls[call])
    shown = await drill.until(state="ended")
    assert (shown["verdict"], shown["reason"], shown["wave"]) == ("stopped", "drain_running", 1)


async def test_what_cannot_be_drilled_is_refused_with_what_to_do(place: Place) -> None:
    assert await refused(place) == (409, "no_calls")
    call = await place.call("us-east")
    for share in (0, -1, 1.01):
        assert (await refused(place, share=share))[0] == 422
    assert (await refused(place, kind="edge.loss")) == (404, "not_found")
    assert (await refused(place, target="nowhere")) == (404, "not_found")
    assert (await refused(place, kind="edge.loss", target=ids.encode(ids.EDGE, UUID(int=1)))) == (
        404,
        "not_found",
    )
    assert (await refused(place, calls="synthetic"))[0] == 422
    assert (await refused(place, calls="synthetic", label="x")) == (409, "no_calls")
    assert (await refused(place, label="x"))[0] == 422
    denied = await place.project.client.post(DRILLS, json=REAL)
    assert problem(denied) == (403, "forbidden")
    assert problem(await (await place.api.client()).post(DRILLS, json=REAL)) == (401, "unauthenticated")
    for text in ("nonsense", ids.encode(ids.DRILL, UUID(int=7))):
        assert problem(await place.api.operator.get(f"{DRILLS}/{text}")) == (404, "not_found")
        assert problem(await place.api.operator.post(f"{DRILLS}/{text}/stop")) == (404, "not_found")
    assert (await place.command("regions/us-west", "drain")).status_code == 202
    assert (await refused(place, target="us-west")) == (409, "is_draining")
    await place.sql("update vx.drains set drained_at = null, claimed_until = 'infinity'")
    assert (await refused(place)) == (409, "drain_running")
    await place.command("regions/us-west", "uncordon")
    await place.command("regions/us-west", "cordon")
    await place.command("regions/eu-west", "cordon")
    assert (await refused(place)) == (409, "nowhere_to_go")
    await place.command("regions/us-west", "uncordon")
    await place.sql("update vx.edges set calls = capacity_calls where region <> 'us-east'")
    assert (await refused(place)) == (409, "no_standbys")
    assert call.id


async def test_of_drills_at_once_one_begins(place: Place) -> None:
    for _ in range(3):
        await place.call("us-east")
    both = await asyncio.gather(*(place.api.operator.post(DRILLS, json=REAL) for _ in range(3)))
    assert sorted(r.status_code for r in both) == [202, 409, 409]
    assert {problem(r) for r in both if r.status_code == 409} == {(409, "drill_running")}


async def test_a_drill_and_a_drain_at_once_are_decided_one_after_the_other(place: Place) -> None:
    await place.call("us-east")
    drill, drain = await asyncio.gather(
        place.api.operator.post(DRILLS, json=REAL), place.command("regions/us-east", "drain", within_s=600)
    )
    assert drain.status_code == 202
    if drill.status_code == 202:
        shown = await Drill(place, drill.json()).until(state="ended")
        assert (shown["verdict"], shown["summary"]["cut"]) == ("stopped", 0)
    else:
        assert problem(drill) == (409, "is_draining")
