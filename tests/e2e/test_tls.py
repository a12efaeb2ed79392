"""A deployment in which every listener speaks TLS: registration, uplink, probes, feeds, and a call that is taken over."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.local.certificates import LocalTls
from tests.support.deployed import deployed
from tests.support.edges import until
from tests.support.engines import Engines
from tests.support.lone_edge import Backend
from voxplane import AsyncCaller, AsyncClient

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def test_a_call_over_tls_survives_its_edge(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with deployed(engines, regions=2, tls=True) as deployment, Backend().run() as made:
        secured = deployment.secured
        assert isinstance(secured, LocalTls)
        monkeypatch.setenv("VOXPLANE_CA_FILE", str(secured.ca_file))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            async with httpx.AsyncClient(trust_env=False) as stranger:
                await stranger.get(deployment.api_urls[0] + "/healthz")
        _, key = await deployment.create_project("tls")
        async with AsyncClient(deployment.api_urls, key) as client:
            regions = await client.regions()
            assert {
                p[kind].partition(":")[0] for r in regions for p in r["probes"] for kind in ("ws", "http")
            } == {"wss", "https"}
            assert len(await client.probe()) == 2
            call = await client.create_call({"url": made.url})
            assert all(url.startswith("wss://") for url in call["attach"])
            async with AsyncCaller(call["ticket"], client=client) as caller:
                await until(lambda: made.starts, "the backend")
                deployment.regions[caller.region].edge.kill()
                await until(lambda: caller.gaps and len(made.starts) == 2, "the other edge")
                await caller.hangup()
            seen = []
            async with asyncio.timeout(20):
                while "call.ended" not in seen:
                    seen = [e["type"] for e in await client.events_of(call["id"])]
                    await asyncio.sleep(0.05)
            assert "call.reconnecting" in seen
