"""What an owner of a call has carried is told once more when it carries it no longer, whoever has the call then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from regions.wire.ids import CALL, encode, uuid7
from regions.wire.uplink import AppendStatus
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge
from voxplane import AsyncCaller

NAME = encode(CALL, uuid7(1, 2))
SILENCE = b"\xff" * 160


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[tuple[LoneEdge, AsyncCaller]]:
    """Audio has gone to the backend."""
    async with (
        lone_edge(folder) as edge,
        Backend().run() as backend,
        AsyncCaller(edge.ticket(backend.url, call=NAME), encoding="mulaw", sample_rate=8_000) as caller,
    ):
        await until(lambda: any(m["event"] == "media" for m in backend.got), "the backend's audio")
        await caller.send(SILENCE)
        yield edge, caller


def last_words(edge: LoneEdge) -> list[dict[str, Any]]:
    return [data for data in edge.log.of("call.quality") if data.get("final")]


def whole(usage: dict[str, Any]) -> bool:
    return all(usage[name] > 0 for name in ("caller_ms", "agent_ms", "agent_out_bytes", "caller_out_bytes"))


async def test_the_final_event_has_it_and_nothing_follows(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, caller):
        await caller.hangup()
        await until(lambda: edge.log.of("call.ended"), "the end")
        assert whole(edge.log.of("call.ended")[0]["usage"])
        assert last_words(edge) == []


async def test_who_is_told_that_the_call_has_ended_says_it_alone(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, _):
        [session] = edge.calls.sessions
        edge.calls.end(NAME, "ended_by_api")
        assert [e.type for e in session.outbox.unacked] == ["call.quality"], "what else was waiting is void"
        await until(lambda: last_words(edge), "the last word")
        assert whole(last_words(edge)[0]["usage"])
        assert edge.log.of("call.ended") == []


async def test_who_is_succeeded_says_it_once_and_is_done_with_it(tmp_path: Path) -> None:
    """The log answers `fenced` again: then it is kept as late, and nothing more is sent."""
    async with talking(tmp_path) as (edge, _):
        [session] = edge.calls.sessions
        fenced = AppendStatus(call=NAME, epoch=1, status="fenced", durable_n=0, seq=9)
        edge.log._take = lambda _: None  # type: ignore[method-assign]
        session.settled(fenced)
        [word] = session.outbox.unacked
        assert (word.type, session.outbox.run()) == ("call.quality", [word])
        session.settled(fenced)
        assert session.outbox.closed and session.outbox.settled


async def test_an_owner_that_was_refused_says_nothing_more(tmp_path: Path) -> None:
    async with talking(tmp_path) as (edge, _):
        [session] = edge.calls.sessions
        session.settled(AppendStatus(call=NAME, epoch=1, status="refused", durable_n=0, seq=9))
        assert session.outbox.settled
        await asyncio.sleep(0)
        assert last_words(edge) == []
