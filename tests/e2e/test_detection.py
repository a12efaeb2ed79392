"""An edge falls silent, on real processes: it is suspected, held down, avoided, explained, and trusted again by and by."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.support.deployed import deployed
from tests.support.engines import Engines
from voxplane import AsyncClient

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WITHIN_S = 40.0


async def until(operator: AsyncClient, region: str, *verdicts: str) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while (found := await operator.region_health(region))["verdict"] not in verdicts:
            await asyncio.sleep(0.05)
    return found


def signal_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    said: dict[str, Any] = next(s for s in found["edges"][0]["signals"] if s["signal"] == name)
    return said


async def test_a_stopped_edge_is_found_avoided_and_trusted_again(engines: Engines) -> None:
    async with deployed(engines) as deployment:
        _, key = await deployment.create_project("e2e")
        async with (
            AsyncClient(deployment.api_urls, key) as client,
            AsyncClient(deployment.api_urls, deployment.operator_key) as operator,
        ):
            await told_by_probes(operator)
            process = deployment.regions["eu-west"].edge
            os.kill(process.pid, signal.SIGSTOP)
            try:
                await until(operator, "eu-west", "suspect", "down")
                placed = await client.create_call("ws://127.0.0.1:9/", regions={"prefer": ["eu-west"]})
                assert placed["region"] != "eu-west"
                found = await until(operator, "eu-west", "down")
                async with asyncio.timeout(WITHIN_S):
                    while signal_of(found, "probes")["says"] != "away":
                        found = await operator.region_health("eu-west")
                # that nobody answers keeps calls away, and moves none
                assert found["action"] == "quarantine"
                assert signal_of(found, "heartbeats")["says"] in ("late", "silent")
                # on a busy machine one of the two may be late itself, and abstain
                observers = set(signal_of(found, "probes")["observers"])
                assert observers
                assert observers <= {"ap-south", "us-east"}
            finally:
                os.kill(process.pid, signal.SIGCONT)
            found = await until(operator, "eu-west", "probation")
            assert found["edges"][0]["weight"] < 1
            events = (await operator.fleet_events(limit=200))["data"]
            mine = [e["type"] for e in events if e["region"] == "eu-west"]
            assert mine.count("edge.registered") == 1
            assert mine.index("region.suspect") < mine.index("region.down") < mine.index("edge.recovered")
            assert len({e["id"] for e in events}) == len(events)


async def told_by_probes(operator: AsyncClient) -> None:
    """Both neighbours have seen the edge at work."""
    async with asyncio.timeout(WITHIN_S):
        while signal_of(await operator.region_health("eu-west"), "probes")["says"] != "up":
            await asyncio.sleep(0.05)
