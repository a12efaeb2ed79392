"""Quotas through HTTP and on several instances, on the real database."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app.projects.quotas_policy import read_defaults
from app.webhooks.upkeep import FILL
from tests.support.api import Api, Project, serving
from tests.support.fleet import add_region

BODY: dict[str, Any] = {"agent": {"url": "ws://127.0.0.1:9/agent"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    for region in ("us-east", "eu-west"):
        await add_region(api, region, capacity=100_000)


async def create(client: Any, key: str | None = None, **more: Any) -> Any:
    return await client.post("/v1/calls", json=BODY | more, headers={"Idempotency-Key": key or uuid4().hex})


def quotas_of(project: Project) -> str:
    return f"/admin/v1/projects/{project.id}/quotas"


async def allow(api: Api, project: Project, **limits: Any) -> None:
    """In place of what was allowed before."""
    version = (await api.operator.get(quotas_of(project))).headers["etag"]
    answer = await api.operator.put(quotas_of(project), json=limits, headers={"If-Match": version})
    assert answer.status_code == 200, answer.text


async def live(api: Api, project: Project) -> int:
    use = (await project.client.get("/v1/quotas")).json()["use"]
    return next(u["used"] for u in use if (u["name"], u["scope"]) == ("concurrent_calls", "project"))


async def test_many_instances_never_pass_the_bound_of_calls_at_once(api: Api, project: Project) -> None:
    """Sixty creates at once on two instances, room for ten; then room for as many as have ended."""
    await allow(api, project, concurrent_calls=10)
    async with serving(dataclasses.replace(api.settings, port=0)) as other:
        there = await other.client(project.key)
        clients = [project.client, there] * 30
        answers = await asyncio.gather(*(create(c) for c in clients))
        made = [a for a in answers if a.status_code == 201]
        no = [a for a in answers if a.status_code == 429]

        assert (len(made), len(no), await live(api, project)) == (10, 50, 10)
        for call in made[:3]:
            assert (await there.post(f"/v1/calls/{call.json()['id']}/end")).status_code == 200
        answers = await asyncio.gather(*(create(c) for c in clients))
        assert (sum(a.status_code == 201 for a in answers), await live(api, project)) == (3, 10)

    body, headers = no[0].json(), no[0].headers
    assert (body["code"], body["quota"], body["scope"], body["limit"]) == (
        "quota-exceeded", "concurrent_calls", "project", 10,
    )  # fmt: skip
    assert "End a call" in body["fix"]
    assert headers["ratelimit-policy"] == '"project.concurrent_calls";q=10'
    assert headers["ratelimit"] == '"project.concurrent_calls";r=0;t=5'
    assert headers["retry-after"] == "5"
    assert sorted(a.headers["ratelimit"] for a in made) != []
    assert all(a.headers["ratelimit-policy"] == '"project.concurrent_calls";q=10' for a in made)


async def test_a_repeated_create_is_never_refused_and_counts_once(api: Api, project: Project) -> None:
    await allow(api, project, concurrent_calls=1, creates_per_s=1)
    first = await create(project.client, "once")
    again = await asyncio.gather(*(create(project.client, "once") for _ in range(8)))
    other = await create(project.client, "twice")

    assert {(a.status_code, a.json()["id"], a.headers["idempotent-replayed"]) for a in again} == {
        (201, first.json()["id"], "true")
    }
    assert (other.status_code, await live(api, project)) == (429, 1)

    # neither when nothing is allowed any more, nor when what it asked for is not
    await allow(api, project, concurrent_calls=0, max_duration_s=1, destinations=[])
    assert (await create(project.client, "once")).json()["id"] == first.json()["id"]
    # and a refused one has left nothing behind: it may be sent again
    await project.client.post(f"/v1/calls/{first.json()['id']}/end")
    await allow(api, project, concurrent_calls=1)
    assert (await create(project.client, "twice")).status_code == 201


async def test_creates_per_second_hold_over_instances(api: Api, project: Project) -> None:
    """In T seconds at most (T + 1) times the quota, however many ask and wherever."""
    await allow(api, project, creates_per_s=5)
    async with serving(dataclasses.replace(api.settings, port=0)) as other:
        clients = [project.client, await other.client(project.key)] * 20
        began = time.monotonic()
        answers = [a for _ in range(3) for a in await asyncio.gather(*(create(c) for c in clients))]
        took_s = time.monotonic() - began
    made = [a for a in answers if a.status_code == 201]
    no = [a for a in answers if a.status_code == 429]

    assert 5 <= len(made) <= 5 * (took_s + 1)
    assert len(made) + len(no) == 120
    assert no[0].headers["ratelimit-policy"] == '"project.creates_per_s";q=5;w=1'
    assert no[0].headers["ratelimit"] == '"project.creates_per_s";r=0;t=1'
    assert no[0].headers["retry-after"] == "1"
    assert no[0].json()["quota"] == "creates_per_s"
    assert made[0].headers["ratelimit"].startswith('"project.creates_per_s";r=')


async def test_a_key_has_limits_of_its_own_within_the_projects(api: Api, project: Project) -> None:
    await allow(api, project, concurrent_calls=3)
    narrow = await api.key(project, "developer", limits={"concurrent_calls": 2})

    assert [(await create(narrow)).status_code for _ in range(3)] == [201, 201, 429]
    refused = (await create(narrow)).json()
    assert (refused["scope"], refused["limit"]) == ("key", 2)
    assert [(await create(project.client)).status_code for _ in range(2)] == [201, 429]
    keys = (await project.client.get("/v1/keys")).json()["data"]
    assert sorted(len(k["limits"]) for k in keys) == [0, 1]
    use = {(u["name"], u["scope"]): u for u in (await api_quotas(api, project))["use"]}
    assert use[("concurrent_calls", "project")]["used"] == 3


async def api_quotas(api: Api, project: Project) -> Any:
    return (await project.client.get("/v1/quotas")).json()


async def test_a_limited_key_hands_out_no_more_than_it_has(api: Api, project: Project) -> None:
    admin = await api.key(project, "admin", limits={"concurrent_calls": 2, "destinations": ["US"]})

    heir = await admin.post("/v1/keys", json={"name": "heir", "role": "viewer"})
    assert heir.json()["limits"] == {"concurrent_calls": 2, "destinations": ["US"]}
    more = {"concurrent_calls": 3, "destinations": ["US", "CU"]}
    refused = await admin.post("/v1/keys", json={"name": "more", "role": "viewer", "limits": more})
    assert refused.status_code == 422
    assert [e["pointer"] for e in refused.json()["errors"]] == [
        "/limits/concurrent_calls",
        "/limits/destinations",
    ]

    # each key counts its calls for itself: with another one the bound would be none
    twin = await project.client.post(
        "/v1/keys", json={"name": "twin", "role": "developer", "limits": {"concurrent_calls": 1}}
    )
    asked = [
        (await admin.post("/v1/keys", json={"name": "x", "role": "developer"} | more))
        .json()
        .get("errors", [{}])[0]
        .get("pointer")
        for more in ({}, {"scopes": ["calls:write"]}, {"scopes": ["calls:read", "calls:operate"]})
    ]
    assert asked == ["/role", "/scopes/0", None]
    assert (await admin.post(f"/v1/keys/{twin.json()['id']}/rotate", json={})).status_code == 403
    mine = next(
        k["id"] for k in (await project.client.get("/v1/keys")).json()["data"] if k["role"] == "admin"
    )
    assert (await admin.post(f"/v1/keys/{mine}/rotate", json={})).status_code == 200


async def test_where_a_call_may_go_and_how_long_it_may_last(api: Api, project: Project) -> None:
    await allow(api, project, destinations=["US"], max_duration_s=600)
    allowed = await create(project.client, caller={"to": "+14155550123"})
    barred = await create(project.client, caller={"to": "+5375550123"})
    phone = await create(project.client, caller={"kind": "phone", "to": "+14155550123"})
    long = await create(project.client, max_duration_s=601)

    assert (allowed.status_code, allowed.json()["max_duration_s"]) == (201, 600)
    assert (barred.status_code, barred.json()["code"]) == (422, "destination_not_allowed")
    assert barred.json()["errors"] == [{"pointer": "/caller/to", "detail": "CU is not listed"}]
    assert (phone.status_code, phone.json()["code"]) == (422, "not_available")
    assert (long.status_code, long.json()["code"], long.json()["limit"]) == (
        422,
        "max_duration_exceeded",
        600,
    )


async def test_the_operator_sets_quotas_by_their_version(api: Api, project: Project) -> None:
    path = quotas_of(project)
    first = await api.operator.get(path)
    assert (first.headers["etag"], first.json()["limits"]) == ('"0"', {})

    assert (await api.operator.put(path, json={})).status_code == 428
    assert (await api.operator.put(path, json={}, headers={"If-Match": '"1"'})).status_code == 412
    limits = {"concurrent_calls": 7, "destinations": ["US", "IN", "US"], "webhook_backlog": 100}
    put = await api.operator.put(path, json=limits, headers={"If-Match": '"0"'})
    assert put.json()["limits"] == limits | {"destinations": ["IN", "US"]}
    again = await api.operator.put(path, json={}, headers={"If-Match": '"0"'})
    assert (again.status_code, again.json()["code"]) == (412, "precondition_failed")
    change = {"concurrent_calls": None, "creates_per_s": 9}
    changed = await api.operator.patch(path, json=change, headers={"If-Match": put.headers["etag"]})
    assert (changed.headers["etag"], changed.json()["limits"]) == (
        '"2"', {"creates_per_s": 9, "destinations": ["IN", "US"], "webhook_backlog": 100},
    )  # fmt: skip
    seen = (await project.client.get("/v1/quotas")).json()
    assert seen["project"] == changed.json()["limits"]


@pytest.mark.parametrize(
    ("limits", "pointer"),
    [
        ({"concurrent_calls": -1}, "/concurrent_calls"),
        ({"concurrent_calls": 10**12}, "/concurrent_calls"),
        ({"creates_per_s": 0}, "/creates_per_s"),
        ({"creates_per_s": 1.5}, "/creates_per_s"),
        ({"max_duration_s": "60"}, "/max_duration_s"),
        ({"destinations": ["us"]}, "/destinations/0"),
        ({"destinations": "US"}, "/destinations"),
        ({"destinations": ["US", "UK"]}, "/destinations"),
        ({"calls": 1}, ""),
    ],
)
async def test_a_limit_that_is_none_is_refused_and_changes_nothing(
    api: Api, project: Project, limits: dict[str, Any], pointer: str
) -> None:
    for method in ("PUT", "PATCH"):
        answer = await api.operator.request(
            method, quotas_of(project), json=limits, headers={"If-Match": '"0"'}
        )
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert (await api.operator.get(quotas_of(project))).json()["version"] == 0


async def test_what_no_operator_has_set_is_the_deployments_default(api: Api, project: Project) -> None:
    default = read_defaults("concurrent_calls=1,max_duration_s=60,destinations=US+CA")
    async with serving(dataclasses.replace(api.settings, port=0, default_quotas=default)) as bound:
        mine = await bound.client(project.key)
        made = await create(mine, caller={"kind": "websocket", "to": "+14165550123"})
        refused = await create(mine)
        abroad = await create(mine, caller={"kind": "websocket", "to": "+4930123456"})
        assert (made.status_code, made.json()["max_duration_s"]) == (201, 60), made.text
        assert (refused.status_code, refused.json()["limit"]) == (429, 1), refused.text
        assert (abroad.status_code, abroad.json()["code"]) == (422, "destination_not_allowed")
        assert (await mine.get("/v1/quotas")).json()["project"]["concurrent_calls"] == 1

        await allow(bound, project, concurrent_calls=3)
        assert (await create(mine)).status_code == 201
        said = (await bound.operator.get(quotas_of(project))).json()
        assert said["limits"] == {"concurrent_calls": 3}
        assert said["default"] == {"concurrent_calls": 1, "max_duration_s": 60, "destinations": ["CA", "US"]}


async def test_a_default_is_lifted_for_one_project(api: Api, project: Project) -> None:
    default = read_defaults("concurrent_calls=1,max_duration_s=60")
    async with serving(dataclasses.replace(api.settings, port=0, default_quotas=default)) as bound:
        mine, other = await bound.client(project.key), await bound.project()

        async def change(**more: Any) -> Any:
            version = (await bound.operator.get(quotas_of(project))).headers["etag"]
            return await bound.operator.patch(quotas_of(project), json=more, headers={"If-Match": version})

        assert (await create(mine)).status_code == 201
        assert (await create(mine)).status_code == 429
        lifted = await change(unbounded=["concurrent_calls"])
        assert lifted.json()["limits"] == {"unbounded": ["concurrent_calls"]}, lifted.text
        made = [await create(mine) for _ in range(3)]
        assert [(a.status_code, a.json()["max_duration_s"]) for a in made] == [(201, 60)] * 3
        assert [(await create(other.client)).status_code for _ in range(2)] == [201, 429], "of that one alone"

        both = await change(unbounded=["concurrent_calls"], concurrent_calls=2)
        assert (both.status_code, both.json()["errors"][0]["pointer"]) == (422, "/unbounded")
        assert (await change(concurrent_calls=2)).json()["limits"] == {"concurrent_calls": 2}
        assert (await change(unbounded=["concurrent_calls"])).json()["limits"] == {
            "unbounded": ["concurrent_calls"]
        }
        assert (await change(unbounded=[])).json()["limits"] == {}
        assert (await create(mine)).status_code == 429, "the default holds again"


async def test_quotas_are_their_projects_and_the_operators_alone(api: Api, project: Project) -> None:
    nowhere = f"/admin/v1/projects/{project.id[:-4]}aaaa/quotas"
    assert (await api.operator.get(nowhere)).status_code == 404
    assert (await api.operator.put(nowhere, json={}, headers={"If-Match": '"0"'})).status_code == 404
    assert (
        await project.client.put(quotas_of(project), json={}, headers={"If-Match": '"0"'})
    ).status_code == 403
    viewer = await api.key(project, "viewer")
    assert (await viewer.get("/v1/quotas")).status_code == 403
    assert (await project.client.get("/v1/quotas?x=1")).status_code in (400, 422)


async def test_the_backlog_of_an_endpoint_is_bounded_by_the_projects_quota(
    api: Api, project: Project
) -> None:
    await allow(api, project, webhook_backlog=3)
    other = await api.project()
    pool, hooks = api.control.db.pool("worker"), []
    for of in (project, other):
        made = await of.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
        hooks.append(made.json()["id"])
    await pool.execute("update vx.webhooks set waiting = 4 where full_since is null")
    filled = [r["id"] for r in await pool.fetch(FILL, 100_000, 100_000)]

    assert len(filled) == 1
    assert len(await pool.fetch(FILL, 100_000, 3)) == 1, "the other's, where three is the default"
    assert (await api_quotas(api, project))["use"][2] == {
        "name": "webhook_backlog", "scope": "project", "limit": 3, "used": 4, "window_s": None,
    }  # fmt: skip
