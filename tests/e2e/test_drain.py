"""Planned moves on real processes: every frame is accounted for, and nothing that is restarted costs a call or a request."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from app.local.deployment import Deployment
from app.local.proof import check_events
from tests.support.deployed import deployed
from tests.support.engines import Engines
from tests.support.numbered import NumberedBackend, NumberedCaller
from voxplane import AsyncCaller, AsyncClient, watch

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.usefixtures("patient"),
]

CALLS = 3
WITHIN_S = 60.0


@pytest.fixture(scope="module")
async def deployment(engines: Engines) -> AsyncIterator[Deployment]:
    async with deployed(engines, drain_s=9) as running:
        yield running


@pytest.fixture(autouse=True)
async def whole(deployment: Deployment) -> None:
    await deployment.mend()
    async with deployment.operator() as operator:
        for region in deployment.regions:
            await operator.post(f"/admin/v1/regions/{region}/uncordon")
        await deployment.until_healthy(operator)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may hold an edge up for half a second: here a call moves because it is asked to."""
    monkeypatch.setattr(watch, "PREPARE_AFTER_MS", 20_000)
    monkeypatch.setattr(watch, "TAKE_AFTER_MS", 25_000)


async def until(true: Any, what: str, within_s: float = WITHIN_S) -> Any:
    """`true`: a function, or one that has to be waited for."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                found = true()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


class Talk:
    """One call with numbered frames."""

    def __init__(self, call: dict[str, Any], caller: AsyncCaller, ends: NumberedCaller) -> None:
        self.id = call["id"]
        self.caller = caller
        self.ends = ends

    @property
    def region(self) -> str:
        return self.caller.region


@asynccontextmanager
async def talking(
    client: AsyncClient, backend: NumberedBackend, region: str, count: int = CALLS
) -> AsyncIterator[list[Talk]]:
    """Calls of that region, all of which have heard something; hung up in the end."""
    async with AsyncExitStack() as stack:
        talks = []
        for _ in range(count):
            call = await client.create_call(backend.url, latencies=[{"region": region, "rtt_ms": 5}])
            caller = await stack.enter_async_context(
                AsyncCaller(call["ticket"], encoding="mulaw", sample_rate=8_000, client=client)
            )
            ends = NumberedCaller(caller, backend.calls[call["id"]])
            ends.start()
            stack.push_async_callback(ends.stop)
            talks.append(Talk(call, caller, ends))
        await until(lambda: all(t.ends.heard for t in talks), "every agent heard")
        assert {t.region for t in talks} == {region}
        yield talks
        for talk in talks:
            await talk.caller.hangup()
            assert talk.caller.end_reason == "caller_hung_up"


async def told(client: AsyncClient, call_id: str) -> list[dict[str, Any]]:
    """The events of a call that has ended."""

    async def over() -> bool:
        return (await client.get_call(call_id))["state"] == "completed"

    await until(over, "the end")
    return await client.events_of(call_id)


async def test_a_region_is_drained_in_the_middle_of_its_calls(deployment: Deployment) -> None:
    """At most one frame of 20 ms is lost per call, in either direction."""
    _, key = await deployment.create_project("drain")
    async with (
        NumberedBackend().run() as backend,
        AsyncClient(deployment.api_urls, key) as client,
        deployment.operator() as operator,
    ):
        async with talking(client, backend, "us-east") as talks:
            begun = await operator.post("/admin/v1/regions/us-east/drain", json={"within_s": 50})
            assert begun.status_code == 202, begun.text
            assert begun.json()["total"] == CALLS
            await until(lambda: all(t.region != "us-east" for t in talks), "all have moved")

            async def drained() -> Any:
                shown = (await operator.get("/admin/v1/regions/us-east/drain")).json()
                return shown if shown["state"] == "drained" else None

            shown = await until(drained, "drained")
            assert (shown["moved"], shown["failed"], shown["left"], shown["stuck"]) == (CALLS, 0, 0, [])
            heard = {t.id: max(t.ends.heard) for t in talks}
            await until(lambda: all(max(t.ends.heard) > heard[t.id] + 25 for t in talks), "the agent goes on")
            for talk in talks:
                assert (len(talk.ends.lost_up), len(talk.ends.lost_down)) <= (1, 1)
                assert [(g.reason, g.from_epoch) for g in talk.caller.gaps] == [("planned", 1)]
        for talk in talks:
            events = await told(client, talk.id)
            kinds = [e["type"] for e in events]
            assert (kinds.count("call.moved"), kinds.count("call.reconnecting")) == (1, 0)
            assert "turn.interrupted" not in kinds[: kinds.index("call.moved") + 3], (
                "moved at the end of a turn"
            )
            assert check_events(await client.get_call(talk.id), events) == []


async def test_an_edge_that_is_told_to_stop_moves_its_calls_first(deployment: Deployment) -> None:
    _, key = await deployment.create_project("stop")
    async with NumberedBackend().run() as backend, AsyncClient(deployment.api_urls, key) as client:
        async with talking(client, backend, "eu-west") as talks:
            edge = deployment.regions["eu-west"].edge
            edge.send_signal(signal.SIGTERM)
            await until(lambda: edge.poll() is not None, "the edge has stopped")
            assert edge.returncode == 0
            async with deployment.operator() as operator:
                edges = (await operator.get("/admin/v1/edges")).json()["data"]
                assert [e["region"] for e in edges if e["stopped"]] == ["eu-west"]

                async def ended() -> set[str]:
                    said = (await operator.get("/admin/v1/events", params={"limit": 200})).json()["data"]
                    return {e["type"] for e in said if e["region"] == "eu-west"} & {
                        "edge.drained",
                        "edge.stopped",
                    }

                async def both() -> bool:
                    return len(await ended()) == 2

                await until(both, "it is known as drained, and as stopped")
            assert all(t.region != "eu-west" for t in talks)
            assert [t.caller.gaps[0].reason for t in talks] == ["planned"] * CALLS
            assert all(len(t.ends.lost_up) <= 1 and len(t.ends.lost_down) <= 1 for t in talks)
        for talk in talks:
            kinds = [e["type"] for e in await told(client, talk.id)]
            assert (kinds.count("call.moved"), kinds.count("call.reconnecting")) == (1, 0)


async def test_without_a_control_plane_an_edge_that_stops_hands_over_by_closing(
    deployment: Deployment,
) -> None:
    _, key = await deployment.create_project("alone")
    async with NumberedBackend().run() as backend, AsyncClient(deployment.api_urls, key) as client:
        async with talking(client, backend, "ap-south", count=1) as [talk]:
            for api in deployment.apis:
                api.kill()
                api.wait()
            edge = deployment.regions["ap-south"].edge
            edge.send_signal(signal.SIGTERM)
            await until(lambda: talk.region != "ap-south", "moved")
            assert [g.reason for g in talk.caller.gaps] == ["closed"]
            await until(lambda: edge.poll() is not None, "the edge has stopped")
            await deployment.mend()
        kinds = [e["type"] for e in await told(client, talk.id)]
        assert kinds.count("call.reconnecting") == 1


async def test_everything_is_restarted_one_after_the_other_and_nobody_notices(deployment: Deployment) -> None:
    """Every edge and every instance, with calls that run and a customer that goes on asking."""
    _, key = await deployment.create_project("rolling")
    answered, failed = 0, []
    async with NumberedBackend().run() as backend, AsyncClient(deployment.api_urls, key) as client:

        async def customer() -> None:
            nonlocal answered
            while True:
                try:
                    call = await client.create_call(backend.url)
                    await client.get_call(call["id"])
                    await client.end_call(call["id"])
                    answered += 3
                except Exception as error:  # noqa: BLE001  that none is raised is what is shown
                    failed.append(error)
                await asyncio.sleep(0.05)

        async with talking(client, backend, "us-east") as talks, stalled() as stall:
            asking = asyncio.create_task(customer())
            for name, region in deployment.regions.items():
                region.edge.send_signal(signal.SIGTERM)
                await until(lambda edge=region.edge: edge.poll() is not None, f"the edge of {name} stopped")
                await restored(deployment)
            for api in list(deployment.apis):
                api.send_signal(signal.SIGTERM)
                await until(lambda api=api: api.poll() is not None, "the instance stopped")
                await restored(deployment)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert not failed and answered
            for talk in talks:
                assert not talk.caller.lost and talk.caller.gaps
                assert {g.reason for g in talk.caller.gaps} == {"planned"}
                # a frame for each move; on a machine that kept this very loop waiting, as many as were due meanwhile
                most = len(talk.caller.gaps) * (1 + int(stall.worst_s / 0.02))
                assert len(talk.ends.lost_up) <= most and len(talk.ends.lost_down) <= most
        for talk in talks:
            events = await told(client, talk.id)
            assert check_events(await client.get_call(talk.id), events) == []


@dataclass(slots=True)
class Stall:
    """The longest that this process was kept from running when it was due."""

    worst_s: float = 0.0


@asynccontextmanager
async def stalled() -> AsyncIterator[Stall]:
    stall, loop = Stall(), asyncio.get_running_loop()

    def look(due_s: float) -> None:
        nonlocal handle
        stall.worst_s = max(stall.worst_s, loop.time() - due_s)
        handle = loop.call_at(loop.time() + 0.02, look, loop.time() + 0.02)

    handle = loop.call_soon(look, loop.time())
    try:
        yield stall
    finally:
        handle.cancel()


async def restored(deployment: Deployment) -> None:
    await deployment.mend()
    async with deployment.operator() as operator:
        await deployment.until_healthy(operator)


async def test_a_call_whose_standby_is_lost_is_handed_another_and_lives_by_it(deployment: Deployment) -> None:
    """Its only standby dies, another region comes back; the ticket comes over the live connection before it is needed."""
    _, key = await deployment.create_project("standbys")
    async with (
        NumberedBackend().run() as backend,
        AsyncClient(deployment.api_urls, key) as client,
        deployment.operator() as operator,
    ):
        (await operator.post("/admin/v1/regions/ap-south/cordon")).raise_for_status()

        async def placed_so() -> bool:
            """As every instance sees the fleet by now."""
            for url in deployment.api_urls:
                async with AsyncClient([url], key) as one:
                    made = await one.create_call(backend.url, latencies=[{"region": "us-east", "rtt_ms": 5}])
                    await one.end_call(made["id"])
                if [s["region"] for s in made["placement"]["standbys"]] != ["eu-west"]:
                    return False
            return True

        await until(placed_so, "a call with one standby")
        async with talking(client, backend, "us-east", 1) as [talk]:
            named = [g.region for g, _ in talk.caller._tickets._grants.values()]
            assert set(named) == {"us-east", "eu-west"}
            deployment.regions["eu-west"].edge.kill()
            (await operator.post("/admin/v1/regions/ap-south/uncordon")).raise_for_status()

            def handed() -> bool:
                return any(g.region == "ap-south" for g, _ in talk.caller._tickets._grants.values())

            await until(handed, "a ticket that names the region that is there")
            deployment.regions["us-east"].edge.kill()
            await until(lambda: talk.region == "ap-south", "the takeover")
            heard = max(talk.ends.heard)
            await until(lambda: max(talk.ends.heard) > heard + 25, "the agent goes on")
        events = await told(client, talk.id)
        assert check_events(await client.get_call(talk.id), events) == []
        assert [e["data"]["reason"] for e in events if e["type"] == "call.reconnecting"] == ["closed"]
