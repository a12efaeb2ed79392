"""Projects for operators, keys for projects."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncpg
import pytest

from app.projects.secrets import parse
from regions.wire import ids as wire
from tests.support.api import Api, Project

WAITING = "select count(distinct pid) from pg_locks where not granted"
LIVE_OWNERS = (
    "select count(*) from vx.api_keys where project_id = $1 and role = 'owner' and revoked_at is null"
)


async def test_a_project_is_made_listed_and_read(api: Api) -> None:
    made = await api.operator.post("/admin/v1/projects", json={"name": "Ünïcode & <co>", "mode": "live"})
    listed = (await api.operator.get("/admin/v1/projects")).json()["data"]
    read = await api.operator.get(f"/admin/v1/projects/{made.json()['id']}")

    assert made.status_code == 201
    assert re.fullmatch(r"prj_[0-9a-z]{26}", made.json()["id"])
    assert made.json() in listed
    assert read.json() == made.json()


@pytest.mark.parametrize("text", ["x", "prj_" + "0" * 26, "key_" + "0" * 26, "%00", "prj_%FF"])
async def test_a_project_that_is_not_there_is_not_found(api: Api, text: str) -> None:
    for answer in (
        await api.operator.get(f"/admin/v1/projects/{text}"),
        await api.operator.post(f"/admin/v1/projects/{text}/keys", json={"name": "x", "role": "owner"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("mode", ["test", "live"])
async def test_a_secret_names_its_mode_is_shown_once_and_stored_hashed(api: Api, mode: str) -> None:
    project = await api.project(mode=mode)
    made = (await project.client.post("/v1/keys", json={"name": "ci", "role": "viewer"})).json()
    listed = (await project.client.get("/v1/keys")).json()["data"]
    stored = await api.control.db.pool("admin").fetchrow(
        "select * from vx.api_keys where secret_hash = $1", parse(made["secret"]).hash
    )

    assert made["secret"].startswith(f"vx_{mode}_")
    assert listed[0] == {k: v for k, v in made.items() if k != "secret"}
    assert made["hint"] == made["secret"][-4:]
    assert made["secret"] not in repr(dict(stored))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, ""),
        ({"name": ""}, "/name"),
        ({"name": "x" * 129}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"name": "x", "role": "root"}, "/role"),
        ({"name": "x", "unknown": 1}, "/unknown"),
        ({"name": "x", "scopes": ["calls:read", "keys:write"]}, "/scopes/1"),
        ({"name": "x", "scopes": ["sudo"]}, "/scopes/0"),
        ({"name": "x", "scopes": ["calls:read"] * 65}, "/scopes"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "expires_at": "2090-01-01T00:00:00"}, "/expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, "/expires_at"),
    ],
)
async def test_a_bad_key_is_refused_with_a_pointer(project: Project, body: Any, pointer: str) -> None:
    answer = await project.client.post("/v1/keys", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert len((await project.client.get("/v1/keys")).json()["data"]) == 1


async def test_nobody_hands_out_more_than_they_have(api: Api, project: Project) -> None:
    admin = await api.key(project, "admin")
    narrow = await api.key(project, "owner", scopes=["keys:write", "calls:read"])

    asked = [
        await admin.post("/v1/keys", json={"name": "x", "role": "owner"}),
        await narrow.post("/v1/keys", json={"name": "x", "role": "developer"}),
        await narrow.post("/v1/keys", json={"name": "x", "role": "developer", "scopes": ["calls:write"]}),
        await narrow.post("/v1/keys", json={"name": "x", "role": "developer", "scopes": ["calls:read"]}),
    ]

    assert [a.status_code for a in asked] == [403, 422, 422, 201]


async def test_the_last_owner_key_cannot_be_revoked_by_its_project(api: Api, project: Project) -> None:
    first = (await project.client.get("/v1/keys")).json()["data"][0]["id"]

    refused = await project.client.delete(f"/v1/keys/{first}")
    second = await api.key(project, "owner")
    allowed = await second.delete(f"/v1/keys/{first}")

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "another owner key" in refused.json()["fix"]
    assert allowed.status_code == 204
    assert (await project.client.get("/v1/keys")).status_code == 401


async def test_two_owner_keys_that_revoke_each_other_leave_one(api: Api, project: Project) -> None:
    second = await api.key(project, "owner")
    keys = {k["name"]: k["id"] for k in (await project.client.get("/v1/keys")).json()["data"]}
    project_id = wire.decode(wire.PROJECT, project.id)
    superuser = await asyncpg.connect(api.settings.database_url)
    try:
        async with superuser.transaction():
            await superuser.execute("select from vx.api_keys where project_id = $1 for update", project_id)
            both = asyncio.gather(
                project.client.delete(f"/v1/keys/{keys['owner']}"), second.delete(f"/v1/keys/{keys['first']}")
            )
            async with asyncio.timeout(5):
                while await superuser.fetchval(WAITING) < 2:
                    await asyncio.sleep(0.005)
        answers = await both
        live = await superuser.fetchval(LIVE_OWNERS, project_id)
    finally:
        await superuser.close()

    assert live == 1
    assert 204 in [a.status_code for a in answers]


async def test_revoking_twice_is_as_good_as_once(api: Api, project: Project) -> None:
    made = (await project.client.post("/v1/keys", json={"name": "k", "role": "viewer"})).json()

    first = await project.client.delete(f"/v1/keys/{made['id']}")
    revoked_at = (await project.client.get("/v1/keys")).json()["data"][0]["revoked_at"]
    second = await project.client.delete(f"/v1/keys/{made['id']}")

    assert (first.status_code, second.status_code) == (204, 204)
    assert (await project.client.get("/v1/keys")).json()["data"][0]["revoked_at"] == revoked_at


async def test_a_foreign_key_is_neither_seen_nor_revoked(api: Api, project: Project) -> None:
    theirs = await api.project()
    foreign = (await theirs.client.get("/v1/keys")).json()["data"][0]["id"]

    answer = await project.client.delete(f"/v1/keys/{foreign}")
    unknown = await project.client.delete("/v1/keys/key_00000000000000000000000000")

    assert foreign not in [k["id"] for k in (await project.client.get("/v1/keys")).json()["data"]]
    assert answer.status_code == unknown.status_code == 404
    assert {k: v for k, v in answer.json().items() if k != "request_id"} == {
        k: v for k, v in unknown.json().items() if k != "request_id"
    }
    assert (await theirs.client.get("/v1/keys")).status_code == 200
