"""Drills on real processes: real edges cut real callers, who come back as they would after a death; the command line does it too."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.local.deployment import Deployment
from app.local.proof import check_events
from tests.support.deployed import deployed
from tests.support.engines import Engines
from tests.support.numbered import NumberedBackend, NumberedCaller
from voxplane import AsyncCaller, AsyncClient

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CALLS = 4
WITHIN_S = 60.0
PATIENT = {"max_rto_ms": 30_000}
"""A busy machine takes its time: how long it took is not what is tested."""


@pytest.fixture(scope="module")
async def deployment(engines: Engines) -> AsyncIterator[Deployment]:
    async with deployed(engines) as running:
        yield running


@pytest.fixture(autouse=True)
async def whole(deployment: Deployment) -> None:
    await deployment.mend()
    async with deployment.operator() as operator:
        await deployment.until_healthy(operator)


async def until(true: Any, what: str) -> Any:
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                found = true()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


@asynccontextmanager
async def callers(
    client: AsyncClient, backend: NumberedBackend, region: str
) -> AsyncIterator[dict[str, AsyncCaller]]:
    """Real callers of that region, all of which hear their agent; hung up in the end."""
    async with AsyncExitStack() as stack:
        made: dict[str, AsyncCaller] = {}
        for _ in range(CALLS):
            call = await client.create_call(backend.url, latencies=[{"region": region, "rtt_ms": 5}])
            caller = await stack.enter_async_context(
                AsyncCaller(call["ticket"], encoding="mulaw", sample_rate=8_000, client=client)
            )
            ends = NumberedCaller(caller, backend.calls[call["id"]])
            ends.start()
            stack.push_async_callback(ends.stop)
            await until(lambda ends=ends: ends.heard, "the agent heard")
            made[call["id"]] = caller
        assert {c.region for c in made.values()} == {region}
        yield made
        for caller in made.values():
            await caller.hangup()
            assert caller.end_reason == "caller_hung_up"


async def begun(operator: AsyncClient, kind: str, target: str, **more: Any) -> dict[str, Any]:
    wanted = {"calls": "real", "share": 1, "bounds": PATIENT} | more
    found: dict[str, Any] = await operator.start_drill(kind, target, **wanted)
    return found


async def ended(operator: AsyncClient, drill: str) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        shown = await operator.drill(drill)
        return shown if shown["state"] == "ended" else None

    found: dict[str, Any] = await until(over, "the end of the drill")
    return found


@pytest.mark.parametrize("how", ["closed", "silent"])
async def test_an_edge_is_lost_to_all_its_callers_and_each_comes_back_with_nothing_lost(
    deployment: Deployment, how: str
) -> None:
    """One instance is killed on the way, and the other carries the drill on."""
    _, key = await deployment.create_project("drilled")
    async with (
        NumberedBackend().run() as backend,
        AsyncClient(deployment.api_urls, key) as client,
        AsyncClient(deployment.api_urls, deployment.operator_key) as operator,
    ):
        async with callers(client, backend, "us-east") as talking:
            edges = (await operator.request("GET", "/admin/v1/edges"))["data"]
            edge = next(e["id"] for e in edges if e["region"] == "us-east")
            preview = await begun(operator, "edge.loss", edge, how=how, dry_run=True)
            assert (preview["total"], preview["unprotected"], preview["waves"]) == (CALLS, 0, [1, 1, 2])
            drill = await begun(operator, "edge.loss", edge, how=how)
            if how == "closed":
                deployment.apis[0].kill()
                deployment.apis[0].wait()
            shown = await ended(operator, drill["id"])
            assert (shown["verdict"], shown["reason"]) == ("passed", ""), shown
            summary = shown["summary"]
            assert (summary["cut"], summary["recovered"], summary["lost_events"]) == (CALLS, CALLS, 0)
            assert summary["rto_max_ms"] is not None
            for told in shown["per_call"]:
                caller = talking[told["call_id"]]
                assert told["from_edge"] == edge and told["to_region"] == caller.region != "us-east"
                assert (told["from_epoch"], told["to_epoch"]) == (1, caller.epoch)
                [gap] = caller.gaps
                assert (gap.reason == "silent") == (how == "silent")
            await deployment.mend()
        for call in talking:
            events = await until(lambda call=call: _over(client, call), "the call's end")
            kinds = [e["type"] for e in events]
            assert (kinds.count("call.drilled"), kinds.count("call.reconnecting")) == (1, 1)
            assert check_events(await client.get_call(call), events) == []
        found = await operator.request("GET", "/admin/v1/regions/us-east/health")
        assert found["verdict"] in ("healthy", "probation"), "a drill is no evidence against the edge"


async def test_every_instance_is_killed_in_a_drill_and_it_goes_on_when_they_are_back(
    deployment: Deployment,
) -> None:
    """Who has just started has heard no edge yet: it waits for that, and does not take it for a fleet that is not well."""
    _, key = await deployment.create_project("without")
    async with (
        NumberedBackend().run() as backend,
        AsyncClient(deployment.api_urls, key) as client,
        AsyncClient(deployment.api_urls, deployment.operator_key) as operator,
        callers(client, backend, "us-east") as talking,
    ):
        drill = await begun(operator, "region.loss", "us-east")
        await until(lambda: any(c.gaps for c in talking.values()), "the first one cut")
        for api in deployment.apis:
            api.kill()
        for api in deployment.apis:
            api.wait()
        await deployment.mend()
        shown = await ended(operator, drill["id"])
        assert (shown["verdict"], shown["reason"]) == ("passed", ""), shown
        assert shown["summary"]["recovered"] == CALLS


async def _over(client: AsyncClient, call: str) -> list[dict[str, Any]] | None:
    if (await client.get_call(call))["state"] != "completed":
        return None
    return await client.events_of(call)


async def test_a_drill_whose_bound_is_broken_stops_after_its_first_wave(deployment: Deployment) -> None:
    """A silent caller is noticed after half a second: a bound of fifty milliseconds cannot hold."""
    _, key = await deployment.create_project("bound")
    async with (
        NumberedBackend().run() as backend,
        AsyncClient(deployment.api_urls, key) as client,
        AsyncClient(deployment.api_urls, deployment.operator_key) as operator,
        callers(client, backend, "eu-west") as talking,
    ):
        drill = await begun(operator, "region.loss", "eu-west", how="silent", bounds={"max_rto_ms": 50})
        shown = await ended(operator, drill["id"])
        assert (shown["verdict"], shown["reason"], shown["wave"]) == ("stopped", "max_rto_ms", 1)
        assert (shown["total"], shown["summary"]["cut"]) == (CALLS, 1)
        await until(lambda: sum(c.region != "eu-west" for c in talking.values()) == 1, "one has moved")
        said = (
            await operator.fleet_events(types=["drill.started", "drill.stopped", "drill.finished"], limit=200)
        )["data"]
        mine = [e for e in said if e["data"]["drill_id"] == drill["id"]]
        assert [e["type"] for e in mine] == ["drill.started", "drill.stopped", "drill.finished"]


async def test_the_command_line_places_calls_drills_them_and_says_what_came_of_it(
    deployment: Deployment,
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("VOXPLANE_")} | {
        "VOXPLANE_URL": ",".join(deployment.api_urls),
        "VOXPLANE_OPERATOR_KEY": deployment.operator_key,
        "VOXPLANE_DATA": str(deployment.folder / "cli"),
    }
    words = ("drill", "ap-south", "--synthetic", "3", "--max-rto-ms", "30000", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", *words, cwd=ROOT, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    shown = json.loads(out)
    assert (shown["verdict"], shown["summary"]["recovered"]) == ("passed", 3)
    assert all(c["caller_gap_ms"] is not None for c in shown["per_call"])
    async with AsyncClient(deployment.api_urls, deployment.operator_key) as operator:
        projects = (await operator.request("GET", "/admin/v1/projects"))["data"]
        assert [p["mode"] for p in projects if p["name"] == "voxplane drills"] == ["test"]
