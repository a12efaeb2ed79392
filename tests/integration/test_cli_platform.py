"""The commands for calls, endpoints, people and the platform, each once against an instance: what they print, and their errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.conftest import OPERATOR_KEY
from tests.support.api import Api, Project
from tests.support.fleet import three_regions
from tests.support.typist import Typist, typist

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hand() -> AsyncIterator[Typist]:
    async with typist() as typing:
        yield typing


def environment(api: Api, project: Project) -> dict[str, str]:
    return {"VOXPLANE_URL": api.url, "VOXPLANE_API_KEY": project.key, "VOXPLANE_OPERATOR_KEY": OPERATOR_KEY}


async def test_each_of_them_does_what_it_says(api: Api, project: Project, hand: Typist) -> None:
    await three_regions(api)
    env = environment(api, project)

    async def j(*words: str) -> Any:
        done = await hand.types(*words, "--json", **env)
        assert done.code == 0, (words, done)
        return json.loads(done.out)

    hook = (await j("webhooks", "create", "http://127.0.0.1:9/hook"))["id"]
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "metadata": {"customer": "4711"}}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    call, other = made.json()["id"], await api.project()
    await j("calls", "say", call, "agent", "On its way.", "--key", "t1")

    assert [c["id"] for c in await j("calls", "list", "--metadata", "customer=4711")] == [call]
    assert (await j("calls", "show", call))["state"] == "ringing"
    assert "On its way." in json.dumps(await j("calls", "conversation", call))
    for i in range(205):
        said = {"type": "turn", "role": "agent", "text": f"{i}", "key": f"k{i}"}
        assert (await project.client.post(f"/v1/calls/{call}/conversation", json=said)).is_success
    assert [e["seq"] for e in await j("calls", "events", call)][199:] == list(range(200, 208)), "all pages"
    assert len(await j("calls", "events", call, "--limit", "203")) == 203
    assert [e["seq"] for e in await j("calls", "events", call, "--after", "200", "--limit", "2")] == [
        201,
        202,
    ]
    assert (await j("calls", "end", call))["state"] == "canceled"
    assert (await j("webhooks", "change", hook, "--disable"))["enabled"] is False
    settings = (
        "--metadata",
        "tier=gold",
        "--header",
        "X-Tenant: acme",
        "--signature",
        "v1a",
        "--rate",
        "20",
        "--concurrency",
        "2",
    )
    changed = await j("webhooks", "change", hook, *settings, "--format", "cloudevents", "--types", "call.*")
    assert (changed["metadata"], changed["header_names"], changed["signatures"]) == (
        {"tier": "gold"},
        ["X-Tenant"],
        ["v1a"],
    )
    assert (changed["rate_per_s"], changed["concurrency"], changed["format"]) == (20, 2, "cloudevents")
    cleared = await j(
        "webhooks",
        "change",
        hook,
        *(w for o in ("metadata", "header", "rate", "types") for w in (f"--{o}", "none")),
    )
    assert (cleared["metadata"], cleared["header_names"], cleared["rate_per_s"], cleared["types"]) == (
        None,
        [],
        None,
        None,
    )
    assert cleared["concurrency"] == 2, "what is not named stays"
    own = "whsec_" + "QUFB" * 8
    assert (await j("webhooks", "rotate", hook, "--secret", own))["secret"] == own
    assert (await j("webhooks", "show", hook))["id"] == hook
    assert isinstance(await j("webhooks", "attempts", hook), list)
    assert {d["call_id"] for d in await j("webhooks", "deliveries", hook)} == {call}
    assert (await j("webhooks", "replays", hook))["data"] == []
    assert (await j("webhooks", "signing-secret"))["secret"].startswith("whsec_")
    assert (await j("agent-secret", "rotate"))["version"] == 2
    assert (await j("agent-secret", "show"))["version"] == 2
    assert await j("people", "create", "bo@example.com")
    assert (await j("members", "set", "bo@example.com", "viewer"))["role"] == "viewer"
    person = (await j("members", "list"))["data"][0]["id"]
    assert (await hand.types("members", "remove", person, **env)).out == "removed\n"
    assert (await j("people", "change", "bo@example.com", "--operator"))["operator"] is True
    assert (await j("people", "show", "bo@example.com"))["email"] == "bo@example.com"
    assert (await j("regions", "create", "sa-east", "br"))["id"] == "sa-east"
    assert (await j("regions", "change", "sa-east", "--weight", "0.25"))["weight"] == 0.25
    assert (await j("regions", "enrol", "sa-east"))["token"]
    assert (await j("projects", "key", other.id, "way back"))["secret"].startswith("vx_test_")
    assert (await j("projects", "show", other.id))["id"] == other.id
    assert isinstance(await j("fleet", "events"), list)
    assert (await j("fleet", "drains"))["data"] == []
    assert (await j("fleet", "waiting"))["data"] == []
    assert await j("fleet", "status")
    assert await j("usage", "refold", other.id) is not None
    edge = (await j("edges"))[0]["id"]
    assert (await j("edges", "health", edge))["edge"] == edge
    assert (await j("edges", "rotate-key", edge, "--overlap", "2h"))["key"]["asked_at"] is not None
    assert "another one is asked for since" in (await hand.types("edges", "rotate-key", edge, **env)).out
    for words in (("calls", "list"), ("webhooks", "show", hook), ("members", "list"), ("fleet", "status")):
        assert (await hand.types(*words, **env)).code == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("calls", "show", "call_x"), 1, "404 not_found"),
        (("calls", "show", ""), 2, "'' names nothing"),
        (("calls", "end", ".."), 2, "names nothing"),
        (("calls", "show", "call_x\x1b[31m"), 1, "404 not_found"),
        (("calls", "show", "../webhooks"), 1, "404 not_found"),
        (("keys", "revoke", "key_x?y=1"), 1, "404 not_found"),
        (("webhooks", "show", "#"), 1, "404 not_found"),
        (("people", "link", ""), 2, "names nothing"),
        (("regions", "progress", "#"), 1, "404 not_found"),
        (("calls", "say", "call_x", "agent", "x", "--key", "ünï"), 2, "--key takes"),
        (("webhooks", "change", "whk_x", "--rate", "fast"), 2, "--rate is a whole number"),
        (("webhooks", "change", "whk_x", "--header", "X-Tenant"), 2, "--header is NAME:VALUE"),
        (("drill", "eu-west", "--label", "x", "--real"), 2, "--label"),
        (("calls", "list", "--metadata", "customer"), 2, "--metadata is NAME=VALUE"),
        (("calls", "list", "--after", "yesterday"), 2, "--after is a time like"),
        (("webhooks", "change", "whk_x"), 2, "name what is to be changed"),
        (("regions", "change", "eu-west"), 2, "name what is to be changed"),
        (("members", "set", "nobody@example.com", "viewer"), 1, "people create"),
        (("audit", "verify", "--key", "00"), 2, "--key is for a file"),
        (("edges", "rotate-key", "edge_x"), 1, "404 not_found"),
        (("edges", "rotate-key", "edge_x", "--overlap", "soon"), 2, "--overlap is a time like"),
    ],
)
async def test_an_error_says_what_to_do(
    api: Api, project: Project, hand: Typist, words: tuple[str, ...], code: int, says: str
) -> None:
    done = await hand.types(*words, **environment(api, project))
    assert (done.code, says in done.err, done.err.count("\n")) == (code, True, 1), done
