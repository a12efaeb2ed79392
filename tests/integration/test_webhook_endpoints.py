"""Endpoints: what they want and get, limits, secrets, the handshake, and what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.local.receiver import WebhookReceiver
from app.webhooks.claims import Claims
from app.webhooks.handshake import HANDSHAKE
from app.webhooks.upkeep import Upkeep
from regions.wire import ids as wire
from tests.support.api import Api, Project, problem
from tests.support.fleet import three_regions
from tests.support.hooks import make_call, make_hook, superuser, until
from voxplane import verify


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


async def test_a_new_endpoint_is_asked_before_the_first_event(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    assert hook["verified_at"] is None
    await make_call(project)
    await receiver.until(1, 15)
    await make_call(project)
    await receiver.until(2, 15)
    assert (receiver.handshakes, len(receiver.received), receiver.faults) == (1, 2, [])
    seen = (await project.client.get(f"/v1/webhooks/{hook['id']}")).json()
    assert seen["verified_at"] is not None
    assert (await project.client.get(f"/v1/webhooks/{hook['id']}/health")).json()["state"] == "ok"


async def test_an_endpoint_that_refuses_the_handshake_gets_no_event(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    receiver.secret = "whsec_AAAA"
    await make_call(project)

    async def tried() -> bool:
        page = (await project.client.get(f"/v1/webhooks/{hook['id']}/attempts")).json()
        return [a["error"] for a in page["data"]][:1] == ["handshake"]

    await until(tried)
    assert (receiver.received, receiver.handshakes) == ([], 0)
    health = (await project.client.get(f"/v1/webhooks/{hook['id']}/health")).json()
    assert (health["state"], health["last_error"]) == ("failing", "handshake")
    assert health["disables_at"] > health["failing_since"]


async def test_what_an_endpoint_says_of_what_was_said_is_not_kept(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    """It echoes; whoever may see attempts may not therefore read conversations, and nothing lies in the database in the clear."""
    hook = await make_hook(project, receiver, types=["call.created", "turn.ended"])
    receiver.status, receiver.echoes = 500, True
    call = await make_call(project, metadata={"team": "sales"})
    said = {"type": "turn", "key": "t1", "role": "caller", "text": "canary-quarantadue"}
    assert (await project.client.post(f"/v1/calls/{call}/conversation", json=said)).status_code == 201
    found: list[dict[str, Any]] = []

    async def tried() -> bool:
        if receiver.received:
            receiver.status = 200
        viewer = await api.key(project, "viewer")
        found[:] = (await viewer.get(f"/v1/webhooks/{hook['id']}/attempts")).json()["data"]
        return {a["type"] for a in found if a["status"] == 200} == {"call.created", "turn.ended"}

    await until(tried)
    assert "canary-quarantadue" in str(receiver.received)
    assert {a["type"]: bool(a["excerpt"]) for a in found} == {"call.created": True, "turn.ended": False}
    async with superuser(api) as connection:
        kept = "select count(*) from vx.delivery_attempts a where a::text like '%quarantadue%'"
        assert await connection.fetchval(kept) == 0


async def test_wildcards_and_metadata_choose_what_comes(project: Project, receiver: WebhookReceiver) -> None:
    await make_hook(project, receiver, types=["call.*"], metadata={"team": "sales"})
    other = await make_call(project, metadata={"team": "support"})
    wanted = await make_call(project, metadata={"team": "sales", "more": "1"})
    await project.client.post(f"/v1/calls/{other}/end")
    await project.client.post(f"/v1/calls/{wanted}/end")
    await receiver.until(2, 15)
    assert {e["call_id"] for e in receiver.received} == {wanted}
    assert [e["type"] for e in receiver.received] == ["call.created", "call.ended"]


async def test_many_that_are_made_at_once_wait_for_each_other_and_keep_nobody_else_waiting(
    api: Api, project: Project
) -> None:
    other = await api.project()
    wanted = [{"url": f"http://127.0.0.1:9/{i}"} for i in range(40)]
    async with superuser(api) as elsewhere:
        name = f"webhooks:{wire.decode(wire.PROJECT, project.id)}"
        await elsewhere.execute("select pg_advisory_lock(hashtextextended($1, 0))", name)
        making = [asyncio.create_task(project.client.post("/v1/webhooks", json=body)) for body in wanted]
        for _ in range(30):
            assert (await other.client.get("/v1/webhooks")).status_code == 200
        assert not any(task.done() for task in making), "another instance is at it"
        await elsewhere.execute("select pg_advisory_unlock_all()")
        made = await asyncio.gather(*making)
    assert {answer.status_code for answer in made} == {201}, [a.text for a in made if a.status_code != 201][
        :1
    ]


async def test_headers_of_ones_own_are_sent_and_never_shown(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver, headers={"Authorization": "Bearer s3cret", "X-Team": "a b"})
    assert hook["header_names"] == ["Authorization", "X-Team"]
    assert "s3cret" not in str(hook)
    await make_call(project)
    await receiver.until(1, 15)
    assert receiver.headers[0]["authorization"] == "Bearer s3cret"
    assert receiver.headers[0]["x-team"] == "a b"


async def test_a_rotated_secret_signs_with_the_one_before_for_a_while(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver, signatures=["v1", "v1a"])
    (first_key,) = hook["public_keys"]
    turned = (await project.client.post(f"/v1/webhooks/{hook['id']}/rotate", json={})).json()
    assert turned["secret"] != hook["secret"]
    assert [s["expires_at"] is None for s in turned["secrets"]] == [True, False]
    assert turned["public_keys"][1] == first_key
    await make_call(project)
    await receiver.until(1, 15)  # by the old secret
    sent = receiver.headers[0]
    kinds = [s.partition(",")[0] for s in sent["webhook-signature"].split(" ")]
    assert kinds == ["v1", "v1", "v1a", "v1a"]
    at_once = (await project.client.post(f"/v1/webhooks/{hook['id']}/rotate", json={"overlap_s": 0})).json()
    assert len(at_once["secrets"]) == 1
    receiver.secret = at_once["secret"]
    await make_call(project)
    await receiver.until(2, 15)
    assert receiver.headers[1]["webhook-signature"].count("v1,") == 1


async def test_the_public_key_checks_what_is_signed(project: Project, receiver: WebhookReceiver) -> None:
    hook = await make_hook(project, receiver, signatures=["v1a", "v1"])
    raw: list[tuple[bytes, dict[str, str]]] = []
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(hook["public_keys"][0].removeprefix("whpk_")))
    receiver.seen = lambda body, headers: raw.append((body, headers))
    tested = (await project.client.post(f"/v1/webhooks/{hook['id']}/test", json={})).json()
    assert tested["ok"], tested
    for body, sent in raw:
        signature = next(s for s in sent["webhook-signature"].split(" ") if s.startswith("v1a,"))
        signed = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + body
        key.verify(base64.b64decode(signature.removeprefix("v1a,")), signed)
        assert verify(body, sent, hook["secret"])
    assert len(raw) == 2, "the handshake, and the event"


async def test_a_test_event_says_what_the_endpoint_answered(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    path = f"/v1/webhooks/{hook['id']}/test"
    tested = (await project.client.post(path, json={"type": "turn.ended"})).json()
    assert (tested["ok"], tested["status"], tested["type"]) == (True, 204, "turn.ended")
    assert receiver.received[0]["id"] == tested["event_id"]
    assert receiver.headers[0]["voxplane-test"] == "true"
    receiver.status = 302
    failed = (await project.client.post(path, json={})).json()
    assert (failed["ok"], failed["status"]) == (False, 302)
    assert "Redirects" in failed["fix"]
    unknown = await project.client.post(path, json={"type": HANDSHAKE})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/type")


async def test_an_endpoint_may_want_cloudevents(project: Project, receiver: WebhookReceiver) -> None:
    await make_hook(project, receiver, format="cloudevents")
    call = await make_call(project)
    await receiver.until(1, 15)
    (event,) = receiver.received
    assert (event["specversion"], event["type"], event["subject"]) == (
        "1.0",
        "dev.voxplane.call.created",
        call,
    )
    assert event["source"] == f"urn:voxplane:{project.id}"
    assert receiver.headers[0]["content-type"] == "application/cloudevents+json"
    assert receiver.headers[0]["webhook-id"] == event["id"]


async def test_a_rate_and_a_concurrency_hold_over_all_instances(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver, rate_per_s=5)
    hook_id = wire.decode(wire.WEBHOOK, hook["id"])
    allow = "select allowed from vx.allow(array[$1::uuid], array[8])"
    under_way = (
        "insert into vx.deliveries (call_id, webhook_id, seq, project_id, state, claimed_until)"
        " select gen_random_uuid(), $1, 1, $2, 'in_flight', now() from generate_series(1, 9)"
    )
    async with superuser(api) as connection:
        undone = connection.transaction()
        await undone.start()
        assert await connection.fetchval(allow, hook_id) == 5
        assert await connection.fetchval(allow, hook_id) <= 1
        change = "update vx.webhooks set rate_per_s = null, concurrency = 2 where id = $1"
        await connection.execute(change, hook_id)
        await connection.execute(under_way, hook_id, wire.decode(wire.PROJECT, project.id))
        assert await connection.fetchval(allow, hook_id) == 1, "eight of the nine are those it is asked for"
        await undone.rollback()


async def test_what_is_no_delivery_keeps_the_limits_too(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver, rate_per_s=3, concurrency=1)
    hook_id = wire.decode(wire.WEBHOOK, hook["id"])
    path = f"/v1/webhooks/{hook['id']}/test"
    async with superuser(api) as connection:
        undone = connection.transaction()
        await undone.start()
        admit = "select vx.admit($1, $2)"
        # the handshake and the test: one place, two of the rate
        assert [await connection.fetchval(admit, hook_id, s) for s in (40.0, None)] == ["go", "go"]
        assert await connection.fetchval(admit, hook_id, 40.0) == "busy"
        allowed = await connection.fetchval(
            "select allowed from vx.allow(array[$1::uuid], array[1])", hook_id
        )
        assert allowed == 1
        await connection.execute(
            "insert into vx.deliveries (call_id, webhook_id, seq, project_id, state, claimed_until)"
            " values (gen_random_uuid(), $1, 1, $2, 'in_flight', now())",
            hook_id,
            wire.decode(wire.PROJECT, project.id),
        )
        allowed = await connection.fetchval(
            "select allowed from vx.allow(array[$1::uuid], array[1])", hook_id
        )
        assert allowed == 0, "the test has the endpoint's only place"
        await undone.rollback()
        busy = "update vx.webhooks set beside_until = now() + interval '1 hour' where id = $1"
        await connection.execute(busy, hook_id)
        refused = await project.client.post(path, json={})
        assert problem(refused) == (429, "quota_exceeded")
        await connection.execute("update vx.webhooks set beside_until = '-infinity' where id = $1", hook_id)
        tested = await project.client.post(path, json={})
        assert tested.json()["ok"], tested.text
        left = await connection.fetchrow(
            "select tokens, beside_until < now() as free from vx.webhooks where id = $1", hook_id
        )
    assert left["tokens"] < 2, "the handshake and the test were counted"
    assert left["free"], "its place is free again"


async def test_a_handshake_has_a_turn_of_its_own_where_there_is_a_rate(
    project: Project, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_off: list[Any] = []
    before = Claims.put_off

    async def seen(claims: Claims, given: list[Any]) -> None:
        put_off.extend(given)
        await before(claims, given)

    monkeypatch.setattr(Claims, "put_off", seen)
    await make_hook(project, receiver)
    await make_call(project)
    await receiver.until(1, 15)
    assert put_off == []
    await make_hook(project, receiver, types=["call.created"], rate_per_s=2)
    await make_call(project)
    await receiver.until(2, 15)  # one secret at a time: what goes to the endpoint before is not read
    assert len(put_off) == 1
    assert receiver.handshakes >= 1


async def test_a_slow_endpoint_gets_all_and_a_clock_that_was_set_back_holds_nothing_up(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver, rate_per_s=20, concurrency=2)
    async with superuser(api) as connection:
        await connection.execute(
            "update vx.webhooks set tokens = -1000, tokens_at = clock_timestamp() + interval '1 hour' where id = $1",
            wire.decode(wire.WEBHOOK, hook["id"]),
        )
    await asyncio.gather(*(make_call(project) for _ in range(12)))
    await receiver.until(12, 30)
    assert len({e["id"] for e in receiver.received}) == len(receiver.received) == 12

    async def attempted() -> bool:
        page = (await project.client.get(f"/v1/webhooks/{hook['id']}/attempts")).json()["data"]
        return [a["attempt"] for a in page] == [1] * 12  # to be put off is no attempt

    await until(attempted)


async def test_it_can_be_changed_disabled_and_enabled_again(
    project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    path = f"/v1/webhooks/{hook['id']}"
    seen = await project.client.get(path)
    changed = await project.client.patch(
        path, json={"types": ["call.ended"], "enabled": False}, headers={"If-Match": seen.headers["etag"]}
    )
    assert (changed.json()["types"], changed.json()["disabled_reason"]) == (
        ["call.ended"],
        "disabled by the project",
    )
    stale = await project.client.patch(path, json={"types": None}, headers={"If-Match": seen.headers["etag"]})
    assert stale.status_code == 412
    await project.client.post(f"/v1/calls/{await make_call(project)}/end")
    enabled = (await project.client.patch(path, json={"enabled": True})).json()
    assert (enabled["enabled"], enabled["disabled_reason"], enabled["types"]) == (True, None, ["call.ended"])
    call = await make_call(project)
    await project.client.post(f"/v1/calls/{call}/end")
    await receiver.until(1, 15)
    assert [e["call_id"] for e in receiver.received] == [call]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"types": ["call.vanished"]}, "/types/0"),
        ({"types": ["nothing.*"]}, "/types/0"),
        ({"types": ["transcript.partial"]}, "/types/0"),
        ({"secret": "whsec_c2hvcnQ="}, "/secret"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"webhook-id": "x"}}, "/headers/webhook-id"),
        ({"headers": {"X": "a\r\nB: c"}}, "/headers/X"),
        ({"headers": {"bad name": "x"}}, "/headers/bad name"),
        ({"metadata": {"": "x"}}, "/metadata/"),
        ({"rate_per_s": 0}, "/rate_per_s"),
        ({"concurrency": 1000}, "/concurrency"),
        ({"signatures": ["v2"]}, "/signatures/0"),
        ({"url": "http://10.0.0.1/"}, "/url"),
        ({"url": "https://example.com:22/"}, "/url"),
        ({"nonsense": 1}, "/nonsense"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(
    project: Project, receiver: WebhookReceiver, body: dict[str, Any], pointer: str
) -> None:
    made = await project.client.post("/v1/webhooks", json={"url": receiver.url} | body)
    problem = made.json()
    assert made.status_code in (400, 422), problem
    assert problem["fix"]
    assert pointer in {e["pointer"] for e in problem["errors"]}
    assert (await project.client.get("/v1/webhooks")).json()["data"] == []


async def test_the_same_twice_is_refused(project: Project, receiver: WebhookReceiver) -> None:
    hook = await make_hook(project, receiver, types=["call.ended", "call.created"])
    again = await project.client.post(
        "/v1/webhooks", json={"url": receiver.url, "types": ["call.created", "call.ended"]}
    )
    assert (again.status_code, again.json()["code"]) == (409, "duplicate_webhook")
    assert hook["id"] in again.json()["fix"]
    none = {"url": receiver.url, "types": ["call.ended", "call.created"], "metadata": {}}
    assert (await project.client.post("/v1/webhooks", json=none)).status_code == 409
    other = (await project.client.post("/v1/webhooks", json={"url": receiver.url})).json()
    path = f"/v1/webhooks/{other['id']}"
    changed = await project.client.patch(path, json={"types": ["call.ended", "call.created"]})
    assert (changed.status_code, changed.json()["code"]) == (409, "duplicate_webhook")
    assert (await project.client.patch(path, json={"url": receiver.url})).status_code == 200


async def test_every_endpoint_can_be_tried_at_once(project: Project, receiver: WebhookReceiver) -> None:
    hook = await make_hook(project, receiver)
    path = f"/v1/webhooks/{hook['id']}/test"
    tried = await asyncio.gather(*(project.client.post(path, json={}) for _ in range(20)))
    assert {t.status_code for t in tried} == {200}


async def test_an_endpoint_of_another_project_does_not_exist(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    other_project = await api.project()
    hook = await make_hook(project, receiver)
    path = f"/v1/webhooks/{hook['id']}"
    since = {"since": "2026-01-01T00:00:00Z"}
    for method, where, body in (
        ("GET", path, None), ("PATCH", path, {"enabled": False}), ("DELETE", path, None), ("POST", f"{path}/rotate", {}),
        ("POST", f"{path}/test", {}), ("GET", f"{path}/health", None), ("GET", f"{path}/attempts", None),
        ("GET", f"{path}/deliveries", None), ("POST", f"{path}/resend", {"call_id": "call_x", "seq": 1}),
        ("POST", f"{path}/recover", since), ("GET", f"{path}/replays", None),
    ):  # fmt: skip
        answer = await other_project.client.request(method, where, json=body)
        assert answer.status_code == 404, (method, where, answer.text)


async def test_five_days_of_failure_warn_and_then_disable(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    hook_id = wire.decode(wire.WEBHOOK, hook["id"])
    upkeep = Upkeep(api.control.db, api.control.hints)
    async with superuser(api) as connection:
        since = "update vx.webhooks set failing_since = clock_timestamp() - make_interval(hours => $2) where id = $1"
        await connection.execute(since, hook_id, 109)
        await upkeep.round()
        assert await connection.fetchval("select warned from vx.webhooks where id = $1", hook_id) == 90
        assert (await project.client.get(f"/v1/webhooks/{hook['id']}")).json()["enabled"]
        await connection.execute(since, hook_id, 121)
        await upkeep.round()
    seen = (await project.client.get(f"/v1/webhooks/{hook['id']}")).json()
    assert (seen["enabled"], seen["disabled_reason"]) == (False, "nothing but failures for five days")


async def test_one_success_forgets_the_failures(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    hook = await make_hook(project, receiver)
    async with superuser(api) as connection:
        await connection.execute(
            "update vx.webhooks set failing_since = clock_timestamp() - interval '119 hours', warned = 90 where id = $1",
            wire.decode(wire.WEBHOOK, hook["id"]),
        )
    await make_call(project)
    await receiver.until(1, 15)

    async def forgotten() -> bool:
        return (await project.client.get(f"/v1/webhooks/{hook['id']}")).json()["failing_since"] is None

    await until(forgotten)
