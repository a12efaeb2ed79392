"""What is erased opens nowhere: real edges, one of which is away meanwhile, callers who bring what they had, and two cells."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import redis.asyncio as redis

from app.local.deployment import Deployment
from app.local.receiver import WebhookReceiver
from tests.support.deployed import deployed
from tests.support.engines import Engines
from tests.support.frank_caller import FrankBackend, FrankCaller, frank_caller
from voxplane import AsyncClient
from voxplane.grants import read_grants

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WORD, NUMBER = "canary-7b31", "+14155550177"
WITHIN_S = 60.0
"""The promise."""
TABLES = """
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and n.nspname = 'vx'
"""

LATENCIES = [{"region": "us-east", "rtt_ms": 5}, {"region": "eu-west", "rtt_ms": 90}]


@pytest.fixture(params=[1, 2], ids=["one-cell", "two-cells"])
async def deployment(engines: Engines, request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    async with deployed(engines, cells=request.param) as running:
        yield running


async def until(true: Any, what: str, within_s: float = WITHIN_S) -> Any:
    try:
        async with asyncio.timeout(within_s):
            while not (found := await true()):
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


async def test_an_erased_call_opens_nowhere_though_an_edge_was_away(deployment: Deployment) -> None:
    key = await owner_of_the_last_cell(deployment)
    async with (
        FrankBackend().run() as backend,
        WebhookReceiver() as receiver,
        WebhookReceiver() as removed,
        AsyncClient(deployment.api_urls, key) as client,
        httpx.AsyncClient(
            base_url=deployment.api_urls[0], headers={"Authorization": f"Bearer {key}"}, trust_env=False
        ) as http,
    ):
        kept = await client.create_webhook(removed.url)
        removed.secret = kept["secret"]
        receiver.secret = (await http.get("/v1/webhooks/signing-secret")).json()["secret"]
        async with deployment.operator() as operator:
            await deployment.until_healthy(operator)

        async def all_have_standbys() -> bool:
            # what an instance knows of the fleet for the cell may be behind what the operator was shown, or another instance
            asked = {"agent": {"url": backend.url}, "latencies": LATENCIES}
            shown = [
                await http.post(f"{url}/v1/placements/preview", json=asked) for url in deployment.api_urls
            ]
            return all(one.status_code == 200 and one.json()["standbys"] for one in shown)

        await until(all_have_standbys, "a region and another to stand by")

        async def placed() -> Any:
            """A call that has a standby; one that was created in a moment without is erased."""
            made = await client.create_call(
                {"url": backend.url + WORD, "parameters": {"p": WORD}},
                caller={"kind": "websocket", "from": NUMBER, "to": f"sip:{WORD}@example.org"},
                metadata={"who": WORD, "number": NUMBER},
                subject=WORD,
                webhook_url=f"{receiver.url}?{WORD}",
                latencies=LATENCIES,
            )
            if len(read_grants(made["ticket"])[1]) > 1:
                return made
            (await http.post(f"/v1/calls/{made['id']}/erase")).raise_for_status()
            return None

        made = await until(placed, "a call with a standby")
        grants = read_grants(made["ticket"])[1]
        region_of = {grant.epoch: grant.url for grant in grants}
        names = {r.url: name for name, r in deployment.regions.items()}
        first, away = names[region_of[1]], names[region_of[2]]
        async with frank_caller(region_of[1], made["ticket"], 1) as caller:
            await caller.attach()
            brought = await after_a_word(caller, backend, http, made["id"])
            edge = deployment.regions[away].edge
            os.kill(edge.pid, signal.SIGKILL)
            edge.wait()
            assert (await http.delete(f"/v1/webhooks/{kept['id']}")).status_code < 300

            asked = await http.post(f"/v1/calls/{made['id']}/erase")
            assert asked.status_code == 202, asked.text
            await asyncio.wait_for(caller.closed.wait(), 20)
        erasure = asked.json()["id"]

        async def only_away() -> Any:
            shown = (await http.get(f"/v1/erasures/{erasure}")).json()
            undone = [p["kind"] for p in shown["places"] if p["done_at"] is None]
            return shown if undone == ["edge"] else None

        async def url_gone() -> bool:
            return WORD not in (await http.get("/v1/webhooks")).text

        await until(only_away, "every place but one edge")
        await until(url_gone, "the URL that the call had named")
        await nothing_is_left(deployment, made["id"])
        await deployment.mend()

        async def done() -> bool:
            return (await http.get(f"/v1/erasures/{erasure}")).json()["state"] == "done"

        await until(done, "the edge that was away")
        for epoch, url in region_of.items():
            refused = await tried(url, made["ticket"], epoch, brought)
            assert refused.frames == [] and not refused.heard("attached"), (epoch, refused.said)
        assert names[region_of[1]] == first
        await nothing_is_left(deployment, made["id"])
        assert WORD not in (await http.get("/v1/audit")).text


async def owner_of_the_last_cell(deployment: Deployment) -> str:
    """A key of a project in the last cell there is."""
    async with deployment.operator() as operator:
        where = {"jurisdiction": "eu"} if deployment.cells > 1 else {}
        made = await operator.post("/admin/v1/projects", json={"name": "erasure", "mode": "test", **where})
        key = await operator.post(
            f"/admin/v1/projects/{made.json()['id']}/keys", json={"name": "erasure", "role": "owner"}
        )
    secret: str = key.json()["secret"]
    return secret


async def after_a_word(
    caller: FrankCaller, backend: FrankBackend, http: httpx.AsyncClient, call: str
) -> dict[str, Any]:
    """What the caller would bring to another edge, once the word is in the log, in its snapshot, and in the regions."""

    async def socket() -> Any:
        return backend.of(call, 1)

    async def written() -> Any:
        found = (await http.get(f"/v1/calls/{call}/conversation")).text
        return (WORD in found and "snapshot" in caller.snapshot) or (
            caller.snapshot.get("sealed") and WORD in found
        )

    await (await until(socket, "a backend")).tell(
        "turn.ended", {"role": "caller", "text": f"{WORD} {NUMBER}"}
    )
    await until(written, "the word in the log")
    before = caller.snapshot
    await (backend.of(call, 1)).tell("transcript.final", {"role": "agent", "text": WORD})  # type: ignore[union-attr]

    async def newer() -> Any:
        return caller.snapshot != before

    await until(newer, "a snapshot with the word", 20)
    return caller.resume()


async def tried(url: str, ticket: str, epoch: int, brought: dict[str, Any]) -> FrankCaller:
    """What an edge says to whoever brings the ticket and the snapshot of an erased call."""
    async with frank_caller(url, ticket, epoch) as caller:
        await caller.attach("take" if epoch > 1 else "attach", brought)
        await asyncio.wait_for(caller.closed.wait(), 20)
    return caller


async def nothing_is_left(deployment: Deployment, call: str) -> None:
    """In no table of any cell, no region's Valkey, and nothing that was written to a file."""
    wanted = [form for text in (WORD, NUMBER[1:]) for form in (text, text.encode().hex())]
    urls = [
        deployment.database_url,
        *(s.dsn for s in (deployment.others.servers.values() if deployment.others else ())),
    ]
    for url in urls:
        owner = await asyncpg.connect(url)
        try:
            for (table,) in await owner.fetch(TABLES):
                for (row,) in await owner.fetch(f"select t::text from {table} t"):
                    assert not [w for w in wanted if w in row], (table, row)
        finally:
            await owner.close()
    for region, url in deployment.redis_urls.items():
        async with redis.from_url(url) as valkey:
            async for name in valkey.scan_iter("*"):
                dumped = await valkey.dump(name) or b""
                assert not [w for w in wanted if w.encode() in name + dumped], (region, name)
                if call.encode() in name:
                    assert set(await valkey.hgetall(name)) <= {b"seq", b"said_seq"}, (region, name)
    for path in deployment.folder.rglob("*"):
        if path.is_file() and "postgres" not in str(path):
            text = path.read_bytes()
            assert not [w for w in wanted if w.encode() in text], path
