"""The endpoints that creates name by `webhook_url`: how many there may be, which make room, and how all are listed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app import cursors
from app.local.receiver import WebhookReceiver
from app.webhooks import policy
from app.webhooks.upkeep import Upkeep
from regions.wire import ids as wire
from tests.support.api import Api, Project, problem
from tests.support.fleet import three_regions
from tests.support.hooks import make_call, make_hook, superuser, until


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


async def test_the_projects_own_are_listed_before_those_that_calls_have_named_page_by_page(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    for n in range(4):
        await make_call(project, webhook_url=f"{receiver.url}?n={n}")
    listed: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = (await project.client.get("/v1/webhooks", params={"limit": 2, "cursor": cursor})).json()
        listed += page["data"]
        cursor = page["next_cursor"]
    assert [h["scope"] for h in listed] == ["project", *["call"] * 4]
    assert listed[0]["id"] == hook["id"]
    assert [h["url"][-1] for h in listed[1:]] == ["3", "2", "1", "0"]
    for bad in (
        "nonsense",
        cursors.encode("webhooks", "other", hook["id"]),
        cursors.encode("feed", "call", 1),
    ):
        refused = await project.client.get("/v1/webhooks", params={"cursor": bad})
        assert problem(refused) == (400, "bad_cursor")


async def test_creates_name_so_many_urls_and_no_more_and_what_is_not_used_makes_room(
    api: Api, project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "CALL_URLS_MAX", 2)
    names = [f"{receiver.url}?n={n}" for n in range(3)]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}}
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    for url in [*names[:2], *names[:2]]:
        await make_call(project, webhook_url=url)
    await receiver.until(4, 15)
    api.control.webhooks.forget()
    await make_call(project, webhook_url=names[0])  # known: it counts once

    async def third(key: str) -> httpx.Response:
        return await project.client.post(
            "/v1/calls", json=body | {"webhook_url": names[2]}, headers={"Idempotency-Key": key}
        )

    refused = await third("a")
    assert problem(refused) == (422, "too_many_webhook_urls")
    assert refused.json()["errors"][0]["pointer"] == "/webhook_url"
    assert (await api.project()).id, "another project has its own"
    project_id = wire.decode(wire.PROJECT, project.id)
    await receiver.until(5, 15)
    async with superuser(api) as database:
        old = (
            "update vx.webhooks set named_at = now() - interval '49 hours' where project_id = $1 and url = $2"
        )
        waits = (
            "update vx.deliveries set state = $3, next_at = now() + interval '1 hour' where project_id = $1"
            " and webhook_id = (select id from vx.webhooks where url = $2)"
        )
        await database.execute(old, project_id, names[1])
        await database.execute(waits, project_id, names[1], "parked")
        assert (await third("b")).status_code == 422, "something waits for the one that is not used"
        await database.execute(waits, project_id, names[1], "delivered")

    async def has_room() -> bool:  # once what waits has been counted anew
        return (await third("c")).status_code == 201

    await until(has_room)
    urls = {h["url"] for h in (await project.client.get("/v1/webhooks")).json()["data"]}
    assert urls == {names[0], names[2]}
    assert (await third("c")).headers["idempotent-replayed"] == "true"


async def test_a_url_that_nobody_has_named_for_a_month_goes(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    await make_call(project, webhook_url=receiver.url)
    await receiver.until(1, 15)
    project_id = wire.decode(wire.PROJECT, project.id)
    upkeep = Upkeep(api.control.db, api.control.hints)
    async with superuser(api) as database:
        old = "update vx.webhooks set named_at = now() - make_interval(days => $2) where project_id = $1"
        await database.execute(
            "update vx.deliveries set state = 'delivered' where project_id = $1", project_id
        )
        await database.execute(old, project_id, 29)

        async def left() -> int:
            await upkeep.round()
            return len((await project.client.get("/v1/webhooks")).json()["data"])

        assert await left() == 1
        await database.execute(old, project_id, 31)

        async def gone() -> bool:
            return await left() == 0

        await until(gone)
