"""A test project's own list of inner targets: its webhooks reach those and no others, and nobody else's reach anything more."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app.local.receiver import WebhookReceiver
from app.settings import Settings
from app.webhooks.sender import Sender
from regions.wire import ids as wire
from regions.wire.targets import read_targets
from tests.support.api import Api, Project, problem, serving
from tests.support.cli import voxplane
from tests.support.engines import Engines
from tests.support.fleet import three_regions
from tests.support.hooks import make_hook, superuser, until

BODY = {"agent": {"url": "wss://agent.example.com/"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(engines: Engines, module_settings: Callable[[str], Settings]) -> AsyncIterator[Api]:
    """No local targets, and projects may list their own."""
    async with engines.database() as url:
        strict = dataclasses.replace(module_settings(url), local_targets=False, project_targets=True)
        async with serving(strict) as served:
            await three_regions(served)
            yield served


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as started:
        yield started


async def allow(project: Project, *targets: str) -> None:
    put = await project.client.put("/v1/targets", json={"targets": list(targets)})
    assert put.status_code == 200, put.text


async def call(project: Project, **more: Any) -> Any:
    return await project.client.post("/v1/calls", json=BODY | more, headers={"Idempotency-Key": str(uuid4())})


async def test_webhooks_reach_what_is_listed(project: Project, receiver: WebhookReceiver) -> None:
    refused = await project.client.post("/v1/webhooks", json={"url": receiver.url})
    assert problem(refused) == (422, "invalid")
    await allow(project, "127.0.0.1/32")
    hook = await make_hook(project, receiver)
    assert (await call(project)).status_code == 201
    await receiver.until(1, 15)
    assert (receiver.handshakes, receiver.faults) == (1, [])
    tested = (await project.client.post(f"/v1/webhooks/{hook['id']}/test", json={})).json()
    assert tested["ok"], tested


async def test_a_url_named_by_a_create_too_and_a_backend_never(
    project: Project, receiver: WebhookReceiver
) -> None:
    assert problem(await call(project, webhook_url=receiver.url)) == (422, "invalid")
    await allow(project, "127.0.0.1/32")
    receiver.secret = (await project.client.get("/v1/webhooks/signing-secret")).json()["secret"]
    assert (await call(project, webhook_url=receiver.url)).status_code == 201
    await receiver.until(1, 15)
    backend = await call(project, agent={"url": "ws://127.0.0.1:9/"})
    assert backend.json()["errors"][0]["pointer"] == "/agent/url"


async def test_what_is_taken_away_is_reached_no_more(project: Project, receiver: WebhookReceiver) -> None:
    await allow(project, "127.0.0.1/32")
    hook = await make_hook(project, receiver)
    await allow(project)
    await call(project)

    async def refused() -> bool:
        page = (await project.client.get(f"/v1/webhooks/{hook['id']}/attempts")).json()
        return [a["error"] for a in page["data"]][:1] == ["private_address"]

    await until(refused)
    assert (receiver.received, receiver.handshakes) == ([], 0)


async def test_one_projects_list_opens_nothing_for_another(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    await allow(project, "127.0.0.1/32")
    other = await api.project()
    assert (await other.client.get("/v1/targets")).json() == {"targets": []}
    assert problem(await other.client.post("/v1/webhooks", json={"url": receiver.url})) == (422, "invalid")


async def test_no_connection_that_a_list_has_opened_serves_another(receiver: WebhookReceiver) -> None:
    sender = Sender(local_targets=False)
    try:
        listed = read_targets(("127.0.0.1/32",))
        assert (await sender.post(receiver.url, b"{}", {}, listed=listed)).status is not None
        assert (await sender.post(receiver.url, b"{}", {})).status is None
    finally:
        await sender.close()


async def test_a_live_project_has_no_list_not_even_in_its_row(api: Api, receiver: WebhookReceiver) -> None:
    live = await api.project("live")
    refused = await live.client.put("/v1/targets", json={"targets": ["127.0.0.1/32"]})
    assert problem(refused) == (403, "live_project")
    async with superuser(api) as database:
        await database.execute(
            """update vx.projects set settings = '{"targets": ["127.0.0.1/32"]}' where id = $1""",
            wire.decode(wire.PROJECT, live.id),
        )
    api.control.auth.forget()
    made = await live.client.post("/v1/webhooks", json={"url": receiver.url})
    assert problem(made) == (422, "invalid")


async def test_where_the_deployment_does_not_allow_it_a_list_opens_nothing(
    api: Api, project: Project, receiver: WebhookReceiver
) -> None:
    await allow(project, "127.0.0.1/32")
    strict = dataclasses.replace(api.settings, project_targets=False, port=0)
    async with serving(strict) as other:
        client = await other.client(project.key)
        assert problem(await client.post("/v1/webhooks", json={"url": receiver.url})) == (422, "invalid")
        again = await client.put("/v1/targets", json={"targets": ["127.0.0.1/32"]})
        assert problem(again) == (422, "not_available")


@pytest.mark.parametrize(
    "target", ["169.254.169.254", "0.0.0.0/0", "fd00:ec2::254", "8.8.8.8", "127.1", "http://a/"]
)
async def test_what_may_never_be_listed_is_refused_with_its_place(project: Project, target: str) -> None:
    put = await project.client.put("/v1/targets", json={"targets": ["localhost:3000", target]})
    assert problem(put) == (422, "invalid")
    assert put.json()["errors"][0]["pointer"] == "/targets/1"
    assert (await project.client.get("/v1/targets")).json() == {"targets": []}


async def test_who_may_change_it(api: Api, project: Project) -> None:
    for role, may in (("viewer", 403), ("developer", 403), ("admin", 200)):
        client = await api.key(project, role)
        assert (await client.put("/v1/targets", json={"targets": []})).status_code == may, role
        assert (await client.get("/v1/targets")).status_code == 200
    too_many = [f"10.0.0.{n}" for n in range(33)]
    assert (await project.client.put("/v1/targets", json={"targets": too_many})).status_code == 422


@pytest.mark.slow
async def test_from_the_command_line(api: Api, project: Project) -> None:
    env = {"VOXPLANE_URL": api.url, "VOXPLANE_API_KEY": project.key}
    assert (await voxplane("targets", "add", "localhost:3000", "10.1.0.0/16", **env)).code == 0
    assert (await voxplane("targets", "remove", "localhost:3000", **env)).code == 0
    listed = await voxplane("targets", "list", **env)
    assert listed.out.split() == ["10.1.0.0/16"]
    refused = await voxplane("targets", "add", "169.254.169.254", **env)
    assert refused.code == 1
    assert "/targets/1" in refused.err
