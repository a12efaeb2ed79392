"""The gap that a caller hears when the AI backend that speaks to it dies. Part of the family failover.

From the last frame of the dead backend to the first of the next one's audio, both as they arrive at the caller: a tone whose
bytes say which process plays it, so that neither the edge's own sound nor what it still had of the dead one counts as the next.
Three backend processes share a port, as behind a load balancer, so that another one is there to be dialled; one that was killed
is started again beside them. ``restart``: there is one process, and it is started again as soon as it has died.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.bench.report import Figure
from tests.bench.support import deployed, quantile
from tests.bench.tone_process import voice_of
from voxplane import AsyncCaller, AsyncClient, Frame

KILLS = 20
OTHERS = 5
RESTARTS = 5
PROCESSES = 3
FRAME = b"\xff" * 160
DEADLINE_S = 20.0
AWAY_S = 10.0


class Backends:
    """Processes on one port, and which of them has a call."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.by_call: dict[str, asyncio.subprocess.Process] = {}
        self._running: dict[int, tuple[asyncio.subprocess.Process, asyncio.Task[None]]] = {}

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.tone_process", str(self.port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert "ready" in json.loads(await process.stdout.readline())
        self._running[process.pid] = process, asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.by_call[json.loads(line)["call"]] = process

    async def end(self, call: str, how: str) -> int:
        """Ends the socket of this call; the process that had it."""
        process = self.by_call[call]
        if how == "kill":
            del self._running[process.pid]
            os.kill(process.pid, signal.SIGKILL)
        else:
            assert process.stdin is not None
            process.stdin.write(how.encode() + b"\n")
        return process.pid

    async def stop(self) -> None:
        for process, reading in self._running.values():
            process.kill()
            await process.wait()
            reading.cancel()


@asynccontextmanager
async def backends(count: int) -> AsyncIterator[Backends]:
    made = Backends()
    try:
        for _ in range(count):
            await made.start()
        yield made
    finally:
        await made.stop()


async def measure(*, full: bool) -> list[Figure]:
    times = 8 if full else 1
    async with deployed(regions=1) as deployment:
        _, key = await deployment.create_project("bench")
        async with AsyncClient(deployment.api_urls, key) as client:
            async with backends(PROCESSES) as many:
                kills = [await one(client, many, "kill", i) for i in range(KILLS * times)]
                resets = [await one(client, many, "reset", i) for i in range(OTHERS * times)]
                closes = [await one(client, many, "1011", i) for i in range(OTHERS * times)]
            async with backends(1) as single:
                restarts = [await one(client, single, "kill", i) for i in range(RESTARTS * times)]
    how = (
        f"{len(kills)} SIGKILLs, {len(resets)} resets (max {max(resets):.0f} ms), "
        f"{len(closes)} closes with 1011 (max {max(closes):.0f} ms); two more processes on the port"
    )
    every = kills + resets + closes
    return [
        Figure(family="failover", name="failover.backend_crash_p50_ms", value=quantile(every, 0.5), unit="ms", how=how),
        Figure(family="failover", name="failover.backend_crash_p99_ms", value=quantile(every, 0.99), unit="ms", how=how,
               target=1_500.0, at_most=True),
        Figure(family="failover", name="failover.backend_restart_p50_ms", value=quantile(restarts, 0.5), unit="ms",
               how=f"{len(restarts)} SIGKILLs of the only process, started again at once; longest {max(restarts):.0f} ms"),
    ]  # fmt: skip


async def one(client: AsyncClient, made: Backends, how: str, number: int) -> float:
    """A call, the end of its backend, the gap in milliseconds."""
    call = await client.create_call(made.url)
    async with (
        AsyncCaller(call["ticket"], encoding="mulaw", sample_rate=8_000, client=client) as caller,
        asyncio.timeout(DEADLINE_S),
    ):
        speaking = asyncio.create_task(speak(caller))
        try:
            # another moment of the frame's and the snapshot's rhythm each time
            for _ in range(30 + number % 37):
                last = await caller.receive()
            assert last is not None
            pid = await made.end(call["id"], how)
            starting = asyncio.create_task(made.start()) if how == "kill" else None
            try:
                async with asyncio.timeout(AWAY_S):
                    gap_ms = await gap(caller, last, voice_of(pid), same=how != "kill")
            except TimeoutError:
                # it stands among the figures as what it was at the least
                gap_ms = AWAY_S * 1000
            if starting is not None:
                await starting
        finally:
            speaking.cancel()
            with suppress(asyncio.CancelledError):
                await speaking
        assert not caller.gaps, "the caller stays where it is"
        await caller.hangup()
    return gap_ms


async def gap(caller: AsyncCaller, last: Frame, dead: bytes, *, same: bool) -> float:
    """Milliseconds between two frames of backends: the last of one utterance, and the first of the next. `last`: what was heard
    before. `same`: the process that has closed the socket may be given the next one."""
    async for frame in caller.frames():
        if frame.filler:
            continue
        if frame.utterance > last.utterance:
            assert same or frame.samples[:2] != dead
            return (frame.at_s - last.at_s) * 1000
        last = frame
    raise AssertionError("the call has ended")


async def speak(caller: AsyncCaller) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        await caller.send(FRAME)
        due += 0.02
        await asyncio.sleep(max(0.0, due - loop.time()))
