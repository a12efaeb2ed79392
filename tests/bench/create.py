"""Creates per second through HTTP, against pgbench committing the same five statements as one transaction per call.

Each create commits a webhook delivery, as each transaction of pgbench does. While the ratios are measured nobody makes those
deliveries, as nobody makes pgbench's: the two instances have `VOXPLANE_DELIVERIES=0`. Then a third starts, makes them, and the
creates are measured again beside it. The load generator, the database and the receiver share the machine. pgbench
comes from the same wheel as the server, runs as the superuser (no row-level security) and writes rows of the same size.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import free_port
from tests.bench.report import Figure
from tests.bench.support import Receiver, cpu_s, family_cpu_s, receiver

ROUNDS = 5
SECONDS = 3.0
DEADLINE_S = 60.0


class Deployed(Deployment):
    """Two instances that serve requests; one that is started later makes deliveries."""

    def api_environment(self, port: int) -> dict[str, str]:
        serves = any(url.endswith(f":{port}") for url in self.api_urls)
        return super().api_environment(port) | {"VOXPLANE_DELIVERIES": "0" if serves else "1"}


async def measure(*, full: bool) -> list[Figure]:
    folder = temporary_folder("voxplane-bench")
    try:
        async with Deployed(folder, places=PLACES[:3], instances=2) as deployment, receiver() as got:
            return await _measure(deployment, got, rounds=ROUNDS * (2 if full else 1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(deployment: Deployed, got: Receiver, *, rounds: int) -> list[Figure]:
    _, key = await deployment.create_project("bench")
    async with httpx.AsyncClient(base_url=deployment.api_urls[0], trust_env=False) as client:
        headers = {"Authorization": f"Bearer {key}"}
        (await client.post("/v1/webhooks", json={"url": got.url}, headers=headers)).raise_for_status()
    ports = [int(url.rpartition(":")[2]) for url in deployment.api_urls]
    await load(ports, key, 16, 2.0)
    script = await write_script(deployment)
    seen: list[tuple[float, float, float, float]] = []
    costs: list[tuple[float, float]] = []
    for _ in range(rounds):
        base = await pgbench(deployment, script)
        sixteen = (await load(ports, key, 16, SECONDS))["per_s"]
        again = await pgbench(deployment, script)
        before = used_s(deployment)
        created = await load(ports, key, 64, SECONDS)
        costs.append(each_us(before, used_s(deployment), created["creates"]))
        sixty_four = created["per_s"]
        one = (await load(ports[:1], key, 64, SECONDS))["per_s"]
        seen.append((sixteen / base, sixty_four / again, one / again, (base + again) / 2))
    alone = await load(ports[:1], key, 1, SECONDS)
    delivering = free_port()
    deployment.apis.append(deployment.start_api(delivering))
    await got.begins(DEADLINE_S)
    before = got.count
    beside = await load(ports, key, 64, SECONDS)
    delivered = (got.count - before) / SECONDS
    base_per_s = statistics.median(r[3] for r in seen)
    how = f"median of {len(seen)}, against pgbench's {base_per_s:,.0f}/s with 16 clients"
    one_how = f"one instance, 64 clients, {how}"
    beside_how = f"64 clients, while another instance made {delivered:,.0f} deliveries/s"
    return [
        figure("ratio_16", statistics.median(r[0] for r in seen), "×", how, 1.0),
        figure("ratio_64", statistics.median(r[1] for r in seen), "×", how, 1.3),
        figure("one_instance_ratio_64", statistics.median(r[2] for r in seen), "×", one_how, None),
        figure("p50_ms", alone["p50_ms"], "ms", "one client", None),
        figure("p99_ms", alone["p99_ms"], "ms", "one client", None),
        figure("delivering_ratio_64", beside["per_s"] / base_per_s, "×", beside_how, None),
        figure("api_cpu_us", statistics.median(c[0] for c in costs), "µs/create", "64 clients", None),
        figure("db_cpu_us", statistics.median(c[1] for c in costs), "µs/create", "64 clients", None),
    ]


def used_s(deployment: Deployed) -> tuple[float, float]:
    """Processor time so far, of the instances and of PostgreSQL."""
    assert deployment.postgres is not None
    return cpu_s([api.pid for api in deployment.apis]), family_cpu_s(deployment.postgres.pid)


def each_us(before: tuple[float, float], after: tuple[float, float], creates: float) -> tuple[float, float]:
    return (after[0] - before[0]) * 1e6 / creates, (after[1] - before[1]) * 1e6 / creates


def figure(name: str, value: float, unit: str, how: str, target: float | None) -> Figure:
    return Figure(family="create", name=f"create.{name}", value=value, unit=unit, how=how, target=target)


async def load(ports: list[int], key: str, clients: int, seconds: float) -> dict[str, float]:
    out = await run(
        [
            sys.executable,
            "-m",
            "tests.bench.http_load",
            ",".join(map(str, ports)),
            key,
            str(clients),
            str(seconds),
        ]
    )
    found: dict[str, float] = json.loads(out)
    return found


async def pgbench(deployment: Deployment, script: Path) -> float:
    """Transactions per second of the wheel's own pgbench."""
    postgres = deployment.postgres
    assert postgres is not None
    program = Path(os.readlink(f"/proc/{postgres.pid}/exe")).parent / "pgbench"
    out = await run(
        [str(program), "-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", str(round(SECONDS)), "-f", str(script), postgres.dsn],
    )  # fmt: skip
    found = re.search(r"tps = ([0-9.]+)", out)
    assert found is not None, out
    return float(found.group(1))


async def write_script(deployment: Deployment) -> Path:
    """The five statements, with the values that a create has just stored."""
    connection = await asyncpg.connect(deployment.database_url)
    try:
        call: Any = await connection.fetchrow("select * from vx.calls where seq = 1 limit 1")
        event: Any = await connection.fetchrow("select * from vx.events where call_id = $1", call["id"])
        webhook = await connection.fetchval("select id from vx.webhooks limit 1")
    finally:
        await connection.close()
    project, edges = call["project_id"], ",".join(str(e) for e in call["grant_edges"])
    incarnations = ",".join(str(i) for i in call["grant_incarnations"])
    text = f"""
begin;
select set_config('vx.project', '{project}', true);
insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at, attach_by,
  n, seq, feed_xid, region, edge_id, request, placement, metadata, max_duration_s, created_at)
values (uuidv7(), '{project}', 'ringing', 1, 3, '{{{edges}}}', '{{{incarnations}}}', now() + '1 hour', now() + '5 minutes',
  0, 1, pg_current_xact_id()::text::bigint, 'us-east', '{call["edge_id"]}', {quoted(call["request"])}, {quoted(call["placement"])},
  {quoted(call["metadata"])}, 3600, now()) returning id as call \\gset
insert into vx.idempotency (project_id, route, key, body_hash, call_id, created_at)
values ('{project}', 'POST /v1/calls', replace(:call::uuid::text, '-', ''), sha256(:call::uuid::text::bytea), :call::uuid, now());
insert into vx.events (call_id, seq, project_id, id, type, epoch, source, source_key, region, at, data, hash, feed_xid)
values (:call::uuid, 1, '{project}', uuidv7(), 'call.created', 1, 'control', 'create', 'us-east', now(), {quoted(event["data"])},
  sha256(:call::uuid::text::bytea), pg_current_xact_id()::text::bigint);
insert into vx.deliveries (call_id, webhook_id, seq, project_id, next_at, state)
values (:call::uuid, '{webhook}', 1, '{project}', now() + '1 day', 'pending');
commit;
"""
    path = deployment.folder / "create.sql"
    path.write_text(text)
    return path


def quoted(text: str) -> str:
    """A literal; pgbench takes a colon before a letter for a variable, and our JSON has none."""
    return "'" + text.replace("'", "''") + "'"


async def run(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {err.decode()[-2000:]}")
    return out.decode()
