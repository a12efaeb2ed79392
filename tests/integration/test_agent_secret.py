"""A project's agent secret over HTTP, and how it comes to the edges: in what tickets seal, without a question to the database."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import jwt
import msgspec
import pytest_asyncio

from regions.wire.ticket import Sealed, read, unseal
from tests.support.api import Api, Project, problem
from tests.support.fleet import three_regions


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def created(project: Project, key: str | None = None) -> dict[str, Any]:
    made = await project.client.post(
        "/v1/calls",
        json={"agent": {"url": "ws://127.0.0.1:9/agent"}},
        headers={"Idempotency-Key": key or str(uuid4())},
    )
    assert made.status_code == 201, made.text
    return dict(made.json())


def sealed_in(api: Api, ticket: str) -> list[str]:
    keyring = api.control.keyring
    claims = read(ticket, keys=keyring.public_keys)
    plain = unseal(claims.sealed, keys=keyring.fleet_secrets, bound_to=claims.call)
    return [s.secret for s in msgspec.json.decode(plain, type=Sealed).secrets]


async def test_every_project_has_a_secret_which_its_tickets_carry_to_edges_alone(
    api: Api, project: Project
) -> None:
    shown = (await project.client.get("/v1/agent-secret")).json()
    assert (shown["version"], shown["rotated_at"], shown["before"]) == (1, None, None)
    other = await api.project()
    assert (await other.client.get("/v1/agent-secret")).json()["secret"] != shown["secret"]
    call = await created(project)
    assert sealed_in(api, call["ticket"]) == [shown["secret"]]
    assert shown["secret"] not in str(call)
    assert shown["secret"] not in str(jwt.decode(call["ticket"], options={"verify_signature": False}))


async def test_after_a_rotation_both_are_valid_for_a_while(api: Api, project: Project) -> None:
    first = (await project.client.get("/v1/agent-secret")).json()["secret"]
    key = str(uuid4())
    before = await created(project, key)
    turned = (await project.client.post("/v1/agent-secret", json={"version": 1})).json()
    assert (turned["version"], turned["before"]["version"], turned["before"]["secret"]) == (2, 1, first)
    assert turned["secret"] != first
    assert (await project.client.get("/v1/agent-secret")).json() == turned
    assert sealed_in(api, (await created(project))["ticket"]) == [turned["secret"], first]
    # a call keeps those of its creation, in every ticket
    again = await created(project, key)
    assert again["id"] == before["id"] and sealed_in(api, again["ticket"]) == [first]
    renewed = await project.client.post(f"/v1/calls/{before['id']}/ticket", json={"ticket": before["ticket"]})
    assert sealed_in(api, renewed.json()["ticket"]) == [first]


async def test_without_an_overlap_the_one_before_is_void_at_once(api: Api, project: Project) -> None:
    turned = (await project.client.post("/v1/agent-secret", json={"overlap_s": 0})).json()
    assert (turned["version"], turned["before"]) == (2, None)
    assert sealed_in(api, (await created(project))["ticket"]) == [turned["secret"]]


async def test_what_is_sent_twice_turns_once(project: Project) -> None:
    assert (await project.client.post("/v1/agent-secret", json={"version": 1})).status_code == 200
    assert problem(await project.client.post("/v1/agent-secret", json={"version": 1})) == (409, "conflict")
    assert (await project.client.post("/v1/agent-secret")).json()["version"] == 3


async def test_it_is_for_owners_and_admins(api: Api, project: Project) -> None:
    for role, allowed in (("admin", True), ("developer", False), ("viewer", False)):
        client = await api.key(project, role)
        assert (await client.get("/v1/agent-secret")).status_code == (200 if allowed else 403)
        assert (await client.post("/v1/agent-secret")).status_code == (200 if allowed else 403)
