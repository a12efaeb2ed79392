"""What was said, and readers who may see what happens: it is withheld from them, in whatever way they ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from app.log.append import EdgeIdentity
from regions.wire.events import EVENT_TYPES
from tests.integration.test_audit import entries
from tests.integration.test_feeds import partial
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, create_call, event, owners_in, said
from tests.support.feeds import feed_socket, streaming
from tests.support.walk import operations

SECRET = f"canary-{uuid4().hex}"
CONTENT = {t for t, kind in EVENT_TYPES.items() if kind.content}
TYPES = ["call.created", "turn.ended", "transcript.final", "dtmf.received", "tool.called", "speech.started"]
DEAF: dict[str, dict[str, Any]] = {
    "viewer": {"role": "viewer"},
    "operator": {"role": "operator"},
    "narrowed": {"role": "owner", "scopes": ["events:read", "calls:read", "webhooks:read", "audit:read"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, ("us-east", "eu-west"))


async def conversation(api: Api, project: Project, owners: list[EdgeIdentity]) -> WrittenCall:
    call = await create_call(project, owners)
    await call.append(
        api,
        1,
        said(1, "caller", SECRET),
        event(2, "transcript.final", role="caller", text=SECRET),
        event(3, "dtmf.received", digit=SECRET),
    )
    wrote = await call.write(type="tool.called", key=SECRET, name=SECRET, arguments={"n": SECRET})
    assert wrote.status_code == 201, wrote.text
    await call.append(api, 1, event(4))
    return call


async def key(project: Project, **made: Any) -> str:
    answer = await project.client.post("/v1/keys", json={"name": "reads", **made})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def withheld(events: list[dict[str, Any]]) -> None:
    assert [e["type"].removeprefix("dev.voxplane.") for e in events] == TYPES
    assert SECRET not in json.dumps(events)
    for found in events:
        hidden = found["type"].removeprefix("dev.voxplane.") in CONTENT
        assert (found["data"] == {"withheld": True}) == hidden, found


def whole(events: list[dict[str, Any]]) -> None:
    assert [e["type"].removeprefix("dev.voxplane.") for e in events] == TYPES
    assert [SECRET in json.dumps(e) for e in events] == [t in CONTENT for t in TYPES]


async def heard(api: Api, secret: str, call: str, shape: str) -> list[list[dict[str, Any]]]:
    """One call's events in every way there is, read to the end each time."""
    client = await api.client(secret)
    path, found = f"/v1/calls/{call}/events", []
    async with streaming(client, f"{path}/stream", format=shape) as stream:
        found.append(await stream.events(len(TYPES)))
    page = await client.get("/v1/events", params={"call_id": call, "format": shape})
    found.append(page.json()["data"])
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    async with streaming(client, since=since, call_id=call, format=shape) as stream:
        found.append(await stream.events(len(TYPES)))
    async with feed_socket(api, secret) as socket:
        await socket.subscribe(call_id=call, since=since, format=shape)
        found.append([(await socket.event())["event"] for _ in TYPES])
    if shape == "voxplane":
        found.append((await client.get(path)).json()["data"])
    return found


@pytest.mark.parametrize("shape", ["voxplane", "cloudevents"])
async def test_who_may_not_read_conversations_hears_that_something_was_said_and_not_what(
    api: Api, project: Project, owners: list[EdgeIdentity], shape: str
) -> None:
    call = await conversation(api, project, owners)
    for made in DEAF.values():
        secret = await key(project, **made)
        for events in await heard(api, secret, call.id, shape):
            withheld(events)
    noted = {e["action"] for e in await entries(project.client)}
    assert not {"events.read", "events.streamed"} & noted
    for events in await heard(api, await key(project, role="developer"), call.id, shape):
        whole(events)
    assert {"events.read", "events.streamed"} <= {e["action"] for e in await entries(project.client)}


async def test_two_who_read_the_same_as_it_happens_are_each_given_theirs(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    """They share what is encoded once: the one must not be given the other's."""
    viewer, owner = await api.key(project, "viewer"), project.client
    async with streaming(owner) as one, streaming(viewer) as two, streaming(owner) as three:
        await conversation(api, project, owners)
        whole(await one.events(len(TYPES)))
        withheld(await two.events(len(TYPES)))
        whole(await three.events(len(TYPES)))


async def test_what_is_only_told_as_it_happens_is_withheld_too(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    call = await create_call(project, owners)
    secret = await key(project, role="viewer")
    async with (
        streaming(await api.client(secret), types="transcript.partial", volatile=True) as stream,
        feed_socket(api, secret) as socket,
    ):
        await socket.subscribe(types=["transcript.partial"], volatile=True)
        api.control.live.heard(owners[0], partial(call.id, 1))
        seen = await stream.event()
        told = (await socket.hear())["event"]
    assert (seen["type"], seen["data"], told["data"]) == (
        "transcript.partial",
        {"withheld": True},
        {"withheld": True},
    )


@pytest.mark.parametrize("who", DEAF)
async def test_no_route_that_they_may_ask_says_what_was_said(
    api: Api, project: Project, owners: list[EdgeIdentity], who: str
) -> None:
    call = await conversation(api, project, owners)
    client = await api.client(await key(project, **DEAF[who]))
    document: dict[str, Any] = (await api.operator.get("/openapi.json")).json()
    asked = 0
    for operation in operations(document).values():
        if (
            operation.method == "GET"
            and set(operation.names) <= {"call_id"}
            and "stream" not in operation.path
        ):
            answer: httpx.Response = await client.get(operation.path.format(call_id=call.id))
            asked += answer.status_code == 200
            assert SECRET not in answer.text, operation.id
    assert asked >= 6


async def test_why_a_backend_has_hung_up_is_withheld(
    api: Api, project: Project, owners: list[EdgeIdentity]
) -> None:
    """As an edge writes it, and as one of an older release did."""
    call = await create_call(project, owners)
    await call.append(
        api,
        1,
        event(1, "agent.hung_up", reason=SECRET),
        event(2, "call.ended", end_reason="agent_hung_up", reason=SECRET),
    )
    for may, secret in ((False, await key(project, role="viewer")), (True, project.key)):
        client = await api.client(secret)
        answer = await client.get(f"/v1/calls/{call.id}/events")
        assert answer.status_code == 200, answer.text
        found = answer.json()["data"][-2:]
        said = {"reason": SECRET} if may else {"withheld": True}
        ended = {"end_reason": "agent_hung_up"} | ({"reason": SECRET} if may else {})
        assert [e["data"] for e in found] == [said, ended]
