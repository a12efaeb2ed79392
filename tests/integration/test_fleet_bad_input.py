"""Commands that contradict each other or lead nowhere: refused with what to do instead, and the fleet's books stay right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.settings import Settings
from tests.support.api import problem, serving
from tests.support.place import Place
from tests.support.schemas import documented

DRILL: dict[str, Any] = {"kind": "region.loss", "target": "us-east", "calls": "real", "share": 1}


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[Place]:
    async with serving(settings) as api:
        made = Place(api, await api.project())
        for region in ("us-east", "us-west"):
            await made.add(region, region[:2])
        yield made


async def test_nothing_is_evacuated_to_nowhere(place: Place) -> None:
    await place.call("us-east")
    assert (await place.command("regions/us-west", "cordon")).status_code == 200
    for verb in ("drain", "evacuate"):
        assert problem(await place.command("regions/us-east", verb)) == (409, "nowhere_to_go")
    refused = await place.api.operator.post("/admin/v1/drills", json=DRILL)
    assert problem(refused) == (409, "nowhere_to_go")
    assert (await place.command("regions/us-east", "cordon")).status_code == 200, "it may take no new calls"
    await place.command("regions/us-west", "uncordon")
    assert (await place.command("regions/us-east", "evacuate")).status_code == 202


@pytest.mark.parametrize("order", [0, 1, 2])
async def test_all_commands_at_once_are_decided_one_after_the_other(place: Place, order: int) -> None:
    await place.call("us-east")
    verbs = ["cordon", "drain", "evacuate", "uncordon", "drill"]
    verbs = (verbs[order:] + verbs[:order]) * 2

    async def tell(verb: str) -> Any:
        if verb == "drill":
            return await place.api.operator.post("/admin/v1/drills", json=DRILL)
        return await place.command("regions/us-east", verb)

    for answer in await asyncio.gather(*(tell(v) for v in verbs)):
        assert answer.status_code in (200, 202) or problem(answer)[0] == 409, answer.text
    [region] = await place.sql("select admin_state from vx.regions where id = 'us-east'")
    [drains] = await place.sql("select count(*) from vx.drains where ended_at is null")
    assert drains["count"] == (region["admin_state"] == "draining"), "what is shown is what is done"
    [drills] = await place.sql("select count(*) from vx.drills where ended_at is null")
    assert drills["count"] <= 1


async def test_no_command_is_gone_around_by_changing_the_region(place: Place) -> None:
    read = await place.api.operator.get("/admin/v1/regions/us-east")
    headers = {"If-Match": read.headers["etag"]}
    path = "/admin/v1/regions/us-east"
    refused = await place.api.operator.patch(path, json={"admin_state": "draining"}, headers=headers)
    assert problem(refused)[0] in (400, 422)
    renamed = await place.api.operator.patch(path, json={"name": "Virginia"}, headers=headers)
    assert renamed.status_code == 200 and renamed.json()["admin_state"] == "active"


@pytest.mark.parametrize("said", ["\xb2", "9" * 30, '"9999999999"', 'W/"1"', '""'])
async def test_a_region_is_changed_only_where_its_version_is_known(place: Place, said: str) -> None:
    path, headers = "/admin/v1/regions/us-east", [(b"if-match", said.encode("latin-1"))]
    refused = await place.api.operator.patch(path, json={"weight": 0.5}, headers=headers)
    assert problem(refused) == (412, "precondition_failed")


async def test_a_dry_drill_is_an_answer_that_is_documented(place: Place) -> None:
    await place.call("us-east")
    shown = await place.api.operator.post("/admin/v1/drills", json=DRILL | {"dry_run": True})
    assert shown.status_code == 200, shown.text
    answers = documented("adminStartDrill")
    assert answers[200] == {"$ref": "#/components/schemas/DrillPreview"}
    assert answers[202] == {"$ref": "#/components/schemas/DrillView"}


async def test_operators_rights_are_nobody_elses(place: Place) -> None:
    owner, anonymous = place.project.client, await place.api.client()
    for client, answer in ((owner, (403, "forbidden")), (anonymous, (401, "unauthenticated"))):
        for verb in ("cordon", "drain", "evacuate", "uncordon"):
            assert problem(await client.post(f"/admin/v1/regions/us-east/{verb}")) == answer
        assert problem(await client.post("/admin/v1/drills", json=DRILL)) == answer
        assert problem(await client.get("/admin/v1/drills")) == answer
        assert problem(await client.post("/admin/v1/drills/drill_x/stop")) == answer
        assert problem(await client.get("/admin/v1/regions/us-east/health")) == answer


async def test_an_edge_that_says_it_is_empty_gets_calls_that_can_go_elsewhere(place: Place) -> None:
    """It has the last word on its room: who it refuses has a standby at hand. One that says it is full gets none."""
    await place.sql("update vx.edges set calls = 0, capacity_calls = 100000 where region = 'us-east'")
    await place.api.control.fleet.refresh()
    call = await place.call("us-east")
    shown = (await place.project.client.get(f"/v1/calls/{call.id}")).json()
    assert shown["placement"]["protection"] == "reduced"
    [row] = await place.sql("select grant_edges from vx.calls")
    assert len(set(row["grant_edges"])) == 2, "another edge, in another region"
    await place.sql("update vx.edges set calls = 100000 where region = 'us-east'")
    await place.api.control.fleet.refresh()
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": [{"region": "us-east", "rtt_ms": 1}]}
    made = await place.project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": "liar"})
    assert made.json()["region"] == "us-west"
