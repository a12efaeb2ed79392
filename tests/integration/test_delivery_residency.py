"""Webhooks of calls that name jurisdictions: sent from there alone, waiting and saying so where nobody there sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from app.ids import new_id
from app.local.receiver import WebhookReceiver
from app.log.append import EdgeIdentity
from app.webhooks.claims import BATCH, Claims
from app.webhooks.upkeep import NO_SENDER_S, Upkeep
from regions.wire import ids
from regions.wire.events import EdgeEvent
from regions.wire.uplink import CallEvents
from tests.conftest import make_settings
from tests.support.api import Api, Project, serving
from tests.support.fleet import add_region
from tests.support.placement import rows

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(api: Api) -> EdgeIdentity:
    """The only one. The instance itself does not say where it runs."""
    edge_id, incarnation = await add_region(api, "eu-west", "eu")
    await add_region(api, "us-east", "us")
    return EdgeIdentity(edge_id, incarnation, "eu-west")


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


@asynccontextmanager
async def instance_in(api: Api, *jurisdictions: str) -> AsyncIterator[Api]:
    """Another one over the same database."""
    settings = make_settings(
        api.settings.database_url, api.settings.redis_urls, api.settings.data, jurisdictions=jurisdictions
    )
    async with serving(settings) as served:
        yield served


async def make_hook(project: Project, receiver: WebhookReceiver, **more: Any) -> UUID:
    made = await project.client.post("/v1/webhooks", json={"url": receiver.url, **more})
    assert made.status_code == 201, made.text
    receiver.secret = made.json()["secret"]
    found = ids.decode(ids.WEBHOOK, made.json()["id"])
    assert found is not None
    return found


async def make_call(project: Project, *jurisdictions: str, **more: Any) -> str:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"jurisdictions": jurisdictions}, **more}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def append(api: Api, edge: EdgeIdentity, call: str, *types: str, first: int = 1) -> None:
    events = [
        EdgeEvent(n=n, id=ids.encode(ids.EVENT, new_id()), type=type_, at_ms=1_700_000_000_000 + n)
        for n, type_ in enumerate(types, first)
    ]
    [status] = await api.control.appender.append(edge, [CallEvents(call=call, epoch=1, events=events)])
    assert status.durable_n == first + len(types) - 1, status


async def deliveries_of(project: Project, hook: UUID) -> list[dict[str, Any]]:
    shown = await project.client.get(f"/v1/webhooks/{ids.encode(ids.WEBHOOK, hook)}/deliveries")
    found: list[dict[str, Any]] = shown.json()["data"]
    return found


def seen(receiver: WebhookReceiver, call: str) -> list[int]:
    return [e["seq"] for e in receiver.received if e["call_id"] == call]


async def test_a_call_is_spoken_of_from_where_it_allows_and_from_nowhere_else(
    api: Api, edge: EdgeIdentity, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    bound = await make_call(project, "eu", "ch")
    free = await make_call(project)
    await append(api, edge, bound, "call.answered", "speech.started")
    await append(api, edge, bound, "speech.stopped", first=3)  # the short way of an append
    for call in (bound, free):
        assert (await project.client.post(f"/v1/calls/{call}/end")).status_code == 200
    async with instance_in(api, "us"):
        await receiver.until(2, 15)
        assert seen(receiver, free) == [1, 2]
        # both instances have looked: what comes now was made after the bound ones, and is through before them
        last = await make_call(project, "us", "eu")
        await receiver.until(3, 15)
        assert seen(receiver, last) == [1]
        assert seen(receiver, bound) == []
        waiting = [d for d in await deliveries_of(project, hook) if d["call_id"] == bound]
        assert {(d["event_seq"], d["state"], tuple(d["jurisdictions"]), d["attempts"]) for d in waiting} == {
            (seq, "waiting", ("ch", "eu"), 0) for seq in range(1, 6)
        }
    async with instance_in(api, "de", "eu"):
        await receiver.until(3 + 5, 15)
    assert seen(receiver, bound) == [1, 2, 3, 4, 5]


async def test_where_nobody_there_sends_it_says_so(
    api: Api, edge: EdgeIdentity, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    await make_call(project, "eu")
    upkeep = Upkeep(api.control.db, api.control.hints)
    await upkeep.round()
    assert [d["last_error"] for d in await deliveries_of(project, hook)] == [None]
    await rows(
        api,
        "update vx.deliveries set next_at = next_at - make_interval(secs => $2) where webhook_id = $1",
        hook,
        NO_SENDER_S + 1.0,
    )
    await upkeep.round()
    [waiting] = await deliveries_of(project, hook)
    assert waiting["last_error"] == "is to be sent from eu, and nobody there has sent it yet"
    async with instance_in(api, "eu"):
        await receiver.until(1, 15)
    [sent] = await deliveries_of(project, hook)
    assert (sent["state"], sent["last_error"]) == ("delivered", None)


async def test_what_waits_for_another_place_is_in_nobodys_way(
    api: Api, edge: EdgeIdentity, project: Project, receiver: WebhookReceiver
) -> None:
    """Not of its own endpoint either."""
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    for _ in range(BATCH + 6):
        await make_call(project, "us", webhook_url=receiver.url)
    free = await make_call(project, webhook_url=receiver.url)
    async with instance_in(api, "eu"):
        await receiver.until(1, 15)
    assert [e["call_id"] for e in receiver.received] == [free]


async def test_what_is_sent_again_is_sent_from_there_too(
    api: Api, edge: EdgeIdentity, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver, types=["tool.called"])
    path = f"/v1/webhooks/{ids.encode(ids.WEBHOOK, hook)}"
    one, other = await make_call(project, "eu"), await make_call(project, "us", "eu")
    assert (await project.client.patch(path, json={"types": ["call.*"]})).status_code == 200
    asked = await project.client.post(f"{path}/resend", json={"call_id": one, "seq": 1})
    assert asked.status_code == 202, asked.text
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    begun = await project.client.post(f"{path}/recover", json={"since": since, "what": "missing"})
    assert begun.status_code == 202, begun.text
    async with instance_in(api, "eu"):
        await receiver.until(2, 15)
    found = {d["call_id"]: (d["jurisdictions"], d["replay"]) for d in await deliveries_of(project, hook)}
    assert found == {one: (["eu"], True), other: (["eu", "us"], True)}


async def test_the_places_of_one_endpoint_share_its_room(
    api: Api, edge: EdgeIdentity, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    for places in (["eu"], ["eu", "us"], ["ch", "eu"], ["us"]):
        for _ in range(4):
            await make_call(project, *places)

    async def claimed(room: int, *jurisdictions: str) -> int:
        claims = Claims(api.control.db, api.control.clock, jurisdictions)
        claims._window[hook] = room
        taken = [claim for claim, _, _ in await claims.take(64) if claim["webhook_id"] == hook]
        await claims.give_back([])
        return len(taken)

    assert [await claimed(room, "eu") for room in (1, 2, 3, 5, 64)] == [1, 2, 3, 5, 12]
    assert [await claimed(64, *places) for places in (("us",), ("us", "eu"), ("de",), ())] == [8, 16, 0, 0]
