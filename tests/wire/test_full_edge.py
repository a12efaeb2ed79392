"""A full edge has the last word: never one call above its capacity, and every caller is told where to go instead."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from regions.wire.observations import Reason
from tests.support.lone_edge import Backend, Caller, LoneEdge, lone_edge
from voxplane import AsyncCaller, CallRefused

CALLERS = 200


@asynccontextmanager
async def edges(folder: Path, **capacities: int) -> AsyncIterator[list[LoneEdge]]:
    async with AsyncExitStack() as stack:
        made: list[LoneEdge] = []
        for name, capacity in capacities.items():
            key = made[0].key if made else None
            edge = await stack.enter_async_context(lone_edge(folder, name, key))
            edge.calls.context.settings = replace(edge.calls.context.settings, capacity_calls=capacity)
            made.append(edge)
        yield made


def ticket(made: list[LoneEdge], url: str, call: str) -> str:
    return made[0].ticket(url, call=call, epochs=tuple(range(1, len(made) + 1)), edges=tuple(made))


def owned(edge: LoneEdge) -> int:
    return len(edge.calls.held())


async def follow(stack: AsyncExitStack, first: LoneEdge, ticket: str, seen: Any) -> str:
    """Attaches as docs/reference/media.md says, and goes where it is sent: the edge's name, or the refusal's code."""
    url, epoch, mode, reason = first.url + "/v1/media", 1, "attach", {}
    while True:
        socket = await connect(url, ping_interval=None, compression=None)
        stack.callback(socket.transport.abort)
        caller = Caller(socket)
        await caller.say("attach", ticket=ticket, epoch=epoch, mode=mode, **reason)
        said = await caller.hear("attached", "refused")
        seen()
        if said["type"] == "attached":
            return str(said["edge"])
        if "next_url" not in said:
            return str(said["code"])
        assert said["code"] == "full"
        assert said["next_epoch"] == epoch + 1
        url, epoch, mode, reason = said["next_url"], said["next_epoch"], "take", {"reason": "refused"}


async def ringing(*_: Any, **__: Any) -> Any:
    """A backend that neither answers nor is away: no call ends by it."""
    await asyncio.Event().wait()


async def test_two_hundred_at_once_fill_an_edge_to_its_capacity_and_not_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regions.edge.lease.LEASE_MS", 600_000)
    async with edges(tmp_path, a=20, b=100, c=60) as made, AsyncExitStack() as stack:
        most: Counter[str] = Counter()
        failed: list[str] = []

        def told(call: str, edge: str, reason: Reason) -> None:
            failed.append(edge)

        def seen() -> None:
            for edge in made:
                most[edge.name] = max(most[edge.name], owned(edge))

        for edge in made:
            edge.calls.context.failed = told
            edge.calls.context.dial = ringing
        tickets = [ticket(made, "ws://127.0.0.1:9/", f"call_{i}") for i in range(CALLERS)]
        ended = Counter(await asyncio.gather(*(follow(stack, made[0], t, seen) for t in tickets)))
        assert ended == {"a": 20, "b": 100, "c": 60, "full": 20}
        assert most == {"a": 20, "b": 100, "c": 60}
        assert [e.calls.refused for e in made] == [180, 80, 20]
        assert failed == [], "an edge that is full has failed nobody"
        assert not any(e.errors for e in made)
        answered = [len(e.log.of("call.answered")) for e in made]
        assert answered == [20, 100, 60], "a standby that is taken so begins the call"


async def test_the_client_goes_on_at_once_and_says_so_when_every_edge_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edges(tmp_path, a=1, b=1, c=1) as made, Backend().run() as backend, AsyncExitStack() as stack:
        callers = []
        for i, edge in enumerate(made):
            caller = AsyncCaller(ticket(made, backend.url, f"call_{i}"), encoding="mulaw", sample_rate=8_000)
            callers.append(await stack.enter_async_context(caller))
            assert (caller.region, caller.epoch) == (edge.name, i + 1)
        # it does not wait for a ticket that nobody can give
        monkeypatch.setattr("voxplane.caller.BEGIN_WITHIN_S", 600.0)
        with pytest.raises(CallRefused) as refused:
            async with (
                asyncio.timeout(30),
                AsyncCaller(ticket(made, backend.url, "call_9"), encoding="mulaw", sample_rate=8_000),
            ):
                pass
        assert refused.value.code == "full"
        for caller in callers:
            await caller.hangup()


async def test_a_call_that_is_owned_has_its_place_and_one_that_was_let_go_has_none(tmp_path: Path) -> None:
    async with edges(tmp_path, a=1) as [a], Backend().run() as backend:
        twice = a.ticket(backend.url, epochs=(1, 2), edges=(a, a))
        async with a.caller(twice) as first:
            await first.hear("attached")
            async with a.caller(twice, epoch=2, mode="take") as second:
                await second.hear("attached")
                assert owned(a) == 1
                session = a.calls.session("call_1", 2)
                assert session is not None
                session.cut(silent=False)
            higher, resume = a.ticket(backend.url, epochs=(3,)), {"epoch": 2, "n": 1}
            async with a.caller(higher, epoch=3, mode="prepare", resume=resume) as again:
                await again.hear("prepared")
                async with a.caller(a.ticket(backend.url, call="call_2")) as other:
                    await other.hear("attached")
                    await again.say("take", resume=resume, reason="closed")
                    assert (await again.hear("attached", "refused")).get("code") == "full"
                    assert owned(a) == 1
