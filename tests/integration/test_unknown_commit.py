"""Visible is not durable: a commit whose wait for the standbys was cut short is acknowledged to nobody and served to nobody.

On a real server that waits for a standby which does not exist. The waits are cut short as an operator's cancel or a
client's deadline would: the driver is told success, and a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app.calls.store import CallStore
from app.connection import CommitUnknown
from app.local.receiver import WebhookReceiver
from app.log.append import EdgeIdentity
from app.log.positions import Position
from regions.wire import ids
from regions.wire.events import Source
from regions.wire.uplink import CallEvents
from tests.conftest import make_settings
from tests.integration.test_append import event
from tests.support.api import Api, Project, serving
from tests.support.edges import until
from tests.support.engines import running_engines
from tests.support.fleet import add_region
from tests.support.hooks import patiently
from tests.support.quorum import Quorum, quorum

REGION = "us-east"


@pytest.fixture(scope="module")
def own_engines() -> Any:
    """Servers of this module's own: what is set here is set for the whole of one."""
    with running_engines() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(own_engines: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    data: Path = tmp_path_factory.mktemp("data")
    async with (
        own_engines.database() as url,
        serving(make_settings(url, own_engines.redis_urls, data)) as served,
    ):
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(api: Api) -> EdgeIdentity:
    return EdgeIdentity(*await add_region(api, REGION), REGION)


@pytest.fixture
async def standbys(api: Api) -> AsyncIterator[Quorum]:
    async with quorum(api.settings.database_url) as made:
        yield made


@pytest.fixture
async def receiver(project: Project) -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        hook = (await project.client.post("/v1/webhooks", json={"url": started.url})).json()
        started.secret = hook["secret"]
        yield started


async def create(project: Project, key: str) -> Any:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}}
    return await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": key})


async def visible(standbys: Quorum, call: str) -> list[int]:
    rows = await standbys.superuser.fetch(
        "select seq from vx.events where call_id = $1 order by seq", ids.decode(ids.CALL, call)
    )
    return [row["seq"] for row in rows]


async def test_an_append_that_was_not_waited_for_is_busy_and_served_to_nobody(
    api: Api, project: Project, edge: EdgeIdentity, standbys: Quorum, receiver: WebhookReceiver
) -> None:
    call = (await create(project, "k")).json()["id"]
    await receiver.until(1, 15)
    project_id = ids.decode(ids.PROJECT, project.id)
    streamed: list[int] = []

    async def stream() -> None:
        feed = api.control.feeds.follow(project_id, Position(), look_every_s=60, stop=asyncio.Event())
        async for _, found in feed:
            streamed.extend(event.seq for _, event in found)

    reader = asyncio.create_task(stream())
    await until(lambda: streamed == [1], "the first event")
    run = [ids_run(call, event(1, "call.answered"), event(2))]

    await standbys.require()
    async with standbys.cutting() as cut:
        # again and again, as an edge does: it is never acknowledged, and stored once
        for _ in range(3):
            (answer,) = await api.control.appender.append(edge, run)
            assert (answer.status, answer.durable_n) == ("busy", 0)
        assert await visible(standbys, call) == [1, 2, 3]
        for path in ("", "/events"):
            read = await project.client.get(f"/v1/calls/{call}{path}")
            assert (read.status_code, read.json()["database"]) == (503, "not_replicated"), path
            assert read.headers["retry-after"]
        assert (await project.client.get("/v1/events")).status_code == 503
        before = cut()
        await until(lambda: cut() > before + 5, "the workers and the reader have tried")
    assert streamed == [1]
    assert [e["seq"] for e in receiver.received] == [1]

    await standbys.lift()
    (answer,) = await api.control.appender.append(edge, run)
    assert (answer.status, answer.durable_n, answer.seq) == ("durable", 2, 3)
    await receiver.until(3, 15)
    await until(lambda: len(streamed) == 3, "the reader goes on")
    reader.cancel()
    assert streamed == [1, 2, 3] == [e["seq"] for e in receiver.received]
    listed = (await project.client.get(f"/v1/calls/{call}/events")).json()["data"]
    assert [e["seq"] for e in listed] == [1, 2, 3]


async def test_a_create_that_was_not_waited_for_is_no_call_until_its_key_is_sent_again(
    api: Api, project: Project, edge: EdgeIdentity, standbys: Quorum, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = str(uuid4())
    asked: list[tuple[Any, ...]] = []
    really = CallStore.create

    async def create_calls(*given: Any) -> Any:
        asked.append(given)
        return await really(*given)

    monkeypatch.setattr(CallStore, "create", create_calls)
    await standbys.require()
    async with standbys.cutting():
        for _ in range(2):  # the second finds the record of the first, which is on one copy only
            refused = await create(project, key)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert refused.headers["retry-after"]
        with pytest.raises(CommitUnknown):  # nor does the statement alone answer from such a record
            await really(*asked[0])
    await standbys.lift()
    made = await create(project, key)
    assert (made.status_code, made.headers["idempotent-replayed"]) == (201, "true")
    calls = (await project.client.get("/v1/calls")).json()["data"]
    assert [c["id"] for c in calls] == [made.json()["id"]]


async def test_what_the_control_plane_writes_is_held_to_the_same(
    api: Api, project: Project, edge: EdgeIdentity, standbys: Quorum
) -> None:
    made = (await create(project, "k")).json()
    call_id, project_id = ids.decode(ids.CALL, made["id"]), ids.decode(ids.PROJECT, project.id)

    async def end() -> str:
        return (
            await api.control.appender.control(
                project_id, call_id, type="call.ended", data={"end_reason": "ended_by_api"},
                source=Source.CONTROL, source_key="end",
            )
        ).status  # fmt: skip

    async def transaction() -> None:
        async with api.control.db.project_driver(project_id) as connection:
            await connection.execute("select pg_logical_emit_message(true, 'test', '')")

    await standbys.require()
    async with standbys.cutting():
        for _ in range(2):
            with pytest.raises(CommitUnknown):
                await end()
        # transactions of the toolkit, and of the driver, which commit in a statement of their own
        assert (
            await project.client.post("/v1/keys", json={"name": "x", "role": "viewer"})
        ).status_code == 503
        with pytest.raises(CommitUnknown):
            await transaction()
        renewed = await project.client.post(f"/v1/calls/{made['id']}/ticket", json={"ticket": made["ticket"]})
        assert renewed.status_code in (409, 503)
        ready = await project.client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["database: not_replicated"])
    await standbys.lift()
    assert await end() == "duplicate"
    assert await visible(standbys, made["id"]) == [1, 2]


async def test_a_grant_that_was_not_waited_for_is_no_ticket(
    api: Api, project: Project, edge: EdgeIdentity, standbys: Quorum
) -> None:
    made = (await create(project, "k")).json()
    path, body = f"/v1/calls/{made['id']}/ticket", {"ticket": made["ticket"]}
    await standbys.require()
    async with standbys.cutting():
        assert (await project.client.post(path, json=body)).status_code == 503
    await standbys.lift()
    renewed = (await project.client.post(path, json=body)).json()
    assert renewed["epoch"] == 3  # a number is granted once, whether it was heard of or not


async def test_a_server_that_is_told_to_stop_while_a_commit_waits_is_unknown_too(
    api: Api, project: Project, edge: EdgeIdentity, standbys: Quorum
) -> None:
    call = (await create(project, "k")).json()["id"]
    run = [ids_run(call, event(1))]
    await standbys.require()
    appending = asyncio.create_task(api.control.appender.append(edge, run))
    terminate = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where wait_event = 'SyncRep' and application_name = 'voxplane:append'"
    )
    while not await standbys.superuser.fetchval(terminate):
        await asyncio.sleep(0.005)
    assert [a.status for a in await appending] == ["busy"]
    await standbys.lift()
    assert [a.status for a in await api.control.appender.append(edge, run)] == ["durable"]
    assert await visible(standbys, call) == [1, 2]


@pytest.mark.parametrize(
    ("setting", "trouble"), [("default_transaction_read_only = on", "read_only"), (None, "disk_full")]
)
async def test_a_database_that_takes_no_writes_is_named_and_comes_back_by_itself(
    api: Api, project: Project, edge: EdgeIdentity, standbys: Quorum, setting: str | None, trouble: str
) -> None:
    call = (await create(project, "k")).json()["id"]
    run = [ids_run(call, event(1))]
    superuser = standbys.superuser
    await superuser.execute("set default_transaction_read_only = off")
    if setting is not None:
        await superuser.execute(f"alter system set {setting}")
        await superuser.execute("select pg_reload_conf()")
    else:
        await superuser.execute(
            "create function vx.full() returns trigger language plpgsql as"
            " $$ begin raise exception using errcode = 'disk_full', message = 'no space left on device'; end $$;"
            "create trigger room before insert on vx.events for each row execute function vx.full()"
        )
    try:

        async def refused() -> bool:
            return (await create(project, str(uuid4()))).status_code == 503

        async with asyncio.timeout(15):
            while not await refused():
                await asyncio.sleep(0.005)
        body = (await create(project, "another")).json()
        assert body["database"] in (trouble, "no_primary"), body
        assert [a.status for a in await api.control.appender.append(edge, run)] == ["busy"]
        ready = await project.client.get("/readyz")
        assert ready.status_code == 503
        assert f"database: {trouble}" in ready.json()["reasons"]
    finally:
        if setting is not None:
            await superuser.execute(f"alter system reset {setting.partition(' ')[0]}")
            await superuser.execute("select pg_reload_conf()")
        else:
            await patiently(superuser, "drop trigger room on vx.events; drop function vx.full()")
    async with asyncio.timeout(20):
        while (await project.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)
    assert [a.status for a in await api.control.appender.append(edge, run)] == ["durable"]
    assert (await create(project, "another")).status_code == 201


def ids_run(call: str, *events: Any) -> Any:
    return CallEvents(call=call, epoch=1, events=list(events))
