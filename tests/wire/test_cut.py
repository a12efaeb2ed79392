"""A call that a drill cuts, between two real edges: its caller and its backend see what a death looks like, the edge forgets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from regions.wire.events import Origin
from regions.wire.uplink import Cut
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge
from voxplane import AsyncCaller

CALL = "call_1"


@asynccontextmanager
async def two_edges(folder: Path) -> AsyncIterator[tuple[LoneEdge, LoneEdge]]:
    async with lone_edge(folder, "a") as a, lone_edge(folder, "b", a.key) as b:
        yield a, b


async def speak(caller: AsyncCaller) -> None:
    while not caller.over:
        await caller.send(b"\xff" * 160)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["closed", "silent"])
async def test_the_caller_goes_on_at_its_standby_and_the_log_calls_it_a_loss(
    tmp_path: Path, how: str
) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        ticket = a.ticket(backend.url, epochs=(1, 2), edges=(a, b))
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            speaking = asyncio.create_task(speak(caller))
            await until(lambda: a.log.of("agent.connected"), "the backend")
            written = len(a.log.events)
            said = a.calls.cut(CALL, 1, how)
            assert said.held and said.at_ms and said.acked_seq == 9
            await until(lambda: caller.epoch == 2 and len(backend.starts) == 2, "the standby")
            [taken] = b.log.of("call.reconnecting")
            assert taken["from_epoch"] == 1 and taken["reason"] in ("closed", "silent")
            assert (taken["reason"] == "silent") == (how == "silent")
            await until(lambda: b.log.of("agent.connected"), "its backend")
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(20):
                    await backend.sockets[0].recv()
            assert closed.value.rcvd is None, "no farewell"
            assert not any(m["event"] == "stop" for m in backend.got)
            assert len(a.log.events) == written, "nothing more is written"
            assert not a.calls.held() and a.calls.deny(CALL, 1), "it holds nothing"
            assert caller.end_reason is None and not caller.lost
            assert a.calls.cut(CALL, 1, how) == said, "a report that got lost is given again"
            assert a.calls.cut(CALL, 2, how) == Cut(call=CALL, epoch=2, held=False)
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
            await caller.hangup()


async def test_only_the_chosen_call_is_cut_and_a_call_of_none_is_not_held(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        staying = a.ticket(backend.url, call="call_2", epochs=(1, 2), edges=(a, b))
        going = a.ticket(backend.url, epochs=(1, 2), edges=(a, b))
        async with (
            AsyncCaller(staying, encoding="mulaw", sample_rate=8_000) as stays,
            AsyncCaller(going, encoding="mulaw", sample_rate=8_000) as goes,
        ):
            tasks = [asyncio.create_task(speak(c)) for c in (stays, goes)]
            await until(lambda: len(backend.starts) == 2, "both backends")
            assert not a.calls.cut("call_9", 1, "closed").held
            assert not a.calls.cut(CALL, 7, "closed").held
            assert a.calls.cut(CALL, 1, "closed").held
            await until(lambda: goes.epoch == 2, "the standby")
            assert stays.epoch == 1 and [h.call for h in a.calls.held()] == ["call_2"]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await stays.hangup()
            await goes.hangup()


async def test_what_was_not_acknowledged_is_named_and_never_sent(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (a, b), Backend().run() as backend:
        ticket = a.ticket(backend.url, epochs=(1, 2), edges=(a, b))
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            speaking = asyncio.create_task(speak(caller))
            await until(lambda: a.log.of("agent.connected"), "the backend")
            a.log.notify = lambda session: None  # type: ignore[method-assign]
            await caller.dtmf("5")
            [outbox] = a.calls.outboxes
            await until(lambda: not outbox.settled, "an event that the log has not")
            written = outbox.last_n
            said = a.calls.cut(CALL, 1, "closed")
            assert said.unacked == [Origin(epoch=1, n=written)]
            assert outbox.settled and outbox.run() == [], "it is never sent from here"
            await until(lambda: b.log.of("agent.connected"), "the standby")
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
            await caller.hangup()


async def test_a_silent_edge_does_not_even_answer_a_close(tmp_path: Path) -> None:
    async with (
        lone_edge(tmp_path) as edge,
        Backend().run() as backend,
        edge.caller(edge.ticket(backend.url)) as caller,
    ):
        await caller.hear("attached")
        assert edge.calls.cut(CALL, 1, "silent").held
        await caller.socket.close()
        assert caller.socket.close_code == 1006, "as if nobody was there"
