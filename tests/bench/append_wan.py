"""The log between regions that are 80 ms apart: what is durable in a second, and when a subscriber hears of it.

Two ways are 80 ms long, there and back, through the delay proxy: between the edge and the instance, and between the primary and
the standby that it waits for. The standby is the wheel's ``pg_receivewal --synchronous``, which flushes what it is sent and says
so, as any other does; without its word nothing is acknowledged. The instance and the first subscriber are in the primary's region.

Then another subscriber listens at an instance of its own that is as far: 80 ms there and back from the database and from every
Valkey, so that it is told of what is durable half a round trip later, and reads it with a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx

from app.local.deployment import Deployment
from app.local.folder import make_folder
from app.local.postgres import find_binaries
from app.local.process import Account, free_port, start, stop
from app.local.wan import Link
from tests.bench.report import Figure
from tests.bench.scripted import ScriptedEdge, placed, uplink
from tests.bench.support import deployed, generator, idle

RTT_MS = 80.0
CALLS = 3_000
EXCHANGES = 2
PER_S = 3_000
"""Of all calls together: one event a second in each, which is more than a conversation has."""
SECONDS = 6.0
FAR_PER_S = 500
STANDBY = "far"
STANDBY_WITHIN_S = 20.0
FAR_WITHIN_S = 60.0


async def measure() -> list[Figure]:
    async with deployed(regions=2) as deployment:
        api = urlsplit(deployment.api_urls[0])
        assert api.hostname is not None
        assert api.port is not None
        async with (
            Link(api.hostname, api.port, RTT_MS / 2) as way,
            uplink(deployment, f"http://127.0.0.1:{way.port}") as edge,
        ):
            _, key = await deployment.create_project("bench")
            await edge.load.tell({"calls": await placed(deployment, key, edge.id, CALLS)})
            async with standby(deployment):
                per_s = await edge.write(EXCHANGES)
                await idle([a.pid for a in deployment.apis])
                heard = await _heard(edge, api.hostname, api.port, key, PER_S)
                async with far_instance(deployment) as far:
                    heard_far = await _heard(edge, api.hostname, far, key, FAR_PER_S)
    behind = f"{RTT_MS:g} ms edge to instance and primary to the standby it waits for"
    return [
        Figure(family="append", name="append.wan_events_per_s", value=per_s, unit="events/s", target=PER_S,
               how=f"durable and acknowledged, one uplink; {behind}"),
        Figure(family="append", name="append.wan_delivery_p99_ms", value=heard["p99_ms"], unit="ms", at_most=True,
               target=RTT_MS + 250,
               how=f"happened to heard, {PER_S:,} events/s, p50 {heard['p50_ms']:.0f}; {behind}"),
        Figure(family="append", name="append.wan_far_delivery_p99_ms", value=heard_far["p99_ms"], unit="ms", at_most=True,
               target=RTT_MS + 250,
               how=f"the same at an instance {RTT_MS:g} ms from the primary, {FAR_PER_S:,} events/s, p50 {heard_far['p50_ms']:.0f}"),
    ]  # fmt: skip


async def _heard(edge: ScriptedEdge, host: str, port: int, key: str, per_s: int) -> dict[str, Any]:
    """What a subscriber at that instance heard of as many events as happen."""
    async with generator("tests.bench.stream_load", host, str(port), key) as reader:
        await reader.answer()
        wrote = await edge.load.ask({"per_s": per_s, "seconds": SECONDS})
        heard = await reader.ask({"events": wrote["events"]})
    if heard["events"] != wrote["events"]:
        raise RuntimeError(f"{wrote['events']} events are durable, the subscriber has {heard['events']}")
    return heard


@asynccontextmanager
async def far_instance(deployment: Deployment) -> AsyncIterator[int]:
    """The port of one more instance, whose ways to the database and to the Valkeys are long."""
    async with AsyncExitStack() as stack:

        async def far(url: str) -> str:
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            way = await stack.enter_async_context(Link(parts.hostname, parts.port, RTT_MS / 2))
            who = f"{parts.username or ''}:{parts.password or ''}@" if parts.password else ""
            return parts._replace(netloc=f"{who}127.0.0.1:{way.port}").geturl()

        near = deployment.database_url, deployment.redis_urls
        deployment.database_url = await far(near[0])
        deployment.redis_urls = {region: await far(url) for region, url in near[1].items()}
        port = free_port()
        process = deployment.start_api(port)
        deployment.database_url, deployment.redis_urls = near
        try:
            async with asyncio.timeout(FAR_WITHIN_S), httpx.AsyncClient(trust_env=False) as client:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                            break
                    await asyncio.sleep(0.1)
            yield port
        finally:
            await stop(process, signal.SIGTERM, signal.SIGKILL)


@asynccontextmanager
async def standby(deployment: Deployment) -> AsyncIterator[None]:
    """The primary waits for a standby that is far away, until the end of the block."""
    primary, account = deployment.postgres, Account()
    assert primary is not None
    folder = deployment.folder / "standby"
    make_folder(folder, account)
    account.own(folder)
    async with Link("127.0.0.1", primary.port, RTT_MS / 2) as way:
        dsn = urlsplit(primary.dsn)
        where = f"host=127.0.0.1 port={way.port} user={dsn.username} password={dsn.password} application_name={STANDBY}"
        binary = str(find_binaries(account) / "pg_receivewal")
        process: subprocess.Popen[bytes] = start(
            account, [binary, "-D", str(folder), "--synchronous", "-d", where], log=folder.parent / "standby.log", cwd=folder
        )  # fmt: skip
        try:
            async with waited_for(primary.dsn):
                yield
        finally:
            await stop(process, signal.SIGINT, signal.SIGKILL)


@asynccontextmanager
async def waited_for(dsn: str) -> AsyncIterator[None]:
    """As the superuser, whose own commits wait for nobody."""
    connection = await asyncpg.connect(dsn, server_settings={"synchronous_commit": "local"})
    try:
        async with asyncio.timeout(STANDBY_WITHIN_S):
            while not await connection.fetchval("select exists (select from pg_stat_replication)"):
                await asyncio.sleep(0.05)
        await connection.execute(f"alter system set synchronous_standby_names = '{STANDBY}'")
        await connection.execute("select pg_reload_conf()")
        async with asyncio.timeout(STANDBY_WITHIN_S):
            while await connection.fetchval("select sync_state from pg_stat_replication") != "sync":
                await asyncio.sleep(0.05)
        yield
        await connection.execute("alter system reset synchronous_standby_names")
        await connection.execute("select pg_reload_conf()")
    finally:
        await connection.close()
