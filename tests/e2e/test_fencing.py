"""Who has lost a call says nothing more of it: an edge that is cut off, and a process that was stopped and continued.

Real processes, real signals. Their callers and backends keep the sockets that they have left, and look at what still comes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from app.local.folder import temporary_folder
from regions.edge.clock import lease_ms
from regions.wire import ids
from regions.wire.media import LEASE_MS
from tests.chaos.deployment import Wired
from tests.chaos.network import running_network
from tests.support.frank_caller import BackendSocket, FrankBackend, FrankCaller, frank_caller
from voxplane import AsyncClient
from voxplane.grants import read_grants

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WITHIN_S = 40.0
FLOWS = 25
"""So many frames show that audio flows."""


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Wired]:
    folder = temporary_folder("voxplane-e2e-fencing")
    try:
        async with running_network() as network, Wired(folder, network) as running:
            yield running  # type: ignore[misc]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Scene:
    """One project, its backend, and the sockets of its callers, which stay open until the end."""

    def __init__(self, client: AsyncClient, backend: FrankBackend, stack: AsyncExitStack, dsn: str) -> None:
        self.client = client
        self.backend = backend
        self._stack = stack
        self._dsn = dsn

    async def call(self, region: str) -> tuple[FrankCaller, BackendSocket]:
        """In progress there, with audio both ways."""
        made = await self.client.create_call(self.backend.url, regions={"pin": region})
        caller = await self.at(made["ticket"], 1)
        await caller.attach()
        return caller, await self.flowing(caller)

    async def at(self, ticket: str, epoch: int) -> FrankCaller:
        """A socket to the edge that was granted the epoch."""
        grant = next(g for g in read_grants(ticket)[1] if g.epoch == epoch)
        return await self._stack.enter_async_context(frank_caller(grant.url, ticket, epoch))

    async def take(self, old: FrankCaller) -> FrankCaller:
        """Goes on at the next epoch; the old socket stays."""
        new = await self.at(old.ticket, old.epoch + 1)
        await new.attach("take", old.resume())
        return new

    async def flowing(self, caller: FrankCaller) -> BackendSocket:
        call = read_grants(caller.ticket)[0]
        await until(lambda: self.backend.of(call, caller.epoch), "a backend")
        socket = self.backend.of(call, caller.epoch)
        assert socket is not None
        heard, got = len(caller.frames), len(socket.got)
        await until(
            lambda: len(caller.frames) > heard + FLOWS and socket.got.count("media") > got + FLOWS, "audio"
        )
        return socket

    async def events(self, caller: FrankCaller) -> list[dict[str, Any]]:
        return await self.client.events_of(read_grants(caller.ticket)[0])

    async def late(self, caller: FrankCaller) -> int:
        """How many events came from somebody who did not own the call any more."""
        connection = await asyncpg.connect(self._dsn)
        try:
            call = ids.decode(ids.CALL, read_grants(caller.ticket)[0])
            return int(
                await connection.fetchval("select count(*) from vx.late_events where call_id = $1", call)
            )
        finally:
            await connection.close()

    async def finish(self, caller: FrankCaller) -> list[dict[str, Any]]:
        """Hangs up; the events of the call once it has ended, in one line of owners."""
        await caller.send("hangup")

        async def over() -> bool:
            return (await self.client.get_call(read_grants(caller.ticket)[0]))["state"] == "completed"

        await until(over, "the end")
        events = await self.events(caller)
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        epochs = [e["epoch"] for e in events]
        assert epochs == sorted(epochs)
        assert events[-1]["data"]["end_reason"] == "caller_hung_up"
        return events


@pytest.fixture
async def scene(deployment: Wired) -> AsyncIterator[Scene]:
    _, key = await deployment.create_project("fencing")
    async with (
        FrankBackend().run() as backend,
        AsyncClient(deployment.api_urls, key) as client,
        AsyncExitStack() as stack,
    ):
        yield Scene(client, backend, stack, deployment.database_url)


async def until(true: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                found = true()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


def digits(events: list[dict[str, Any]]) -> str:
    return "".join(e["data"]["digit"] for e in events if e["type"] == "dtmf.received")


async def test_an_edge_that_is_cut_off_goes_on_until_its_caller_has_moved_and_its_lease_is_over(
    deployment: Wired, scene: Scene
) -> None:
    old, first = await scene.call("us-east")
    links = [name for name in deployment.network.wires if name.startswith("us-east>")]
    await deployment.network.cut(links, "both")
    try:
        for _ in range(8):
            # longer than a lease that nobody renews
            assert await scene.flowing(old) is first, "it goes on, with the same backend"
        await old.send("dtmf", digit="1")
        await until(lambda: first.digits == "1", "the first digit")
        # what a successor needs is written now, and brings the digit before it into the caller's hands
        known = old.snapshot["n"]
        await first.tell("tool.called", {"id": "t1", "name": "look", "arguments": {}})
        await until(lambda: old.snapshot["n"] >= known + 2, "a snapshot with the digit and the tool call")
        await old.send("dtmf", digit="2")
        await until(lambda: first.digits == "12", "the second digit, of which only this edge knows")
        old.echoes = False
        new = await scene.take(old)
        second = await scene.flowing(new)
        await until(old.closed.is_set, "the old edge is mute")
        await until(first.closed.is_set, "the old backend's socket too")
        assert max(old.frames) - old.echoed <= LEASE_MS, "it spoke under its lease and no longer"
        assert first.acked == [], "a tool does not run where the log does not say so"
        assert (await scene.flowing(new)) is second
    finally:
        await deployment.network.heal(links)
    await until(lambda: scene.late(new), "what the old edge wrote comes when the network is back")
    events = await scene.finish(new)
    assert digits(events) == "1", "adopted once; what came too late takes no effect"
    assert [e["data"]["id"] for e in events if e["type"] == "tool.called"] == ["t1"]
    assert first.acked == []


async def test_a_process_that_was_stopped_and_goes_on_says_nothing(deployment: Wired, scene: Scene) -> None:
    moved, left = await scene.call("eu-west"), await scene.call("eu-west")
    edge = deployment.regions["eu-west"].edge
    os.kill(edge.pid, signal.SIGSTOP)
    try:
        stopped_ms = lease_ms()
        for caller, backend in (moved, left):
            # all of this lies in its sockets when it goes on, with fresh stamps among it
            await caller.send("dtmf", digit="7")
            await backend.tell("tool.called", {"id": "late", "name": "look", "arguments": {}})
            await backend.tell("turn.ended", {"role": "caller", "text": "too late"})
        new = await scene.take(moved[0])
        await scene.flowing(new)
        while lease_ms() - stopped_ms <= LEASE_MS:
            await asyncio.sleep(0.05)
        before = [(len(c.frames), len(c.said), len(b.got)) for c, b in (moved, left)]
    finally:
        os.kill(edge.pid, signal.SIGCONT)
    for caller, backend in (moved, left):
        await until(caller.closed.is_set, "the caller's old socket is closed")
        await until(backend.closed.is_set, "the backend's old socket is closed")
    assert [(len(c.frames), len(c.said), len(b.got)) for c, b in (moved, left)] == before
    await scene.flowing(new)
    again = await scene.take(left[0])
    await scene.flowing(again)
    for caller in (new, again):
        events = await scene.finish(caller)
        assert digits(events) == ""
        assert "tool.called" not in [e["type"] for e in events]
        assert [e["data"]["text"] for e in events if e["type"] == "turn.ended"] == ["hello", "hello"]
