"""The log between regions that are 80 ms apart: what is durable in a second, and when a subscriber hears of it.

Two ways are 80 ms long, there and back, through the delay proxy: between the edge and the instance, and between the primary and
the standby that it waits for. The standby is the wheel's ``pg_receivewal --synchronous``, which flushes what it is sent and says
so, as any other does; without its word nothing is acknowledged. The instance and the subscriber are in the primary's region.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from app.local.deployment import Deployment
from app.local.folder import make_folder
from app.local.postgres import find_binaries
from app.local.process import Account, start, stop
from app.local.wan import Link
from tests.bench.report import Figure
from tests.bench.scripted import placed, uplink
from tests.bench.support import deployed, generator, idle

RTT_MS = 80.0
CALLS = 3_000
EXCHANGES = 2
PER_S = 3_000
"""Of all calls together: one event a second in each, which is more than a conversation has."""
SECONDS = 6.0
STANDBY = "far"
STANDBY_WITHIN_S = 20.0


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
                async with generator("tests.bench.stream_load", api.hostname, str(api.port), key) as reader:
                    await reader.answer()
                    wrote = await edge.load.ask({"per_s": PER_S, "seconds": SECONDS})
                    heard = await reader.ask({"events": wrote["events"]})
    if heard["events"] != wrote["events"]:
        raise RuntimeError(f"{wrote['events']} events are durable, the subscriber has {heard['events']}")
    behind = f"{RTT_MS:g} ms edge to instance and primary to the standby it waits for"
    return [
        Figure(family="append", name="append.wan_events_per_s", value=per_s, unit="events/s", target=PER_S,
               how=f"durable and acknowledged, one uplink; {behind}"),
        Figure(family="append", name="append.wan_delivery_p99_ms", value=heard["p99_ms"], unit="ms", at_most=True,
               target=RTT_MS + 250,
               how=f"happened to heard, {PER_S:,} events/s, p50 {heard['p50_ms']:.0f}; {behind}"),
    ]  # fmt: skip


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
