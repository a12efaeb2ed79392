"""Real edges at a real instance: what they measure of each other, of callers and of a backend arrives there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from app.fleet import telling
from regions.wire.measuring import BackendTarget, Measured
from tests.support.api import Api, Project
from tests.support.edges import until
from voxplane import AsyncClient

pytestmark = pytest.mark.slow

REGIONS = ("us-east", "eu-west")


@asynccontextmanager
async def edge_process(api: Api, region: str, folder: Path) -> AsyncIterator[None]:
    await api.operator.post("/admin/v1/regions", json={"id": region, "jurisdiction": "us"})
    token = (await api.operator.post(f"/admin/v1/regions/{region}/enrol")).json()["token"]
    env = os.environ | {
        "VOXPLANE_REGION": region, "VOXPLANE_EDGE_NAME": "edge-1", "VOXPLANE_CONTROL_URLS": api.url,
        "VOXPLANE_EDGE_TOKEN": token, "VOXPLANE_EDGE_DATA": str(folder / region), "VOXPLANE_ALLOW_LOCAL_TARGETS": "1",
        "VOXPLANE_DRAIN_S": "0",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "regions.edge"], env=env, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)


async def test_what_edges_measure_arrives(
    api: Api, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "MEASURE_S", 0.2)
    said: list[tuple[str, Measured]] = []
    learning = api.control.learning
    host = f"127.0.0.1:{api.port}"
    monkeypatch.setattr(type(learning), "heard", lambda _, region, measured: said.append((region, measured)))
    learning.serves(BackendTarget(host=host, tls=False))

    def mesh() -> set[tuple[str, str]]:
        return {(region, m.region) for region, measured in said for m in measured.mesh if m.loss == 0}

    async with AsyncExitStack() as stack:
        for region in REGIONS:
            await stack.enter_async_context(edge_process(api, region, tmp_path))
        await until(lambda: mesh() == {REGIONS, REGIONS[::-1]}, "the mesh, both ways", within_s=60)
        client = await stack.enter_async_context(AsyncClient(api.url, project.key))
        found = await client.probe(fresh=True)
        assert sorted(f.region for f in found) == sorted(REGIONS)
        await until(lambda: {r for r, m in said if m.callers} == set(REGIONS), "the callers", within_s=30)
        await until(lambda: {r for r, m in said if m.backends} == set(REGIONS), "the backend", within_s=30)
    networks = {c.network for _, m in said for c in m.callers}
    assert networks == {"127.0.0.0/24"}
    assert {b.host for _, m in said for b in m.backends} == {host}
