"""What an edge sees of others, over real sockets: listeners that answer, refuse, are silent or talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from app.fleet.frames import read_frame
from regions.edge import neighbours as module
from regions.edge.neighbours import NeighbourWatch
from regions.edge.probe_gate import ProbeGate
from regions.wire.observations import FAILURES_MAX, Neighbour, Neighbours, Observed
from tests.support.edges import until
from tests.support.lone_edge import Backend, lone_edge

EDGES = tuple(f"edge_0000000000000000000000000{n}" for n in range(4))
CALL = "call_" + "0" * 26
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listener(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(line: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(line)
        writer.close()

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read()
    finally:
        writer.close()


def at(edge: str, port: int) -> Neighbour:
    return Neighbour(edge=edge, http_url=f"http://127.0.0.1:{port}", media_url=f"ws://127.0.0.1:{port}")


@asynccontextmanager
async def watching(*targets: Neighbour) -> AsyncIterator[tuple[NeighbourWatch, list[Observed]]]:
    said: list[Observed] = []
    watch = NeighbourWatch(said.append)
    watch.use(Neighbours(targets=list(targets), every_s=0.05))
    task = asyncio.create_task(watch.run())
    try:
        yield watch, said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def newest(said: list[Observed], kind: str = "http") -> dict[str, str]:
    return {p.edge: p.outcome for p in said[-1].probes if p.listener == kind} if said else {}


async def test_outcomes_are_told_apart(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.3)
    monkeypatch.setattr(module, "OVERRUN_MAX_S", 30.0)
    async with (
        listener(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as good,
        listener(answering(b"HTTP/1.1 500 Broken\r\n\r\n")) as broken,
        listener(silent) as mute,
    ):
        targets = [at(e, p) for e, p in zip(EDGES, (good, broken, mute, closed_port), strict=True)]
        expected = dict(zip(EDGES, ("ok", "error", "timeout", "refused"), strict=True))
        async with watching(*targets) as (_, said):
            await until(lambda: newest(said) == expected, "every outcome")
            await until(
                lambda: all(p.streak >= 3 for p in said[-1].probes if p.listener == "http"), "streaks"
            )
            reached = {p.edge: p.reached for p in said[-1].probes if p.listener == "http"}
    assert reached == {e: o == "ok" for e, o in expected.items()}
    read = read_frame(msgspec.json.encode(said[-1]).decode())
    assert isinstance(read, Observed)


async def test_a_frame_comes_back_through_a_media_listener_and_nonsense_does_not(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, listener(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as port:
        good = Neighbour(edge=EDGES[0], http_url=f"http://127.0.0.1:{port}", media_url=edge.url)
        async with watching(good, at(EDGES[1], port)) as (_, said):
            await until(lambda: newest(said, "media") == {EDGES[0]: "ok", EDGES[1]: "error"}, "echoes")


async def test_an_edge_that_is_probed_too_much_is_there(tmp_path: Path) -> None:
    """Else whoever floods one edge from a neighbour's network would have it evacuated."""
    async with (
        lone_edge(tmp_path) as edge,
        listener(answering(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")) as port,
    ):
        gate = edge.calls.context.probing.gate = ProbeGate(sockets_per_network=0)
        flooded = Neighbour(edge=EDGES[0], http_url=f"http://127.0.0.1:{port}", media_url=edge.url)
        async with watching(flooded) as (_, said):
            await until(lambda: gate.refused["network_sockets"] >= 2, "looks at the media listener")
            await until(lambda: newest(said, "media") == newest(said) == {EDGES[0]: "ok"}, "both answer")
            assert all(p.outcome == "ok" for report in said for p in report.probes)


async def test_a_process_that_dies_is_refused_and_was_reached(closed_port: int) -> None:
    async with (
        listener(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as port,
        watching(at(EDGES[0], port)) as (watch, said),
    ):
        await until(lambda: newest(said) == {EDGES[0]: "ok"}, "reached")
        watch.use(Neighbours(targets=[at(EDGES[0], closed_port)], every_s=0.05))
        await until(lambda: newest(said) == {EDGES[0]: "refused"}, "refused")
        assert all(p.reached for p in said[-1].probes)
        watch.use(Neighbours(targets=[], every_s=0.05))
        await until(lambda: said[-1].probes == [], "forgotten")


async def test_who_has_not_asked_is_not_told() -> None:
    async with watching() as (watch, said):
        watch.use(None)
        watch.failed(CALL, EDGES[0], "silent")
        count = len(said)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(said) == count
        assert [f.call for f in watch.observed().failures] == [CALL]


async def test_failures_are_bounded_and_counted_once_per_call() -> None:
    async with watching() as (watch, _):
        for n in range(FAILURES_MAX + 50):
            watch.failed(f"call_{n:026d}", EDGES[0], "closed")
            watch.failed(f"call_{n:026d}", EDGES[0], "silent")
        failures = watch.observed().failures
    assert len(failures) == FAILURES_MAX
    assert {f.reason for f in failures} == {"silent"}
    assert len({f.call for f in failures}) == FAILURES_MAX


async def test_a_take_says_whom_the_caller_has_left(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        edge.calls.context.failed = lambda call, left, reason: told.append((call, left, reason))
        ticket = edge.ticket(backend.url, epochs=(1, 2, 3))
        async with edge.caller(ticket) as first:
            await first.hear("attached")
        async with edge.caller(ticket, epoch=2, mode="prepare", resume={"epoch": 1}) as second:
            await second.hear("prepared")
            assert told == []
            await second.say("take", resume={"epoch": 1}, reason="silent")
            await second.hear("attached")
            assert told == [("call_1", "edge_1", "silent")]
        async with edge.caller(ticket, epoch=3, mode="prepare", resume={"epoch": 2}) as third:
            await third.hear("prepared")
            await third.say("take", resume={"epoch": 2}, reason="planned")
            await third.hear("attached")
        assert len(told) == 1
