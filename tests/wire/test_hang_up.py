"""A backend ends its call over REST, as the edge is told of it: by the socket that it was given, and not by one that has died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from regions.edge.clock import wall_ms
from regions.edge.machine import Phase
from regions.edge.obeying import Obeying
from regions.wire.ids import CALL, encode, uuid7
from regions.wire.sids import read_call_sid
from regions.wire.uplink import AppendStatus, Command, Desired
from tests.support.edges import until
from tests.support.lone_edge import Backend, LoneEdge, lone_edge
from voxplane import AsyncCaller

ID = uuid7(1, 2)
NAME = encode(CALL, ID)
SOON_MS = 60_000


@asynccontextmanager
async def in_call(folder: Path) -> AsyncIterator[tuple[LoneEdge, Backend, AsyncCaller]]:
    """With its first socket opened."""
    async with lone_edge(folder) as edge, Backend().run() as backend:
        ticket = edge.ticket(backend.url, call=NAME)
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000) as caller:
            await until(lambda: backend.starts, "the backend's start")
            yield edge, backend, caller


def given(backend: Backend, socket: int) -> int:
    """The number in the sid that this one was told."""
    found = read_call_sid(backend.starts[socket]["callSid"])
    assert found is not None and found.call == ID
    return found.socket


def hang_up(edge: LoneEdge, socket: int, *, epoch: int = 1, left_ms: int = SOON_MS) -> None:
    """As the uplink hands it on."""
    body = {"epoch": str(epoch), "socket": str(socket), "until_ms": str(wall_ms() + left_ms)}
    command = Command(version=1, kind="hangup", call=NAME, body=body)
    assert Obeying().carry_out(Desired(commands=[command]), edge.calls).version == 1


def ended(edge: LoneEdge) -> bool:
    return any(s.phase is Phase.ENDED for s in edge.calls.sessions)


async def test_the_backend_that_is_there_ends_the_call(tmp_path: Path) -> None:
    async with in_call(tmp_path) as (edge, backend, _):
        hang_up(edge, given(backend, 0))
        await until(lambda: edge.log.of("call.ended"), "the end")
        assert edge.log.of("call.ended")[0]["end_reason"] == "agent_hung_up"
        await until(lambda: backend.got[-1]["event"] == "stop", "the goodbye")


async def test_one_whose_socket_has_died_does_not_and_the_next_one_does(tmp_path: Path) -> None:
    async with in_call(tmp_path) as (edge, backend, _):
        backend.sockets[0].transport.abort()
        await until(lambda: edge.log.of("agent.disconnected"), "its death")
        hang_up(edge, given(backend, 0))
        await until(lambda: len(backend.starts) == 2, "the second socket")
        hang_up(edge, given(backend, 0))
        assert not ended(edge)
        assert backend.starts[0]["callSid"] != backend.starts[1]["callSid"]
        hang_up(edge, given(backend, 1))
        await until(lambda: edge.log.of("call.ended"), "the end")


async def test_what_comes_too_late_or_of_another_owner_changes_nothing(tmp_path: Path) -> None:
    async with in_call(tmp_path) as (edge, backend, _):
        hang_up(edge, given(backend, 0), left_ms=-1)
        hang_up(edge, given(backend, 0), epoch=9)
        void = Command(version=1, kind="hangup", call=NAME, body={})
        Obeying().carry_out(Desired(commands=[void]), edge.calls)
        assert not ended(edge)


async def test_while_the_caller_is_on_its_way_to_another_edge_nobody_hangs_up(tmp_path: Path) -> None:
    async with (
        lone_edge(tmp_path, "a") as a,
        lone_edge(tmp_path, "b", a.key) as b,
        Backend().run() as backend,
        a.caller(a.ticket(backend.url, call=NAME, epochs=(1,), edges=(a,)), encoding="mulaw") as caller,
    ):
        await until(lambda: backend.starts, "the backend's start")
        a.calls.move(NAME, a.ticket(backend.url, call=NAME, epochs=(3,), edges=(b,)), 0)
        await caller.hear("move")
        await caller.say("ready", epoch=3)
        await caller.hear("go")
        hang_up(a, given(backend, 0))
        assert not ended(a)


async def test_a_call_that_is_over_in_the_log_ends_as_any_other_for_both_sides(tmp_path: Path) -> None:
    """As when it is erased, and the edge hears it first by what it writes: nobody is to look for another owner."""
    async with in_call(tmp_path) as (edge, backend, caller):
        [session] = edge.calls.sessions
        session.settled(
            AppendStatus(call=NAME, epoch=1, status="fenced", durable_n=0, seq=9, end_reason="erased")
        )
        await until(lambda: caller.over, "the caller's end")
        assert caller.end_reason == "erased"
        await until(lambda: any(m["event"] == "stop" for m in backend.got), "the backend's last message")
        await until(lambda: backend.sockets[0].close_code, "the backend's end")
        assert (backend.got[-1]["event"], backend.sockets[0].close_code) == ("stop", 1000)
