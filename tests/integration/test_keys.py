"""Keys over HTTP: where they may be used from, how they change their secret, and that nothing outlives them."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.clock import SystemClock
from app.projects import keys as keys_of
from app.projects.auth import AHEAD_S, CACHE_S, Authenticator
from app.projects.watching import LOOK_EVERY_S
from tests.support.api import Api, Project, problem, serving

HOME = "127.0.0.1/32"


async def made(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/keys", json={"name": "k", "role": "viewer"} | body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def asked(api: Api, secret: str, *headers: tuple[str, str]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as client:
        return await client.get("/v1/calls", headers=[("authorization", f"Bearer {secret}"), *headers])


async def rotated(client: httpx.AsyncClient, key_id: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/keys/{key_id}/rotate", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_key_is_used_from_where_it_may_be_and_a_header_changes_nothing(
    api: Api, project: Project
) -> None:
    here = await made(project.client, allow_from=["127.0.0.1", "2001:db8::/32", HOME])
    elsewhere = await made(project.client, allow_from=["203.0.113.0/24", "::1"])

    assert here["allow_from"] == [HOME, "2001:db8::/32"]
    assert (await asked(api, here["secret"])).status_code == 200
    for headers in ([], [("x-forwarded-for", "203.0.113.7")], [("forwarded", "for=203.0.113.7")]):
        refused = await asked(api, elsewhere["secret"], *headers)
        assert problem(refused) == (401, "address_refused")
    created = await httpx.AsyncClient(base_url=api.url).post(
        "/v1/calls", json={"agent": {"url": "ws://127.0.0.1:9/"}}, headers={
            "authorization": f"Bearer {elsewhere['secret']}", "idempotency-key": "k"})  # fmt: skip
    assert problem(created) == (401, "address_refused")


async def test_a_trusted_proxy_says_where_a_request_comes_from(api: Api, project: Project) -> None:
    key = await made(project.client, allow_from=["203.0.113.0/24"])
    behind = dataclasses.replace(api.settings, port=0, trusted_proxies=(HOME,))
    async with serving(behind) as other:
        for hops, status in (
            (["203.0.113.7"], 200),
            (["203.0.113.7, 198.51.100.1"], 401),  # what the sender wrote before the proxy did
            (["203.0.113.7", "198.51.100.1"], 401),
            (["203.0.113.7, nonsense"], 401),
            (["198.51.100.1, 203.0.113.7"], 200),
            ([], 401),
        ):
            got = await asked(other, key["secret"], *(("x-forwarded-for", hop) for hop in hops))
            assert got.status_code == status, hops


async def test_a_rotation_gives_a_new_secret_and_the_old_one_ends(api: Api, project: Project) -> None:
    key = await made(project.client)
    first = await rotated(project.client, key["id"], overlap_s=3600)
    second = await rotated(project.client, key["id"])

    assert key["id"] == first["id"] == second["id"]
    assert len({key["secret"], first["secret"], second["secret"]}) == 3
    assert [b["hint"] for b in second["before"]] == [key["hint"], first["hint"]]
    assert second["before"][0]["expires_at"] < second["before"][1]["expires_at"]
    for secret in (key["secret"], first["secret"], second["secret"]):
        assert (await asked(api, secret)).status_code == 200

    last = await rotated(project.client, key["id"], overlap_s=0)
    assert last["before"] == []
    for secret in (key["secret"], first["secret"], second["secret"]):
        refused = await asked(api, secret)
        assert problem(refused) == (401, "unauthenticated")
        assert "replaced" in refused.json()["detail"]
    assert (await asked(api, last["secret"])).status_code == 200
    listed = {k["id"]: k for k in (await project.client.get("/v1/keys")).json()["data"]}[key["id"]]
    assert (listed["hint"], listed["rotated_at"], "secret" in listed) == (
        last["hint"],
        last["rotated_at"],
        False,
    )

    assert (await project.client.delete(f"/v1/keys/{key['id']}")).status_code == 204
    assert (await asked(api, last["secret"])).status_code == 401


async def test_a_rotation_extends_no_key(api: Api, project: Project) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    key = await made(project.client, expires_at=end.isoformat())
    new = await rotated(project.client, key["id"], overlap_s=604_800)
    assert new["before"][0]["expires_at"] == new["expires_at"] == key["expires_at"]

    await api.control.db.pool("admin").execute(
        "update vx.api_keys set expires_at = now() - interval '1 second' where hint = $1", new["hint"]
    )
    api.control.auth.forget()
    for secret in (key["secret"], new["secret"]):
        assert "expired" in (await asked(api, secret)).json()["detail"]
    refused = await project.client.post(f"/v1/keys/{key['id']}/rotate")
    assert problem(refused) == (409, "conflict")


async def test_who_may_rotate_a_key_and_how_often(api: Api, project: Project) -> None:
    owner = (await project.client.get("/v1/keys")).json()["data"][-1]
    admin = await api.key(project, "admin")
    narrow = await api.key(project, "admin", scopes=["keys:write", "calls:read"])
    mine, wide = (
        await made(project.client, scopes=["calls:read"]),
        await made(project.client, role="developer"),
    )
    other = await api.project()

    async def status(client: httpx.AsyncClient, key_id: str, **body: Any) -> int:
        return (await client.post(f"/v1/keys/{key_id}/rotate", json=body)).status_code

    assert [await status(admin, owner["id"]), await status(narrow, wide["id"])] == [403, 403]
    assert [await status(narrow, mine["id"]), await status(admin, wide["id"])] == [200, 200]
    assert [await status(other.client, mine["id"]), await status(admin, "key_x")] == [404, 404]
    for wrong in ({"overlap_s": -1}, {"overlap_s": 604_801}, {"overlap_s": "1"}, {"for_s": 1}):
        assert await status(admin, wide["id"], **wrong) == 422
    assert (await admin.delete(f"/v1/keys/{mine['id']}")).status_code == 204
    assert await status(admin, mine["id"]) == 409
    for _ in range(7):
        assert await status(admin, wide["id"], overlap_s=60) == 200
    too_many = await admin.post(f"/v1/keys/{wide['id']}/rotate", json={"overlap_s": 60})
    assert problem(too_many) == (409, "conflict")
    assert await status(admin, wide["id"], overlap_s=0) == 200
    await rotated(project.client, owner["id"])  # the present secret of the one who asks


async def test_a_key_that_ends_or_is_bound_hands_out_none_that_does_not_or_is_not(
    api: Api, project: Project
) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    lasting = await made(project.client, role="viewer")
    bound = await api.key(project, "admin", expires_at=end.isoformat(), allow_from=["127.0.0.0/24"])

    child = await made(bound, role="admin")
    assert (datetime.fromisoformat(child["expires_at"]) - end) < timedelta(milliseconds=1)
    assert child["allow_from"] == ["127.0.0.0/24"]
    near = await made(bound, expires_at=(end - timedelta(minutes=1)).isoformat(), allow_from=[HOME])
    assert near["allow_from"] == [HOME]
    wide = {
        "expires_at": (end + timedelta(minutes=1)).isoformat(),
        "allow_from": [HOME, "127.0.0.0/8", "::1"],
    }
    refused = await bound.post("/v1/keys", json={"name": "k", "role": "viewer"} | wide)
    pointers = [e["pointer"] for e in refused.json()["errors"]]
    assert (refused.status_code, pointers) == (422, ["/expires_at", "/allow_from/1", "/allow_from/2"])

    # nor by giving one that is there another secret
    assert problem(await bound.post(f"/v1/keys/{lasting['id']}/rotate", json={})) == (403, "forbidden")
    await rotated(bound, near["id"])
    own = await api.client(child["secret"])
    await rotated(own, child["id"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"allow_from": ["10.0.0.1/8"]}, "/allow_from/0"),
        ({"allow_from": ["10.0.0.0/8", "example.org"]}, "/allow_from/1"),
        ({"allow_from": ["::ffff:10.0.0.0/104"]}, "/allow_from/0"),
        ({"allow_from": ["10.0.0.0/8"] * 65}, "/allow_from"),
        ({"allow_from": "10.0.0.0/8"}, "/allow_from"),
        ({"role": "operator", "scopes": ["calls:write"]}, "/scopes/0"),
        ({"role": "billing", "scopes": ["calls:read"]}, "/scopes/0"),
        ({"role": "root"}, "/role"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_a_pointer(
    project: Project, body: dict[str, Any], pointer: str
) -> None:
    before = len((await project.client.get("/v1/keys")).json()["data"])
    refused = await project.client.post("/v1/keys", json={"name": "k"} | body)
    assert refused.status_code == 422
    assert [e["pointer"] for e in refused.json()["errors"]] == [pointer]
    assert len((await project.client.get("/v1/keys")).json()["data"]) == before


async def test_a_revocation_is_known_everywhere_also_without_valkey(api: Api, project: Project) -> None:
    """The instance that was asked with the key a moment before has no hints: it finds out by itself, and its stream ends."""
    assert CACHE_S + LOOK_EVERY_S < 5
    key = await made(project.client)
    async with serving(dataclasses.replace(api.settings, port=0, redis_urls={})) as other:
        client = await other.client(key["secret"])
        async with asyncio.timeout(30), client.stream("GET", "/v1/events/stream") as response:
            lines = response.aiter_lines()
            await anext(lines)
            assert len(other.control.auth.watching) == 1
            assert (await project.client.delete(f"/v1/keys/{key['id']}")).status_code == 204
            async for line in lines:
                assert not line.startswith("data")
            while (await client.get("/v1/calls")).status_code != 401:
                await asyncio.sleep(0.05)
        assert len(other.control.auth.watching) == 0


async def test_what_was_asked_before_a_revocation_is_not_remembered_after_it(
    api: Api, project: Project
) -> None:
    key = await made(project.client)
    auth, keys = api.control.auth, api.control.db.pool("keys")
    async with keys.acquire(), keys.acquire():  # nobody is answered until this ends
        looking = asyncio.create_task(auth._look_up(key["secret"]))
        await asyncio.sleep(0)
        auth.forget()
    assert (await looking).until_s > 0
    assert auth.known(f"Bearer {key['secret']}") is None


class Later(SystemClock):
    late_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.late_s


async def test_a_key_in_use_is_asked_after_before_it_is_forgotten_and_a_revoked_one_is_forgotten(
    api: Api, project: Project
) -> None:
    key, clock = await made(project.client), Later()
    bearer, auth = f"Bearer {key['secret']}", Authenticator(api.control.db, clock, "")
    first = await auth.project(bearer)
    clock.late_s = CACHE_S - AHEAD_S / 2
    assert auth.known(bearer) == first
    [looking] = auth._looking.values()
    await looking
    clock.late_s = CACHE_S + AHEAD_S
    assert auth.known(bearer) == first
    assert (await project.client.delete(f"/v1/keys/{key['id']}")).status_code == 204
    clock.late_s = 2 * CACHE_S - AHEAD_S
    assert auth.known(bearer) == first
    [looking] = auth._looking.values()
    await asyncio.wait([looking])
    clock.late_s = 3 * CACHE_S
    assert auth.known(bearer) is None


# ------------------------------------------------------------------------------------------------------- narrowing


async def changed(
    client: httpx.AsyncClient, key: dict[str, Any], status: int = 200, **body: Any
) -> dict[str, Any]:
    answer = await client.patch(f"/v1/keys/{key['id']}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_key_is_narrowed_and_never_widened(api: Api, project: Project) -> None:
    key = await made(project.client, role="developer", name="wide")
    client = await api.client(key["secret"])
    new = {"agent": {"url": "ws://127.0.0.1:9/"}}
    assert (await client.post("/v1/calls", json=new, headers={"Idempotency-Key": "1"})).status_code == 422
    kept = await changed(project.client, key, name="narrow", scopes=["calls:read", "webhooks:write"])
    assert (kept["name"], kept["role"], kept["scopes"]) == (
        "narrow",
        "developer",
        ["calls:read", "webhooks:write"],
    )
    assert kept["hint"] == key["hint"] and "secret" not in kept
    refused = await client.post("/v1/calls", json=new, headers={"Idempotency-Key": "1"})
    assert problem(refused)[0] == 403 and "calls:write" in refused.text
    assert (await client.get("/v1/calls")).status_code == 200
    for body, pointer in (
        ({"scopes": ["calls:read", "calls:write"]}, "/scopes/1"),
        ({"scopes": ["keys:write"], "role": "owner"}, "/scopes/0"),
        ({"scopes": []}, "/role"),
        ({"role": "admin", "scopes": []}, "/role"),
        ({"role": "billing"}, "/role"),
        ({"scopes": ["nonsense"]}, "/scopes/0"),
        ({"role": "emperor"}, "/role"),
    ):
        told = await changed(project.client, key, 422, **body)
        assert [e["pointer"] for e in told["errors"]] == [pointer], body
    # of its scopes the role has these, and `webhooks:write` has held `webhooks:resend`
    assert (await changed(project.client, key, role="viewer"))["scopes"] == ["calls:read"]
    assert (await changed(project.client, key))["name"] == "narrow"
    log = (await project.client.get("/v1/audit", params={"action": "key.changed"})).json()["data"]
    assert [e["summary"] for e in log] == [
        {"role": "viewer", "scopes": ["calls:read"]},
        {"name": "narrow", "scopes": ["calls:read", "webhooks:write"]},
    ]
    await project.client.delete(f"/v1/keys/{key['id']}")
    assert (await changed(project.client, key, 409, name="gone"))["code"] == "conflict"


async def test_a_key_of_a_role_becomes_one_of_a_lesser_role_and_the_last_owner_stays(
    api: Api, project: Project
) -> None:
    key = await made(project.client, role="admin")
    assert (await changed(project.client, key, role="billing"))["scopes"] == []
    assert (await changed(project.client, key, 422, role="viewer"))["errors"][0]["pointer"] == "/role"
    (own,) = [k for k in (await project.client.get("/v1/keys")).json()["data"] if k["role"] == "owner"]
    assert "last owner" in (await changed(project.client, own, 409, role="viewer"))["detail"]
    assert (await changed(project.client, own, name="still an owner's"))["role"] == "owner"
    reading = ["calls:read"]
    assert "last owner" in (await changed(project.client, own, 409, scopes=reading))["detail"]
    second = await made(project.client, role="owner")
    assert (await changed(project.client, second, scopes=reading))["scopes"] == reading
    # with that one alone nobody would make keys any more
    assert (await project.client.delete(f"/v1/keys/{own['id']}")).status_code == 409
    assert (await project.client.delete(f"/v1/keys/{second['id']}")).status_code == 204
    viewer = await api.key(project, "viewer")
    assert (await viewer.patch(f"/v1/keys/{key['id']}", json={"name": "x"})).status_code == 403
    stranger = await api.project()
    assert (await stranger.client.patch(f"/v1/keys/{key['id']}", json={"name": "x"})).status_code == 404


async def test_a_stream_ends_when_its_key_is_narrowed_and_opens_again_as_far_as_it_may(
    api: Api, project: Project
) -> None:
    key = await made(project.client, role="developer")
    client, wanted = await api.client(key["secret"]), ["events:read", "calls:read"]
    async with asyncio.timeout(30), client.stream("GET", "/v1/events/stream") as response:
        lines = response.aiter_lines()
        await anext(lines)
        await changed(project.client, key, name="only another name")
        await api.control.auth.watching.look()
        assert len(api.control.auth.watching) == 1
        await changed(project.client, key, scopes=wanted)
        async for line in lines:
            assert not line.startswith("data")
    async with asyncio.timeout(30), client.stream("GET", "/v1/events/stream") as response:
        lines = response.aiter_lines()  # kept: what is collected closes its stream
        await anext(lines)
        await api.control.auth.watching.look()
        assert response.status_code == 200 and len(api.control.auth.watching) == 1


async def test_a_key_that_works_stays_listed_however_many_came_and_went(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_of, "PAGE_MAX", 3)
    monkeypatch.setattr(keys_of, "WORKING_MAX", 3)
    (own,) = (await project.client.get("/v1/keys")).json()["data"]
    for _ in range(4):
        gone = await made(project.client, role="viewer")
        assert (await project.client.delete(f"/v1/keys/{gone['id']}")).status_code == 204
    listed = (await project.client.get("/v1/keys")).json()["data"]
    assert (listed[0]["id"], listed[1]["id"], len(listed)) == (own["id"], gone["id"], 3)

    await made(project.client, role="viewer")
    await made(project.client, role="viewer")
    refused = await project.client.post("/v1/keys", json={"name": "one more", "role": "viewer"})
    assert (refused.status_code, "3 keys that work" in refused.json()["detail"]) == (409, True)
    # an operator helps a project that has locked itself out, however many it has
    path = f"/admin/v1/projects/{project.id}/keys"
    assert (await api.operator.post(path, json={"name": "help", "role": "owner"})).status_code == 201
