"""Sent again: one event, what failed, what was missed; and a backlog that is bounded and lost nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from app.db import TRANSACTION_DEADLINE_MS
from app.hints import DELIVERIES
from app.local.receiver import WebhookReceiver
from app.webhooks import delivery, recovery
from app.webhooks.upkeep import Upkeep
from regions.wire import ids as wire
from tests.support.api import Api, Project
from tests.support.fleet import three_regions
from tests.support.hooks import make_call, make_hook, superuser, until


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


def an_hour_ago() -> str:
    return (datetime.now(UTC) - timedelta(hours=1)).isoformat()


async def recovered(project: Project, hook: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The replay once everything of it is queued."""
    path = f"/v1/webhooks/{hook['id']}"
    begun = await project.client.post(f"{path}/recover", json={"since": an_hour_ago()} | more)
    assert begun.status_code == 202, begun.text
    replay: dict[str, Any] = {}

    async def done() -> bool:
        nonlocal replay
        replay = (await project.client.get(f"{path}/replays/{begun.json()['id']}")).json()
        return bool(replay["state"] == "done" and replay["waiting"] == 0)

    await until(done)
    return replay


async def test_one_event_is_sent_again_under_its_id(project: Project, receiver: WebhookReceiver) -> None:
    hook = await make_hook(project, receiver)
    call = await make_call(project)
    await receiver.until(1, 15)
    path = f"/v1/webhooks/{hook['id']}/resend"

    async def accepted() -> bool:
        return (await project.client.post(path, json={"call_id": call, "seq": 1})).status_code == 202

    await until(accepted)  # once what came of the first is written
    await receiver.until(2, 15)
    assert receiver.received[0] == receiver.received[1]
    assert receiver.headers[1]["voxplane-replay"] == "true"
    assert "voxplane-replay" not in receiver.headers[0]
    for event in ({"call_id": call, "seq": 99}, {"call_id": "call_nonsense", "seq": 1}):
        assert (await project.client.post(path, json=event)).status_code == 404


async def test_what_is_sent_again_of_a_call_follows_at_once(
    api: Api, project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever settles one has the next of its line claimed: nobody waits for the next look."""
    monkeypatch.setattr(delivery, "POLL_S", 60.0)
    try:
        hook = await make_hook(project, receiver)
        call = await make_call(project)
        assert (await project.client.post(f"/v1/calls/{call}/end")).status_code == 200
        await receiver.until(2, 15)
        await recovered(project, hook, what="all")
        assert [e["seq"] for e in receiver.received] == [1, 2, 1, 2]
    finally:
        api.control.hints.wake(DELIVERIES)


async def test_what_an_endpoint_missed_comes_in_order_and_once(
    project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ROOM", 4)
    monkeypatch.setattr(recovery, "CALLS", 3)
    calls = [await make_call(project) for _ in range(10)]
    for call in calls:
        await project.client.post(f"/v1/calls/{call}/end")
    hook = await make_hook(project, receiver, types=["call.*"])
    late = await make_call(project)
    await receiver.until(1, 15)
    replay = await recovered(project, hook)
    await receiver.until(21, 15)
    assert replay["queued"] == 20
    by_call: dict[str, list[int]] = {}
    for event in receiver.received:
        by_call.setdefault(event["call_id"], []).append(event["seq"])
    assert by_call == {**{call: [1, 2] for call in calls}, late: [1]}
    again = await recovered(project, hook)
    assert again["queued"] == 0


async def test_what_failed_for_good_can_be_recovered_and_what_was_delivered_too(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    calls = [await make_call(project) for _ in range(3)]
    await receiver.until(3, 15)
    hook_id = wire.decode(wire.WEBHOOK, hook["id"])
    listed = f"/v1/webhooks/{hook['id']}/deliveries"

    async def delivered() -> bool:
        page = (await project.client.get(listed, params={"state": "delivered"})).json()
        return len(page["data"]) == 3

    await until(delivered)
    async with superuser(api) as connection:
        await connection.execute(
            "update vx.deliveries set state = 'failed' where webhook_id = $1 and call_id = $2",
            hook_id, wire.decode(wire.CALL, calls[1]),
        )  # fmt: skip
    failed = (await project.client.get(listed, params={"state": "failed"})).json()["data"]
    assert [d["call_id"] for d in failed] == [calls[1]]
    receiver.received.clear()
    assert (await recovered(project, hook, what="failed"))["queued"] == 1
    await receiver.until(1, 15)
    assert [e["call_id"] for e in receiver.received] == [calls[1]]
    receiver.received.clear()
    assert (await recovered(project, hook, what="all"))["queued"] == 3
    await receiver.until(3, 15)
    assert sorted(e["call_id"] for e in receiver.received) == sorted(calls), "calls wait for no other"
    pages = [(await project.client.get(listed, params={"limit": 2})).json()]
    pages.append(
        (await project.client.get(listed, params={"limit": 2, "cursor": pages[0]["next_cursor"]})).json()
    )
    assert [d["call_id"] for p in pages for d in p["data"]] == calls[::-1]
    assert pages[1]["next_cursor"] is None
    wrong = await project.client.get(listed, params={"state": "failed", "cursor": pages[0]["next_cursor"]})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "bad_cursor")


async def test_what_is_sent_again_does_not_hold_up_what_is_new(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    call = await make_call(project)
    await receiver.until(1, 15)
    async with superuser(api) as connection:
        # it is being sent again, and hangs
        await connection.execute(
            "update vx.deliveries set state = 'in_flight', replay = true, claimed_by = gen_random_uuid(),"
            " claimed_until = clock_timestamp() + interval '1 hour' where webhook_id = $1",
            wire.decode(wire.WEBHOOK, hook["id"]),
        )
        await project.client.post(f"/v1/calls/{call}/end")
        await receiver.until(2, 15)
        assert [e["seq"] for e in receiver.received] == [1, 2]
        assert "voxplane-overtook" not in receiver.headers[1]
        await connection.execute(
            "delete from vx.deliveries where webhook_id = $1", wire.decode(wire.WEBHOOK, hook["id"])
        )


async def test_a_full_endpoint_takes_no_more_and_gets_what_it_missed_later(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    hook_id = wire.decode(wire.WEBHOOK, hook["id"])
    await project.client.post(f"/v1/webhooks/{hook['id']}/test", json={})
    receiver.received.clear()
    receiver.status = 503
    waiting = [await make_call(project) for _ in range(4)]
    upkeep = Upkeep(api.control.db, api.control.hints, backlog_max=4, late_s=0.0)
    path = f"/v1/webhooks/{hook['id']}"

    async def full() -> bool:
        await upkeep.round()
        return (await project.client.get(path)).json()["full_since"] is not None

    await until(full)
    assert (await project.client.get(f"{path}/health")).json()["state"] == "full"
    missed = await make_call(project)
    async with superuser(api) as connection:
        count = "select count(*) from vx.deliveries where webhook_id = $1"
        assert await connection.fetchval(count, hook_id) == 4
        receiver.status = 204
        receiver.received.clear()
        await connection.execute("update vx.deliveries set next_at = now() where webhook_id = $1", hook_id)

    async def open_again() -> bool:
        await upkeep.round()
        return (await project.client.get(path)).json()["full_since"] is None

    await until(open_again)

    async def all_there() -> bool:
        return {e["call_id"] for e in receiver.received} >= {*waiting, missed}

    await until(all_there)
    assert len(receiver.received) == 5


async def test_what_an_endpoint_missed_is_read_once_all_that_saw_it_full_have_committed(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook_id = wire.decode(wire.WEBHOOK, (await make_hook(project, receiver))["id"])
    async with superuser(api) as connection:
        await connection.execute("update vx.webhooks set full_since = now() where id = $1", hook_id)
        opened = None
        while opened is None:
            await Upkeep(api.control.db, api.control.hints).round()
            opened = await connection.fetchval(
                "select next_at - created_at from vx.replays where webhook_id = $1", hook_id
            )
    assert opened > timedelta(milliseconds=TRANSACTION_DEADLINE_MS)


async def test_deliveries_that_nobody_takes_do_not_stop_a_replay(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    call = await make_call(project)
    await receiver.until(1, 15)
    parked = (
        "insert into vx.deliveries (call_id, webhook_id, seq, project_id, state, parked, replay, next_at)"
        " select gen_random_uuid(), $1, 1, $2, 'parked', true, true, now() + interval '1 hour' from generate_series(1, 64)"
    )
    async with superuser(api) as connection:
        await connection.execute(
            parked, wire.decode(wire.WEBHOOK, hook["id"]), wire.decode(wire.PROJECT, project.id)
        )
        path = f"/v1/webhooks/{hook['id']}/recover"
        await project.client.post(path, json={"since": an_hour_ago(), "what": "all"})
        await receiver.until(2, 15)
        assert [e["call_id"] for e in receiver.received] == [call, call]
        await connection.execute(
            "delete from vx.deliveries where webhook_id = $1", wire.decode(wire.WEBHOOK, hook["id"])
        )


async def test_a_replay_can_be_canceled(
    api: Api, project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SLICE", "select -1, $1::int, $2::int")  # nobody carries it on
    hook = await make_hook(project, receiver)
    path = f"/v1/webhooks/{hook['id']}"
    begun = (await project.client.post(f"{path}/recover", json={"since": an_hour_ago()})).json()
    for _ in range(2):
        ended = (await project.client.post(f"{path}/replays/{begun['id']}/cancel")).json()
        assert (ended["state"], ended["queued"]) in (("canceled", 0), ("done", 0))
    assert [r["id"] for r in (await project.client.get(f"{path}/replays")).json()["data"]] == [begun["id"]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"since": "yesterday"}, "/since"),
        ({"since": "2026-01-01T00:00:00"}, "/since"),
        ({"since": "2999-01-01T00:00:00Z"}, "/since"),
        ({"since": "2020-01-01T00:00:00Z"}, "/since"),
        ({"since": "HOUR", "until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"since": "HOUR", "what": "everything"}, "/what"),
    ],
)
async def test_a_window_that_makes_no_sense_is_refused(
    project: Project, receiver: WebhookReceiver, body: dict[str, Any], pointer: str
) -> None:
    hook = await make_hook(project, receiver)
    given = {k: an_hour_ago() if v == "HOUR" else v for k, v in body.items()}
    answer = await project.client.post(f"/v1/webhooks/{hook['id']}/recover", json=given)
    assert answer.status_code in (400, 422), answer.text
    assert pointer in {e["pointer"] for e in answer.json()["errors"]}


async def test_a_disabled_endpoint_is_not_sent_anything(project: Project, receiver: WebhookReceiver) -> None:
    hook = await make_hook(project, receiver)
    path = f"/v1/webhooks/{hook['id']}"
    await project.client.patch(path, json={"enabled": False})
    answer = await project.client.post(f"{path}/recover", json={"since": an_hour_ago()})
    assert answer.status_code == 409
    assert "Enable it first" in answer.json()["fix"]


async def test_what_was_delivered_and_kept_no_longer_is_not_sent_again(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    """With the deliveries goes the knowledge of what was delivered: a replay would take all of it for missing."""
    hook = await make_hook(project, receiver)
    call = await make_call(project)
    await project.client.post(f"/v1/calls/{call}/end")
    await until(lambda: has(api, call, delivered=2))
    await kept_for_days(api, project, 1, looked_at_after=2)
    assert await has(api, call)

    assert (await recovered(project, hook, what="undelivered"))["queued"] == 0
    assert (await recovered(project, hook, what="all"))["queued"] == 0
    again = await project.client.post(f"/v1/webhooks/{hook['id']}/resend", json={"call_id": call, "seq": 1})
    assert (again.status_code, "not kept" in again.json()["detail"]) == (409, True)
    young = await make_call(project)
    await receiver.until(3, 15)
    assert (await recovered(project, hook, what="all"))["queued"] == 1
    await receiver.until(4, 15)
    assert [e["call_id"] for e in receiver.received] == [call, call, young, young]


async def test_a_delivery_that_was_under_way_when_its_time_came_goes_when_it_is_done(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    await make_hook(project, receiver)
    receiver.status = 503
    call = await make_call(project)
    await project.client.post(f"/v1/calls/{call}/end")
    await kept_for_days(api, project, 1, looked_at_after=2)
    assert not await has(api, call), "the events are still to be told"
    receiver.status = 204

    await until(lambda: has(api, call, delivered=2), 30)
    await kept_for_days(api, project, 1, looked_at_after=2)
    assert await has(api, call)
    async with superuser(api) as database:
        for table in ("delivery_attempts", "retention_late"):
            left = f"select count(*) from vx.{table} where call_id = $1"
            assert await database.fetchval(left, wire.decode(wire.CALL, call)) == 0


async def kept_for_days(api: Api, project: Project, days: int, *, looked_at_after: int) -> None:
    async with superuser(api) as database:
        before = datetime.now(UTC) + timedelta(days=looked_at_after - days)
        mine = wire.decode(wire.PROJECT, project.id)
        await database.fetchval("select vx.retain($1, 'deliveries', $2, 500)", mine, before)


async def has(api: Api, call: str, **deliveries: int) -> bool:
    """Whether a call has just these deliveries: how many in which state."""
    statement = "select state, count(*) as n from vx.deliveries where call_id = $1 group by 1"
    async with superuser(api) as database:
        found = await database.fetch(statement, wire.decode(wire.CALL, call))
    return {r["state"]: r["n"] for r in found} == deliveries
