"""Who may ask for what, over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.errors import Unauthenticated
from app.projects.auth import Principal
from app.projects.roles import ROLE_SCOPES
from app.projects.secrets import RANDOM_BYTES, make
from tests.conftest import OPERATOR_KEY
from tests.support.api import Api, Project, serving

ASKED_FOR_BY_NO_ROUTE: set[str] = set()


async def asked(api: Api, authorization: str | None, path: str = "/v1/calls") -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, verify=False, headers=headers) as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("authorization", "says"),
    [
        (None, "no bearer credential"),
        ("Basic dTpw", "no bearer credential"),
        ("Bearer", "no bearer credential"),
        ("Bearer nonsense", "cut or changed"),
        ("Bearer " + make("test", 0, bytes(RANDOM_BYTES))[:-1], "cut or changed"),
        ("Bearer " + make("test", 5, bytes(RANDOM_BYTES)), "not valid"),
        ("Bearer " + make("test", 0, bytes(RANDOM_BYTES)), "not valid"),
        ("Bearer vx_op_wrong", "not valid"),
        ("Bearer " + "x" * 20_000, "cut or changed"),
    ],
)
async def test_without_a_valid_key_it_is_401(api: Api, authorization: str | None, says: str) -> None:
    for path in ("/v1/calls", "/v1/keys", "/v1/regions", "/v1/events/stream", "/admin/v1/projects"):
        answer = await asked(api, authorization, path)

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert says in answer.json()["detail"]
        assert answer.json()["fix"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_scheme_is_read_in_any_case(api: Api, project: Project) -> None:
    assert (await asked(api, f"bEaReR {project.key}")).status_code == 200


async def test_each_kind_of_key_has_its_own_side(api: Api, project: Project) -> None:
    operator = await api.operator.get("/v1/calls")
    customer = await project.client.get("/admin/v1/projects")

    assert [operator.status_code, customer.status_code] == [403, 403]
    assert "vx_live_" in operator.json()["fix"]
    assert "vx_op_" in customer.json()["fix"]


async def test_without_an_operator_key_there_is_no_operator(api: Api) -> None:
    bare = dataclasses.replace(api.settings, operator_key="", port=0)
    async with serving(bare) as other:
        for authorization in ("Bearer vx_op_", "Bearer", f"Bearer {OPERATOR_KEY}"):
            assert (await asked(other, authorization, "/admin/v1/projects")).status_code == 401


async def test_a_role_may_do_what_its_scopes_say_and_no_more(api: Api, project: Project) -> None:
    asks = {
        "calls:read": ("GET", "/v1/calls", None),
        "calls:write": ("POST", "/v1/calls", {"agent": {"url": "ws://127.0.0.1:9/"}}),
        "calls:operate": ("POST", "/v1/calls/x/end", None),
        "agent-secret:read": ("GET", "/v1/agent-secret", None),
        "agent-secret:write": ("POST", "/v1/agent-secret", None),
        "conversation:read": ("GET", "/v1/calls/x/conversation", None),
        "conversation:write": ("POST", "/v1/calls/x/conversation", {"type": "turn", "key": "k"}),
        "events:read": ("GET", "/v1/events", None),
        "regions:read": ("GET", "/v1/regions", None),
        "webhooks:read": ("GET", "/v1/webhooks", None),
        "webhooks:write": ("DELETE", "/v1/webhooks/x", None),
        "webhooks:resend": ("POST", "/v1/webhooks/x/recover", {"since": "2026-01-01T00:00:00Z"}),
        "requests:read": ("GET", "/v1/requests", None),
        "targets:read": ("GET", "/v1/targets", None),
        "targets:write": ("PUT", "/v1/targets", {"targets": []}),
        "erasures:read": ("GET", "/v1/erasures", None),
        "erasures:write": ("POST", "/v1/calls/x/erase", None),
        "privacy:read": ("GET", "/v1/privacy", None),
        "privacy:write": ("PATCH", "/v1/privacy", {}),
        "audit:read": ("GET", "/v1/audit", None),
        "keys:read": ("GET", "/v1/keys", None),
        "quotas:read": ("GET", "/v1/quotas", None),
        "usage:read": ("GET", "/v1/usage", None),
        "keys:write": ("POST", "/v1/keys", {"name": "n", "role": "viewer"}),
        "members:read": ("GET", "/v1/members", None),
        "members:write": ("DELETE", "/v1/members/x", None),
    }
    assert set(asks) | ASKED_FOR_BY_NO_ROUTE == set().union(*ROLE_SCOPES.values())
    for role, scopes in ROLE_SCOPES.items():
        client = await api.key(project, role)
        for scope, (method, path, body) in asks.items():
            answer = await client.request(method, path, json=body)
            assert (answer.status_code == 403) == (scope not in scopes), (role, scope, answer.text)
            if answer.status_code == 403:
                assert scope in answer.json()["fix"]


async def test_a_narrowed_key_has_only_the_scopes_it_was_given(api: Api, project: Project) -> None:
    client = await api.key(project, "developer", scopes=["events:read"])

    assert (await client.get("/v1/events")).status_code == 200
    assert (await client.get("/v1/calls")).status_code == 403


async def test_a_key_that_may_create_calls_may_end_them(api: Api, project: Project) -> None:
    client = await api.key(project, "developer", scopes=["calls:write"])

    assert (await client.post("/v1/calls/x/end")).status_code == 404
    assert (await client.get("/v1/calls")).status_code == 403


async def test_a_revoked_key_is_refused_on_every_instance(api: Api, project: Project) -> None:
    made = (await project.client.post("/v1/keys", json={"name": "k", "role": "viewer"})).json()
    async with serving(dataclasses.replace(api.settings, port=0)) as other:
        authorization = f"Bearer {made['secret']}"
        assert (await asked(api, authorization)).status_code == 200
        assert (await asked(other, authorization)).status_code == 200

        assert (await project.client.delete(f"/v1/keys/{made['id']}")).status_code == 204

        assert (await asked(api, authorization)).status_code == 401
        async with asyncio.timeout(10):
            while (await asked(other, authorization)).status_code != 401:
                await asyncio.sleep(0.02)


async def test_a_key_ends_when_it_was_said_to_even_if_it_is_remembered(api: Api, project: Project) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = (
        await project.client.post("/v1/keys", json={"name": "k", "role": "viewer", "expires_at": soon})
    ).json()
    authorization = f"Bearer {made['secret']}"
    assert (await asked(api, authorization)).status_code == 200

    await api.control.db.pool("admin").execute(
        "update vx.api_keys set expires_at = now() - interval '1 second' where hint = $1", made["hint"]
    )
    api.control.auth.forget()

    answer = await asked(api, authorization)
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


async def test_a_use_is_written_down(api: Api, project: Project) -> None:
    before = (await project.client.get("/v1/keys")).json()["data"][0]
    await api.control.auth.touch()
    after = (await project.client.get("/v1/keys")).json()["data"][0]

    assert before["last_used_at"] is None
    assert after["last_used_at"] >= after["created_at"]


async def test_many_who_ask_for_one_key_at_once_look_it_up_once(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth, looked_up = api.control.auth, 0
    look_up = auth._look_up

    async def counted(secret: str) -> Principal:
        nonlocal looked_up
        looked_up += 1
        return await look_up(secret)

    monkeypatch.setattr(auth, "_look_up", counted)
    auth.forget()
    found = await asyncio.gather(*(auth.authenticate(f"Bearer {project.key}") for _ in range(50)))
    assert (len(set(map(id, found))), looked_up) == (1, 1)
    refused = await asyncio.gather(
        *(auth.authenticate("Bearer vx_test_nonsense") for _ in range(5)), return_exceptions=True
    )
    assert {type(e) for e in refused} == {Unauthenticated}
    assert auth._looking == {}
