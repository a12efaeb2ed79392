"""An utterance that a failure cuts goes on where the caller stopped hearing it, if its backend has named it."""

from __future__ import annotations

import array
import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.edges import until
from tests.support.lone_edge import LoneEdge, lone_edge
from voxplane import AsyncCaller

RATE_HZ = 16_000
STEP_MS = 100
LENGTH_MS = 4_000


def coded(from_ms: int) -> bytes:
    """The utterance from there on: each tenth of a second has a pitch of its own, so that what is heard says where it is from."""
    samples = array.array("h")
    for i in range(from_ms * RATE_HZ // 1000, LENGTH_MS * RATE_HZ // 1000):
        step = i * 1000 // RATE_HZ // STEP_MS
        samples.append(round(9_000 * math.sin(2 * math.pi * (300 + 50 * step) * i / RATE_HZ)))
    return samples.tobytes()


def step_of(frame: bytes) -> int:
    """Which tenth of a second 20 ms are from: the pitch that is loudest in them."""
    samples = array.array("h", frame)

    def power(hz: int) -> float:
        turn = 2 * math.pi * hz / RATE_HZ
        real = sum(s * math.cos(turn * i) for i, s in enumerate(samples))
        imaginary = sum(s * math.sin(turn * i) for i, s in enumerate(samples))
        return real * real + imaginary * imaginary

    return max(range(LENGTH_MS // STEP_MS), key=lambda step: power(300 + 50 * step))


class Backend:
    """Tells a story; told of a cut, it goes on there, or `forgets` that and says another thing, or is `silent`."""

    def __init__(self, *, forgets: bool = False, silent: bool = False) -> None:
        self.forgets, self.silent = forgets, silent
        self.starts: list[dict[str, Any]] = []
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Backend]:
        async with serve(self._socket, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _socket(self, socket: ServerConnection) -> None:
        try:
            async for message in socket:
                if isinstance(message, bytes) or json.loads(message)["type"] != "start":
                    continue
                start = json.loads(message)
                self.starts.append(start)
                cut = start.get("cut")
                if cut is None:
                    said = {"role": "agent", "text": "once upon a time", "words": []}
                    await socket.send(json.dumps({"type": "utterance", "id": "story"}))
                    await socket.send(json.dumps({"type": "transcript.final", "data": said}))
                    await socket.send(coded(0))
                elif self.silent:
                    continue
                elif self.forgets:
                    await socket.send(json.dumps({"type": "utterance", "id": "sorry"}))
                    await socket.send(coded(0)[:6_400])
                else:
                    await socket.send(json.dumps({"type": "utterance", **cut}))
                    await socket.send(coded(cut["offset_ms"]))
                await socket.send(json.dumps({"type": "turn.ended", "data": {"role": "agent"}}))
        except ConnectionClosed:
            return


@asynccontextmanager
async def two_edges(folder: Path) -> AsyncIterator[tuple[LoneEdge, LoneEdge]]:
    async with lone_edge(folder, "edge_1") as first, lone_edge(folder, "edge_2", first.key) as second:
        yield first, second


async def hear(caller: AsyncCaller, count: int, into: list[Any]) -> None:
    async with asyncio.timeout(20):
        while len(into) < count:
            frame = await caller.receive()
            assert frame is not None
            if not frame.filler:
                into.append(frame)


async def test_the_rest_is_heard_without_a_skip_and_nothing_counts_as_interrupted(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (first, second), Backend().run() as made:
        ticket = first.ticket(made.url, epochs=(1, 2), edges=(first, second), agent={"dialect": "native"})
        async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller:
            heard: list[Any] = []
            await hear(caller, 60, heard)
            for session in first.calls.sessions:
                session.cut(silent=False)
            await hear(caller, LENGTH_MS // 20, heard)
            await until(lambda: second.log.of("turn.ended"), "the story told")
            await caller.hangup()
        [_, again] = made.starts
        assert again["cut"]["id"] == "story"
        assert again["conversation"]["turns"] == []
        steps = [step_of(f.samples) for f in heard[1:]]
        offsets = [f.offset_ms for f in heard]
        assert offsets == list(range(0, LENGTH_MS, 20))
        assert (
            max(abs(step * STEP_MS - offset) for step, offset in zip(steps, offsets[1:], strict=True))
            < STEP_MS + 40
        )
        assert {f.utterance for f in heard} == {1}
        assert second.log.of("playback.started") == [{"utterance": 1, "offset_ms": again["cut"]["offset_ms"]}]
        assert second.log.of("turn.interrupted") == []
        [told] = [t for t in second.log.of("turn.ended") if t["role"] == "agent"]
        assert told["text"] == "once upon a time"
        assert second.errors == first.errors == []


async def test_another_utterance_instead_makes_it_one_that_was_interrupted(tmp_path: Path) -> None:
    async with two_edges(tmp_path) as (first, second), Backend(forgets=True).run() as made:
        ticket = first.ticket(made.url, epochs=(1, 2), edges=(first, second), agent={"dialect": "native"})
        async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller:
            heard: list[Any] = []
            await hear(caller, 60, heard)
            for session in first.calls.sessions:
                session.cut(silent=False)
            await until(lambda: second.log.of("playback.done"), "the apology")
            await caller.hangup()
        [cut] = second.log.of("turn.interrupted")
        assert (cut["utterance"], cut["offset_ms"]) == (1, made.starts[1]["cut"]["offset_ms"])
        assert second.log.of("playback.started") == [{"utterance": 2}]


async def test_a_backend_that_says_nothing_of_it_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regions.edge.floor.REST_WITHIN_MS", 100)
    async with two_edges(tmp_path) as (first, second), Backend(silent=True).run() as made:
        ticket = first.ticket(made.url, epochs=(1, 2), edges=(first, second), agent={"dialect": "native"})
        async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller:
            await hear(caller, 30, [])
            for session in first.calls.sessions:
                session.cut(silent=False)
            await until(lambda: second.log.of("turn.interrupted"), "it given up")
            assert second.log.of("playback.started") == []
            await caller.hangup()
