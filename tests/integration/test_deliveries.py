"""Webhooks and feeds with real sockets: order, retries, signatures, resuming after a cursor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from app.local.receiver import WebhookReceiver
from app.log import sse
from app.log.feeds import Feeds
from app.log.horizon import Horizon, StaleServer
from app.log.positions import Position
from app.webhooks.delivery import Delivery
from app.webhooks.envelope import Envelopes
from regions.wire import ids as wire
from tests.support.api import Api, Project
from tests.support.fleet import three_regions


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


async def make_call(project: Project, **more: Any) -> str:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}} | more
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def test_every_event_comes_once_verified_and_in_order(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    receiver.secret = hook["secret"]
    calls = [await make_call(project) for _ in range(5)]
    for call in calls:
        await project.client.post(f"/v1/calls/{call}/end")
    await receiver.until(10, 15)
    assert receiver.faults == []
    by_call = {call: [e["seq"] for e in receiver.received if e["call_id"] == call] for call in calls}
    assert by_call == {call: [1, 2] for call in calls}
    attempts = (await project.client.get(f"/v1/webhooks/{hook['id']}/attempts")).json()["data"]
    assert {a["status"] for a in attempts} == {204}


async def test_an_attempt_says_what_was_asked_and_when_it_is_tried_again_and_all_are_listed(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    receiver.secret = hook["secret"]
    path = f"/v1/webhooks/{hook['id']}/attempts"

    def fail_once(*_: object) -> None:
        receiver.status = 204 if receiver.received else 500

    receiver.seen = fail_once
    call = await make_call(project)
    await receiver.until(1, 15)
    await project.client.post(f"/v1/calls/{call}/end")
    await receiver.until(3, 15)

    async def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            asked = {"limit": 1} | ({"cursor": cursor} if cursor else {})
            page = (await project.client.get(path, params=asked)).json()
            found += page["data"]
            if (cursor := page["next_cursor"]) is None:
                return found

    async with asyncio.timeout(15):
        while len(found := await listed()) < 3:
            await asyncio.sleep(0.02)
    found.reverse()
    assert [(a["event_seq"], a["attempt"], a["status"]) for a in found] == [
        (1, 1, 500),
        (1, 2, 204),
        (2, 1, 204),
    ]
    assert [a["event_id"] for a in found] == [e["id"] for e in receiver.received]
    assert [a["type"] for a in found] == ["call.created", "call.created", "call.ended"]
    assert {a["url"] for a in found} == {receiver.url}
    assert found[0]["at"] < found[0]["next_at"] <= found[1]["at"]
    assert (found[1]["next_at"], found[2]["next_at"]) == (None, None)
    forged = await project.client.get(path, params={"cursor": "AAAA"})
    assert (forged.status_code, forged.json()["code"]) == (400, "bad_cursor")


async def test_a_call_may_name_its_own_webhook(project: Project, receiver: WebhookReceiver) -> None:
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    named = await make_call(project, webhook_url=receiver.url)
    await make_call(project)
    await project.client.post(f"/v1/calls/{named}/end")
    await receiver.until(2, 15)
    assert [(e["call_id"], e["type"]) for e in receiver.received] == [
        (named, "call.created"),
        (named, "call.ended"),
    ]


async def test_a_failing_head_is_tried_again_before_what_follows(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    receiver.secret = "whsec_AAAA"
    call = await make_call(project)
    await project.client.post(f"/v1/calls/{call}/end")
    async with asyncio.timeout(15):
        while not receiver.faults:
            await asyncio.sleep(0.01)
    assert receiver.received == []
    receiver.secret = hook["secret"]
    await receiver.until(2, 15)
    assert [e["seq"] for e in receiver.received] == [1, 2]


async def test_an_endpoint_that_cannot_be_opened_holds_nobody_up(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    broken = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    other = {"url": receiver.url, "types": ["call.*"]}
    sound = (await project.client.post("/v1/webhooks", json=other)).json()
    receiver.secret = sound["secret"]
    superuser = await asyncpg.connect(api.settings.database_url)
    try:
        await superuser.execute(
            "update vx.webhooks set secrets = (select secrets from vx.webhooks where id = $2) where id = $1",
            wire.decode(wire.WEBHOOK, broken["id"]),
            wire.decode(wire.WEBHOOK, sound["id"]),
        )
    finally:
        await superuser.close()

    await make_call(project)
    await receiver.until(1, 15)

    assert receiver.faults == []
    async with asyncio.timeout(15):
        while not (
            attempts := (await project.client.get(f"/v1/webhooks/{broken['id']}/attempts")).json()["data"]
        ):
            await asyncio.sleep(0.01)
    assert attempts[0]["status"] is None
    assert "master key" in attempts[0]["error"]


async def test_types_filter_and_a_deleted_endpoint_hears_no_more(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = (
        await project.client.post("/v1/webhooks", json={"url": receiver.url, "types": ["call.ended"]})
    ).json()
    receiver.secret = hook["secret"]
    call = await make_call(project)
    await project.client.post(f"/v1/calls/{call}/end")
    await receiver.until(1, 15)
    assert [e["type"] for e in receiver.received] == ["call.ended"]
    assert (await project.client.delete(f"/v1/webhooks/{hook['id']}")).status_code == 204
    assert (await project.client.delete(f"/v1/webhooks/{hook['id']}")).status_code == 404
    assert (await project.client.get("/v1/webhooks")).json()["data"] == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1.nip.io.", "http://10.0.0.1/x", "https://169.254.169.254/", "https://[::ffff:10.0.0.1]/", "gopher://x.com",
        "https://user@example.com/", "not a url", "https://example.com:22/",
    ],
)  # fmt: skip
async def test_a_bad_endpoint_is_refused(project: Project, url: str) -> None:
    answer = await project.client.post("/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/url")


async def read_stream(
    client: httpx.AsyncClient, count: int, last: str | None = None, open_: asyncio.Event | None = None
) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    headers = {"Last-Event-ID": last} if last else {}
    async with asyncio.timeout(15), client.stream("GET", "/v1/events/stream", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        cursor = ""
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                cursor = line[4:]
                if open_ is not None:
                    open_.set()
            if line.startswith("data: "):
                found.append((cursor, json.loads(line[6:])))
            if len(found) == count:
                return found
    return found


async def test_a_stream_goes_on_after_its_cursor_and_agrees_with_the_list(project: Project) -> None:
    start = (await project.client.get("/v1/events")).json()
    assert start["data"] == []
    calls = [await make_call(project) for _ in range(6)]
    listed = (await project.client.get("/v1/events", params={"limit": 200})).json()["data"]
    while len(listed) < 6:
        listed = (await project.client.get("/v1/events", params={"limit": 200})).json()["data"]
    page = (await project.client.get("/v1/events", params={"limit": 2})).json()
    rest = await read_stream(project.client, 4, page["next_cursor"])
    assert [e["id"] for e in page["data"]] + [e["id"] for _, e in rest] == [e["id"] for e in listed]
    assert {e["call_id"] for e in listed} == set(calls)
    again = await read_stream(project.client, 2, rest[1][0])
    assert [e["id"] for _, e in again] == [e["id"] for _, e in rest[2:]]


async def test_a_stream_shows_what_happens_and_nothing_of_others(api: Api, project: Project) -> None:
    other = await api.project()
    page = (await project.client.get("/v1/events")).json()
    assert page["data"] == []
    open_ = asyncio.Event()
    reading = asyncio.create_task(read_stream(project.client, 2, open_=open_))
    await open_.wait()
    await make_call(other)
    call = await make_call(project)
    await project.client.post(f"/v1/calls/{call}/end")
    assert [(e["call_id"], e["type"]) for _, e in await reading] == [
        (call, "call.created"),
        (call, "call.ended"),
    ]


async def test_a_stream_outlives_a_key_that_cannot_be_looked_up_for_a_while(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "CHECK_EVERY_S", 0.01)
    open_ = asyncio.Event()
    reading = asyncio.create_task(read_stream(project.client, 2, open_=open_))
    await open_.wait()
    call = await make_call(project)
    checks = 0

    async def away(*_: object) -> None:
        nonlocal checks
        checks += 1
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(api.control.auth, "authenticate", away)
        async with asyncio.timeout(15):
            while not checks:
                await asyncio.sleep(0.01)
    await project.client.post(f"/v1/calls/{call}/end")
    assert [e["type"] for _, e in await reading] == ["call.created", "call.ended"]


async def test_a_reader_that_leaves_is_let_go_without_a_word(
    api: Api, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"feed:{wire.decode(wire.PROJECT, project.id)}"
    async with project.client.stream("GET", "/v1/events/stream") as response:
        lines = response.aiter_lines()  # kept: what is collected closes its stream
        await anext(lines)
        async with asyncio.timeout(15):
            while not api.control.hints.subscribers(topic):
                await asyncio.sleep(0.01)
    async with asyncio.timeout(15):
        while api.control.hints.subscribers(topic):
            await asyncio.sleep(0.01)
    assert (await project.client.get("/v1/events")).status_code == 200
    assert [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


@pytest.mark.parametrize("cursor", ["garbage", "AAAAAAAA", "\u00e9", "x" * 600])
async def test_a_forged_cursor_is_refused(project: Project, cursor: str) -> None:
    answer = await project.client.get("/v1/events", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


async def test_a_server_that_has_not_seen_the_horizon_serves_nothing(api: Api, project: Project) -> None:
    """A primary that was replaced, and goes on for a moment, shows commits that were lost."""
    control = api.control
    call = wire.decode(wire.CALL, await make_call(project))
    horizon = Horizon(control.db)
    read = horizon._read
    horizon._read = lambda _: read(True)  # type: ignore[method-assign]  # as where there are standbys
    feeds = Feeds(control.db, control.vault, control.clock, control.hints, horizon)
    project_id = wire.decode(wire.PROJECT, project.id)

    async def served() -> tuple[int, int]:
        page, _ = await feeds.page(project_id, Position())
        return len(page), len(await feeds.of_call(project_id, call, after_seq=0, limit=10))

    assert await served() == (1, 1)
    horizon.read = AsyncMock(return_value=await horizon.read() + 1_000)  # type: ignore[method-assign]
    with pytest.raises(StaleServer):  # the horizon of another server's future
        await served()
    horizon.read.return_value, horizon.proof = 1 << 40, uuid4()
    with pytest.raises(StaleServer):  # no horizon of ours at all
        await feeds.of_call(project_id, call, after_seq=0, limit=10)


async def test_a_claim_is_renewed_while_its_worker_lives_and_free_once_it_has_gone(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    receiver.secret = hook["secret"]
    control = api.control
    worker = Delivery(control.db, control.vault, control.hints, control.clock, local_targets=True)
    superuser = await asyncpg.connect(api.settings.database_url)
    try:
        await make_call(project)
        claim = (
            "update vx.deliveries set state = 'in_flight', claimed_by = $2, claimed_until = clock_timestamp() + $3"
            " where webhook_id = $1 returning claimed_until"
        )
        webhook_id = wire.decode(wire.WEBHOOK, hook["id"])
        await receiver.until(1, 15)
        soon = await superuser.fetchval(claim, webhook_id, worker.claims.id, timedelta(seconds=2))
        await worker.claims.keep(any_in_hand=True)
        renewed = await superuser.fetchval(
            "select claimed_until from vx.deliveries where webhook_id = $1", webhook_id
        )
        assert renewed > soon
        await superuser.fetchval(claim, webhook_id, uuid4(), timedelta(seconds=-1))
        await receiver.until(2, 15)
        assert receiver.received[0] == receiver.received[1], "made again, under the same id"
    finally:
        await superuser.close()


async def test_a_call_that_names_an_endpoint_again_which_was_gone_is_heard_there(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    receiver.status = 410
    await make_call(project, webhook_url=receiver.url)
    async with asyncio.timeout(15):
        while all(h["enabled"] for h in (await project.client.get("/v1/webhooks")).json()["data"]):
            await asyncio.sleep(0.01)
    receiver.status = 204
    api.control.webhooks.forget()
    receiver.received.clear()
    named = await make_call(project, webhook_url=receiver.url)
    await receiver.until(1, 15)
    assert [e["call_id"] for e in receiver.received] == [named]
    (hook,) = (await project.client.get("/v1/webhooks")).json()["data"]
    assert (hook["enabled"], hook["disabled_reason"]) == (True, None)


async def test_a_parked_delivery_is_overtaken_also_while_it_is_tried(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    receiver.secret = hook["secret"]
    call = await make_call(project)
    await receiver.until(1, 15)
    async with asyncio.timeout(15):  # what came of it is written down after the receiver has it
        while not (await project.client.get(f"/v1/webhooks/{hook['id']}/attempts")).json()["data"]:
            await asyncio.sleep(0.01)
    superuser = await asyncpg.connect(api.settings.database_url)
    try:
        await superuser.execute(
            "update vx.deliveries set state = 'in_flight', parked = true, claimed_by = $2,"
            " claimed_until = clock_timestamp() + interval '1 hour' where webhook_id = $1",
            wire.decode(wire.WEBHOOK, hook["id"]),
            uuid4(),
        )
    finally:
        await superuser.close()
    await project.client.post(f"/v1/calls/{call}/end")
    await receiver.until(2, 15)
    assert [e["seq"] for e in receiver.received] == [1, 2]
    assert receiver.headers[-1]["voxplane-overtook"] == "true"
    assert "voxplane-overtook" not in receiver.headers[0]
    attempts: list[Any] = []
    async with asyncio.timeout(15):
        while len(attempts) < 2:
            attempts = (await project.client.get(f"/v1/webhooks/{hook['id']}/attempts")).json()["data"]
    assert {a["event_seq"]: a["overtook"] for a in attempts} == {1: False, 2: True}


async def test_a_stream_ends_with_the_key_that_opened_it(api: Api, project: Project) -> None:
    second = await api.key(project, "viewer")
    key_id = next(
        k["id"] for k in (await project.client.get("/v1/keys")).json()["data"] if k["name"] == "viewer"
    )
    async with asyncio.timeout(15), second.stream("GET", "/v1/events/stream") as response:
        lines = response.aiter_lines()
        await anext(lines)
        assert (await project.client.delete(f"/v1/keys/{key_id}")).status_code == 204
        async for line in lines:
            assert not line.startswith("data")


async def test_a_filtered_stream_gets_on_and_says_that_it_lives(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.log.sse.CHECK_EVERY_S", 0.01)
    monkeypatch.setattr("app.log.sse.HEARTBEAT_S", 0.02)
    params = {"types": "call.reconnected"}
    async with (
        asyncio.timeout(15),
        project.client.stream("GET", "/v1/events/stream", params=params) as response,
    ):
        lines = response.aiter_lines()
        cursors = [await anext(lines) for _ in range(2)][1:]
        await make_call(project)
        while len(set(cursors)) < 2:
            line = await anext(lines)
            if line.startswith("id: "):
                cursors.append(line)
    behind = (await project.client.get("/v1/events", params=params | {"cursor": cursors[-1][4:]})).json()[
        "data"
    ]
    assert behind == []


async def test_a_reader_cannot_wait_for_what_never_comes(project: Project) -> None:
    for path in ("/v1/events", "/v1/events/stream"):
        answer = await project.client.get(path, params={"types": "call.vanished"})
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_type")


async def test_an_endpoint_that_lets_us_wait_is_given_little_at_once(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs; the bound holds from the first time-out on, and others are not held up."""
    monkeypatch.setattr("app.webhooks.claims.WINDOW_FIRST", 4)
    waiting, most = 0, 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await reader.read()
        writer.close()
        waiting -= 1

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server, WebhookReceiver() as receiver:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await project.client.post("/v1/webhooks", json={"url": url})
        sound = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
        receiver.secret = sound["secret"]
        for _ in range(20):
            await make_call(project)
        await receiver.until(20, 15)
        assert len(receiver.received) == 20
        assert 0 < most <= 4
        await project.client.delete(f"/v1/webhooks/{(await hooks_of(project))[url]}")


async def hooks_of(project: Project) -> dict[str, str]:
    return {h["url"]: h["id"] for h in (await project.client.get("/v1/webhooks")).json()["data"]}


async def test_a_fault_of_ours_gives_the_delivery_back(
    project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once what was wrong is right, it is sent; its first attempt counts from then."""
    wrong = True
    failed = asyncio.Event()
    headers = Envelopes.headers

    async def fails(self: Envelopes, *given: Any, **more: Any) -> dict[str, str]:
        if wrong:
            failed.set()
            raise RuntimeError("a fault")
        return await headers(self, *given, **more)

    monkeypatch.setattr(Envelopes, "headers", fails)
    monkeypatch.setattr("app.webhooks.delivery.POLL_S", 0.05)
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    await make_call(project, webhook_url=receiver.url)
    async with asyncio.timeout(15):
        await failed.wait()
    assert receiver.received == []
    wrong = False
    await receiver.until(1, 15)
    assert len(receiver.received) == 1
    hook = (await hooks_of(project))[receiver.url]
    async with asyncio.timeout(15):
        while not (page := (await project.client.get(f"/v1/webhooks/{hook}/attempts")).json()["data"]):
            await asyncio.sleep(0.01)
    assert [a["attempt"] for a in page] == [1]
