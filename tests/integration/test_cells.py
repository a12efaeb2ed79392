"""Two cells, two databases, two instances: what a project owns lies in its own cell, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import redis.asyncio as redis

from app.assembly import open_control
from app.cells.identity import WrongCell
from app.clock import SystemClock, rfc3339
from app.fleet import hang_ups
from app.local.receiver import WebhookReceiver
from app.log.filters import filter_of
from app.log.live import CHANNEL
from app.preflight import NotReady, check_instance
from app.projects.secrets import RANDOM_BYTES, make
from app.settings import Settings
from regions.wire import ids
from tests.support.api import Api, Project, problem, serving
from tests.support.cells import (
    EveryEdge,
    count,
    create,
    edge_of,
    event,
    known_everywhere,
    project_in,
    settings_of,
)
from tests.support.engines import Engines
from tests.support.hooks import make_hook, until
from tests.support.people import signed_in

PLACES = ["us", "eu"]
TABLES = ["calls", "events", "idempotency", "content_keys", "api_keys"]


@dataclass
class Two:
    """`urls`: by cell. `projects`: by cell, made through the first instance. `edge`: its uplink is with the first."""

    urls: list[str]
    first: Api
    second: Api
    projects: list[Project]
    edge: EveryEdge
    redis_urls: dict[str, str]

    async def where(self, table: str, column: str, value: UUID) -> list[int]:
        return [await count(url, table, column, value) for url in self.urls]

    async def client(self, cell: int, api: Api) -> Any:
        return await api.client(self.projects[cell].key)

    async def calls(self) -> list[str]:
        """One of each cell, made by either instance, on the edge."""
        made = []
        for cell, api in enumerate((self.first, self.second)):
            answer = await create(await self.client(cell, api))
            assert answer.status_code == 201, answer.text
            made.append(answer.json()["id"])
        return made


@dataclass
class Deployed:
    urls: list[str]
    first: Api
    second: Api
    edge: EveryEdge


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(
    engines: Engines,
    module_settings: Callable[[str], Settings],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Deployed]:
    """Of the whole module: tests stand apart by their projects."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(engines.database()) for _ in PLACES]
        settings = settings_of(module_settings(urls[0]), urls, PLACES)
        first = await stack.enter_async_context(serving(settings))
        second = await stack.enter_async_context(serving(settings))
        folder = tmp_path_factory.mktemp("edge")
        edge = await stack.enter_async_context(edge_of(first, "us-east", "us", folder / "edge"))
        await known_everywhere(first, second)
        yield Deployed(urls, first, second, edge)


@pytest.fixture
async def two(deployed: Deployed) -> Two:
    projects = [await project_in(deployed.first), await project_in(deployed.first, jurisdiction="eu")]
    return Two(
        deployed.urls,
        deployed.first,
        deployed.second,
        projects,
        deployed.edge,
        deployed.first.settings.redis_urls,
    )


async def test_what_a_project_owns_lies_in_its_own_cell_whichever_instance_is_asked(two: Two) -> None:
    for cell, project in enumerate(two.projects):
        here = [cell == 0, cell == 1]
        project_id = ids.decode(ids.PROJECT, project.id)
        assert ids.cell_of(project_id) == cell
        for api in (two.first, two.second):
            client = await two.client(cell, api)
            made = await create(client)
            assert made.status_code == 201, made.text
            call = made.json()["id"]
            assert ids.cell_of(ids.decode(ids.CALL, call)) == cell
            assert (await client.get(f"/v1/calls/{call}")).status_code == 200
            said = await client.post(
                f"/v1/calls/{call}/conversation",
                json={"type": "turn", "role": "agent", "text": "a secret", "key": call},
            )
            assert said.status_code in (200, 201), said.text
        assert await two.where("projects", "id", project_id) == [int(h) for h in here]
        for table in TABLES:
            found = await two.where(table, "project_id", project_id)
            assert [n > 0 for n in found] == here, (table, found)


async def test_one_batch_of_an_edge_is_split_by_cell_and_acknowledged_together(two: Two) -> None:
    ours, theirs = await two.calls()
    nowhere = ids.encode(ids.CALL, ids.uuid7(1_700_000_000_000, 7, 9))
    results = await two.edge.append(
        (ours, [event(1, "call.answered"), event(2)]),
        (nowhere, [event(1)]),
        (theirs, [event(1, "call.answered")]),
    )
    assert [(r["status"], r["durable_n"]) for r in results] == [
        ("durable", 2),
        ("refused", 0),
        ("durable", 1),
    ]
    assert await two.where("events", "call_id", ids.decode(ids.CALL, ours)) == [3, 0]
    assert await two.where("events", "call_id", ids.decode(ids.CALL, theirs)) == [0, 2]


async def test_webhooks_feeds_and_conversations_stay_in_the_cell(two: Two) -> None:
    async with WebhookReceiver() as first, WebhookReceiver() as second:
        receivers = [first, second]
        hooks = [
            await make_hook(project, receiver)
            for project, receiver in zip(two.projects, receivers, strict=True)
        ]
        calls = await two.calls()
        await two.edge.append(*((call, [event(1, "call.answered")]) for call in calls))
        for cell, (receiver, hook, call) in enumerate(zip(receivers, hooks, calls, strict=True)):
            await receiver.until(2, 15)
            assert {e["call_id"] for e in receiver.received} == {call}
            client = await two.client(cell, two.second)
            page = await client.get("/v1/events", params={"limit": 50})
            assert {e["call_id"] for e in page.json()["data"]} == {call}
            hook_id = ids.decode(ids.WEBHOOK, hook["id"])
            assert [n > 0 for n in await two.where("deliveries", "webhook_id", hook_id)] == [
                cell == 0,
                cell == 1,
            ]
            # a cursor of one cell's project is no cursor of the other's
            other = await two.client(1 - cell, two.second)
            wrong = await other.get("/v1/events", params={"cursor": page.json()["next_cursor"]})
            assert wrong.status_code == 400


async def test_a_command_reaches_the_edge_from_whichever_cell(two: Two) -> None:
    calls = await two.calls()
    for cell, call in enumerate(calls):
        client = await two.client(cell, two.second)
        assert (await client.post(f"/v1/calls/{call}/end")).status_code == 200
    await until(lambda: _all(two.edge.told(call) == ["end"] for call in calls))
    edge_id = ids.decode(ids.EDGE, two.edge.identity.edge_id or "")
    await until(lambda: _none_left(two, edge_id))


async def test_a_hang_up_of_whichever_cell_reaches_the_edge_with_the_time_that_is_left(two: Two) -> None:
    edge_id = ids.decode(ids.EDGE, two.edge.identity.edge_id or "")
    for control, call in zip(two.first.control.cells, await two.calls(), strict=True):
        asked, bodies = 0, [{}]
        while not bodies[-1]:  # on a machine that is held up for long, it is void: then once more
            asked += 1
            await control.commands.hang_up(ids.decode(ids.CALL, call), edge_id, 1, 8)
            await until(lambda call=call, asked=asked: _all([two.edge.told(call) == ["hangup"] * asked]))
            bodies = [c["body"] for c in two.edge.commands if c["call"] == call]
        assert set(bodies[-1]) == {"epoch", "socket", "until_ms"}


async def test_what_a_hang_up_has_lost_in_its_own_cell_is_taken_off(two: Two) -> None:
    edge_id = ids.decode(ids.EDGE, two.edge.identity.edge_id or "")
    control = list(two.first.control.cells)[1]
    _, call = await two.calls()
    old = """
    with v as (update vx.edges set desired_version = desired_version + 1 where id = $1 returning desired_version)
    insert into vx.desired (edge_id, version, kind, call_id, body, created_at) select $1, desired_version, $2, $3, $4, $5 from v
    """
    written = json.dumps(hang_ups.body(1, 8))
    long_ago = control.clock.now() - timedelta(milliseconds=hang_ups.WITHIN_MS + 500)
    await control.db.pool("admin").execute(
        old, edge_id, hang_ups.KIND, ids.decode(ids.CALL, call), written, long_ago
    )
    await until(lambda: _all([two.edge.told(call) == ["hangup"]]))
    assert [c["body"] for c in two.edge.commands if c["call"] == call] == [{}]


async def _all(values: Any) -> bool:
    return all(values)


async def _none_left(two: Two, edge_id: UUID) -> bool:
    return await two.where("desired", "edge_id", edge_id) == [0, 0]


async def test_a_caller_gets_new_epochs_without_a_key_from_any_instance(two: Two) -> None:
    for cell in (0, 1):
        made = (await create(await two.client(cell, two.first))).json()
        client = await two.second.client()
        renewed = await client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
        assert renewed.status_code == 200, renewed.text
        assert renewed.json()["epoch"] > 1


async def test_what_one_cell_owns_another_cannot_infer(two: Two) -> None:
    ours, theirs = await two.calls()
    for client, foreign in (
        (await two.client(0, two.second), theirs),
        (await two.client(1, two.second), ours),
    ):
        absent = ids.encode(
            ids.CALL, ids.uuid7(1_700_000_000_000, 7, ids.cell_of(ids.decode(ids.CALL, foreign)))
        )
        answers = [await client.get(f"/v1/calls/{call}") for call in (foreign, absent)]
        assert answers[0].status_code != 400, answers[0].text
        assert [problem(a) for a in answers] == [(404, "not_found")] * 2
        assert answers[0].json()["detail"] == answers[1].json()["detail"]
        for verb in ("end", "move"):
            assert (await client.post(f"/v1/calls/{foreign}/{verb}")).status_code == 404
        assert (await client.get(f"/v1/calls/{foreign}/events")).status_code == 404


async def test_a_key_of_no_cell_here_is_as_good_as_one_that_was_never_made(two: Two) -> None:
    said = []
    for cell in (0, 1, 2, 61 * 62):
        client = await two.first.client(make("test", cell, bytes(RANDOM_BYTES)))
        answer = await client.get("/v1/calls")
        assert problem(answer) == (401, "unauthenticated")
        said.append((answer.json()["detail"], answer.json()["fix"]))
    assert len(set(said)) == 1
    # the same secret under another cell's number is another secret
    stolen = two.projects[1].key
    forged = make("test", 0, int(stolen[10:43].encode().hex()[:40], 16).to_bytes(RANDOM_BYTES, "big"))
    assert (await (await two.first.client(forged)).get("/v1/calls")).status_code == 401


async def test_a_project_goes_where_it_is_asked_to_and_nowhere_else(two: Two) -> None:
    operator = two.second.operator
    for asked, cell in (
        ({}, 0),
        ({"cell": 1}, 1),
        ({"jurisdiction": "us"}, 0),
        ({"jurisdiction": "eu", "cell": 1}, 1),
    ):
        made = await operator.post("/admin/v1/projects", json={"name": "there"} | asked)
        assert (made.json()["cell"], made.json()["jurisdiction"]) == (cell, PLACES[cell])
        shown = await two.first.operator.get(f"/admin/v1/projects/{made.json()['id']}")
        assert shown.json() == made.json()
    for asked, code in (
        ({"cell": 2}, "invalid"),
        ({"jurisdiction": "in"}, "residency_unsatisfiable"),
        ({"jurisdiction": "us", "cell": 1}, "residency_unsatisfiable"),
    ):
        refused = await operator.post("/admin/v1/projects", json={"name": "there"} | asked)
        assert problem(refused) == (422, code)
    listed = (await operator.get("/admin/v1/projects")).json()
    assert {p["cell"] for p in listed["data"]} == {0, 1}
    assert listed["cells_away"] == []
    nowhere = ids.encode(ids.PROJECT, ids.uuid7(1_700_000_000_000, 7, 9))
    assert (await operator.get(f"/admin/v1/projects/{nowhere}")).status_code == 404
    key = await operator.post(f"/admin/v1/projects/{nowhere}/keys", json={"name": "first", "role": "owner"})
    assert key.status_code == 404


async def test_the_log_stays_in_the_cells_jurisdiction_or_the_call_is_refused(two: Two) -> None:
    client = await two.client(1, two.first)
    await two.first.operator.post("/admin/v1/regions", json={"id": "eu-west", "jurisdiction": "eu"})
    fleet = [*two.first.control.cells][1].calls.fleet
    await until(lambda: _all(["eu-west" in fleet.now.regions]))
    refused = await create(client, regions={"jurisdictions": ["us"]})
    assert problem(refused) == (422, "residency_unsatisfiable")
    assert "lies in eu" in refused.json()["detail"]
    assert refused.json()["fix"].startswith("Create the call with a project in us")
    assert refused.json()["errors"][0]["pointer"] == "/regions/jurisdictions"
    assert refused.json()["allowed_regions"] == ["eu-west"]
    for jurisdictions in ([], ["us", "eu"]):
        assert (await create(client, regions={"jurisdictions": jurisdictions})).status_code == 201


async def test_what_a_project_claims_of_its_callers_lies_in_its_cell(two: Two) -> None:
    for cell, project in enumerate(two.projects):
        latencies = [{"region": "us-east", "rtt_ms": 31, "at": rfc3339(SystemClock().now())}]
        said = await (await two.client(cell, two.second)).post(
            "/v1/probes", json={"address": "198.51.100.7", "latencies": latencies}
        )
        assert said.status_code == 200, said.text
        found = await two.where("probes", "project_id", ids.decode(ids.PROJECT, project.id))
        assert [n > 0 for n in found] == [cell == 0, cell == 1]
        refused = await project.client.post(
            "/v1/placements/preview",
            json={"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"jurisdictions": [PLACES[1 - cell]]}},
        )
        assert problem(refused) == (422, "residency_unsatisfiable")


async def test_what_is_said_passes_only_through_the_valkeys_of_the_cells_jurisdiction(two: Two) -> None:
    """Between instances: whoever reads is with the second, the edge with the first."""
    await two.first.operator.post("/admin/v1/regions", json={"id": "eu-west", "jurisdiction": "eu"})
    fleet = two.first.control.fleet
    await until(lambda: _all(["eu-west" in fleet.now.regions]))
    calls = await two.calls()
    projects = [ids.decode(ids.PROJECT, project.id) for project in two.projects]
    wanted = filter_of(["transcript.partial"], None, {}, volatile=True)
    seats = [
        control.live.subscribe(project_id, wanted, asyncio.Event())
        for control, project_id in zip(two.second.control.cells, projects, strict=True)
    ]
    passed: set[tuple[str, UUID]] = set()
    heard = [asyncio.create_task(_overhear(two, region, passed)) for region in two.redis_urls]
    said = {"type": "volatile", "epoch": 1, "event": "transcript.partial", "at_ms": 1, "data": {"text": "x"}}

    async def both() -> bool:
        for call in calls:
            await two.edge.socket.send(json.dumps(said | {"call": call}))
        return {project for _, project in passed} >= set(projects) and all(seat.take() for seat in seats)

    try:
        await until(both)
    finally:
        for task in heard:
            task.cancel()
        await asyncio.gather(*heard, return_exceptions=True)
        for seat in seats:
            seat.close()
    assert {place for place in passed if place[1] in projects} == {
        ("us-east", projects[0]),
        ("eu-west", projects[1]),
    }


async def _overhear(two: Two, region: str, passed: set[tuple[str, UUID]]) -> None:
    async with redis.from_url(two.redis_urls[region]) as client, client.pubsub() as channel:
        await channel.psubscribe(CHANNEL + "*")
        async for message in channel.listen():
            if message["type"] == "pmessage":
                passed.add((region, UUID(message["channel"].decode().removeprefix(CHANNEL))))


async def test_the_reconciler_of_a_cell_ends_what_nobody_holds_and_nothing_else(two: Two) -> None:
    """It asks the edge through the home cell's uplinks, and goes by its own copy of the fleet."""
    ours, theirs = await two.calls()
    await two.edge.append(*((call, [event(1, "call.answered")]) for call in (ours, theirs)))
    for control, call in zip(two.first.control.cells, (ours, theirs), strict=True):
        edge_id = ids.decode(ids.EDGE, two.edge.identity.edge_id or "")
        await control.overdue.lapsed(edge_id, [(ids.decode(ids.CALL, call), 1)])
        for question in await control.overdue.questions(0.0):
            await control.commands.deny(question.call_id, question.edge_id, question.epoch)
    await until(lambda: _all("deny" in two.edge.told(call) for call in (ours, theirs)))

    async def denied() -> bool:
        return all([
            {o.call_id for o in await control.overdue.over(0.0)} == {ids.decode(ids.CALL, call)}
            for control, call in zip(two.first.control.cells, (ours, theirs), strict=True)
        ])  # fmt: skip

    await until(denied)


async def test_readiness_names_every_cell(two: Two) -> None:
    ready = (await (await two.first.client()).get("/readyz")).json()
    assert ready["status"] == "ready"
    assert [(c["cell"], c["jurisdiction"], c["ready"], c["delivers"]) for c in ready["cells"]] == [
        (0, "us", True, True),
        (1, "eu", True, True),
    ]


async def test_an_instance_sends_no_webhook_of_a_cell_that_lies_elsewhere(
    engines: Engines, settings: Settings, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        urls = [settings.database_url, await stack.enter_async_context(engines.database())]
        receiver = await stack.enter_async_context(WebhookReceiver())
        here = await stack.enter_async_context(
            serving(settings_of(settings, urls, PLACES, jurisdictions=("us",)))
        )
        project = await project_in(here, cell=1)
        hook = await make_hook(project, receiver)
        await stack.enter_async_context(edge_of(here, "us-east", "us", tmp_path / "edge"))
        ready = (await (await here.client()).get("/readyz")).json()
        assert [c["delivers"] for c in ready["cells"]] == [True, False]
        assert (await create(project.client)).status_code == 201
        # of its own cell it does, after that one: it would have come to the other long ago
        own = await project_in(here, cell=0)
        mine = await stack.enter_async_context(WebhookReceiver())
        await make_hook(own, mine)
        assert (await create(own.client)).status_code == 201
        await mine.until(1, 15)
        assert receiver.received == []
        assert (
            await count(urls[1], "delivery_attempts", "webhook_id", ids.decode(ids.WEBHOOK, hook["id"])) == 0
        )
        await stack.enter_async_context(serving(settings_of(settings, urls, PLACES, jurisdictions=("eu",))))
        await receiver.until(1, 15)


async def test_databases_remember_which_cell_they_are(engines: Engines, settings: Settings) -> None:
    async with engines.database() as other:
        urls = [settings.database_url, other]
        async with serving(settings_of(settings, urls, PLACES)):
            pass
        for wrong in (
            settings_of(settings, urls[::-1], PLACES),
            settings_of(settings, urls, PLACES[::-1]),
            settings_of(settings, urls, ["us", "in"]),
            settings,
        ):
            with pytest.raises(NotReady, match=r"this database is cell . in"):
                await check_instance(wrong)
            with pytest.raises(WrongCell):
                await _open(wrong)
        await check_instance(settings_of(settings, urls, PLACES))
        async with engines.database() as fresh:
            with pytest.raises(NotReady, match="DATABASE_URL_CELL_1: this database is cell 0 in us"):
                await check_instance(settings_of(settings, [urls[0], urls[0]], PLACES))
            await check_instance(settings_of(settings, [urls[0], fresh], ["us", "in"]))


async def _open(settings: Settings) -> None:
    async with open_control(settings, asyncio.Event()):
        pass


async def test_people_of_the_home_cell_work_in_projects_of_every_cell(two: Two) -> None:
    here, there = two.projects
    came, person = await signed_in(two.second, "ada@cells.example", {here.id: "viewer", there.id: "admin"})

    shown = await came.get(f"/console/p/{there.id}/keys")
    assert shown.status_code == 200 and "first" in shown.text
    made = await came.send(f"/console/p/{there.id}/keys", {"name": "made here", "role": "viewer"})
    secret = re.search(r"vx_test_\w+", made.text)
    assert secret is not None, made.text
    assert (await (await two.first.client(secret[0])).get("/v1/calls")).status_code == 200
    assert (await came.get(f"/console/p/{there.id}/map")).status_code == 200
    assert (await came.get(f"/console/p/{here.id}/keys")).status_code == 403
    members = (await there.client.get("/v1/members")).json()["data"]
    assert [m["id"] for m in members] == [person]
    assert (await there.client.delete(f"/v1/members/{person}")).status_code == 204
    assert (await came.get(f"/console/p/{there.id}/map")).status_code == 404
    assert (await came.get(f"/console/p/{here.id}/map")).status_code == 200
