"""What it costs to know who asks and whether they may, once a key was seen: processor time of this process, for the dearest kind of
key (with an end and a list of addresses) and for the plain one. And how long a revoked key still works elsewhere.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from app.clock import SystemClock
from app.db import Database
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.projects.auth import Authenticator
from app.projects.credentials import authorization_of
from tests.bench.report import Figure
from tests.bench.support import quantile

KEYS = 50
ASKED = 20_000
ROUNDS = 50
ROUNDS_ALONE = 10
TARGET_US, TARGET_MS, TARGET_ALONE_MS = 150.0, 1_000.0, 5_000.0
NETWORKS = [f"203.0.{i}.0/24" for i in range(7)] + ["127.0.0.0/8"]


class Deployed(Deployment):
    """The third instance hears no hints: for it, Valkey is dead."""

    def api_environment(self, port: int) -> dict[str, str]:
        alone = self.api_urls and self.api_urls[-1].endswith(f":{port}")
        return super().api_environment(port) | ({"REDIS_URLS": ""} if alone else {})


async def measure(*, full: bool) -> list[Figure]:
    folder = temporary_folder("voxplane-bench")
    try:
        async with Deployed(folder, places=PLACES[:1], instances=3) as deployment:
            _, owner = await deployment.create_project("bench")
            first, second, alone = deployment.api_urls
            rounds = ROUNDS * (10 if full else 1)
            heard = [await still_works_s(first, second, owner) for _ in range(rounds)]
            unheard = [await still_works_s(first, alone, owner) for _ in range(ROUNDS_ALONE)]
            plain, dear, reads = await costs(deployment, owner)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    heard_how = f"{rounds} keys, from the order to the refusal"
    return [
        figure("auth.p99_us", quantile(dear, 0.99), "µs", f"of {ASKED:,}, a key with an end and 8 networks", TARGET_US),
        figure("auth.plain_p99_us", quantile(plain, 0.99), "µs", f"of {ASKED:,}, a plain key"),
        figure("auth.database_reads", reads, "reads", f"while {2 * ASKED:,} were asked", 0.0),
        figure("keys.revocation_p99_ms", quantile(heard, 0.99) * 1e3, "ms", heard_how, TARGET_MS),
        figure("keys.revocation_alone_ms", max(unheard) * 1e3, "ms", "the longest, without Valkey", TARGET_ALONE_MS),
    ]  # fmt: skip


def figure(name: str, value: float, unit: str, how: str, target: float | None = None) -> Figure:
    return Figure(family="admin", name=name, value=value, unit=unit, how=how, target=target, at_most=True)


async def still_works_s(here: str, there: str, owner: str) -> float:
    """From when a key is ordered to be revoked at one instance until another, which has just seen it, refuses it."""
    async with (
        httpx.AsyncClient(base_url=here, trust_env=False, headers=bearer(owner)) as client,
        httpx.AsyncClient(base_url=there, trust_env=False) as other,
    ):
        key = (await client.post("/v1/keys", json={"name": "revoked", "role": "viewer"})).json()
        asked = bearer(key["secret"])
        assert (await other.get("/v1/regions", headers=asked)).status_code == 200
        began = time.perf_counter()
        revoking = asyncio.create_task(client.delete(f"/v1/keys/{key['id']}"))
        while (await other.get("/v1/regions", headers=asked)).status_code != 401:
            await asyncio.sleep(0.002)
        took_s = time.perf_counter() - began
        assert (await revoking).status_code == 204
        return took_s


async def costs(deployment: Deployment, owner: str) -> tuple[list[float], list[float], int]:
    """Microseconds for plain keys, for the dearest, and how often the database was asked meanwhile."""
    url = deployment.api_urls[0]
    end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    async with httpx.AsyncClient(base_url=url, trust_env=False, headers=bearer(owner)) as client:
        plain = [await secret(client) for _ in range(KEYS)]
        dear = [await secret(client, expires_at=end, allow_from=NETWORKS) for _ in range(KEYS)]
    async with Database.open(deployment.database_url) as db:
        auth, reads = Authenticator(db, SystemClock(), ""), 0
        look_up = auth._look_up

        async def counted(given: str) -> Any:
            nonlocal reads
            reads += 1
            return await look_up(given)

        auth._look_up = counted  # type: ignore[method-assign]
        found = []
        again = 0
        for secrets in (plain, dear):
            scopes = [Asked(given) for given in secrets]
            for asked in scopes:
                await ask(auth, asked)
            before = reads
            found.append([await ask(auth, scopes[i % KEYS]) for i in range(ASKED)])
            again += reads - before
    return found[0], found[1], again


class Asked:
    """As much of a request as is looked at."""

    def __init__(self, given: str) -> None:
        self.scope = {
            "headers": [
                (b"host", b"x"),
                (b"user-agent", b"bench"),
                (b"authorization", f"Bearer {given}".encode()),
            ],
            "client": ("127.0.0.1", 4711),
        }


async def ask(auth: Authenticator, asked: Asked) -> float:
    began = time.thread_time_ns()
    principal = await auth.project(authorization_of(asked), asked.scope)
    principal.require("calls:read")
    return (time.thread_time_ns() - began) / 1e3


async def secret(client: httpx.AsyncClient, **more: Any) -> str:
    made = await client.post("/v1/keys", json={"name": uuid4().hex, "role": "developer", **more})
    made.raise_for_status()
    return str(made.json()["secret"])


def bearer(given: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {given}"}
