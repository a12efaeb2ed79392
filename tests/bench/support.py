"""What benchmarks share: a deployment in a folder that vanishes, a receiver that costs little, order statistics."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder

IDLE_LOOK_S = 0.4
IDLE_SHARE = 0.1
ANSWER_WITHIN_S = 60.0


@asynccontextmanager
async def deployed(*, regions: int, instances: int = 1, **more: Any) -> AsyncIterator[Deployment]:
    """Engines with fsync on, as `voxplane up` starts them."""
    folder = temporary_folder("voxplane-bench")
    try:
        async with Deployment(folder, places=PLACES[:regions], instances=instances, **more) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class Receiver:
    """A webhook endpoint that answers 204 to everything and looks at nothing."""

    url: str = ""
    count: int = 0

    async def begins(self, within_s: float) -> None:
        """Returns once something has come."""
        async with asyncio.timeout(within_s):
            while not self.count:
                await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(content_length(head))
                self.count += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    got = Receiver()
    server = await asyncio.start_server(got.serve, "127.0.0.1", 0)
    got.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield got
    finally:
        server.close()


async def idle(pids: list[int], within_s: float = 30.0) -> None:
    """Returns once these processes have let the processor be, or the time is up: then what is measured next suffers."""
    before, loop = cpu_s(pids), asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while loop.time() < deadline:
        await asyncio.sleep(IDLE_LOOK_S)
        now = cpu_s(pids)
        if now - before < IDLE_SHARE * IDLE_LOOK_S:
            return
        before = now


def cpu_s(pids: list[int]) -> float:
    """Processor time that these processes have used; nothing of one that is gone."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family_cpu_s(pid: int) -> float:
    """The same of a process and its children, those included that have ended: a database and its backends."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    running = cpu_s([pid, *map(int, children)])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return running + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def stdin() -> asyncio.StreamReader:
    """A load generator's orders, line by line."""
    reader = asyncio.StreamReader(limit=1 << 22)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def say(message: dict[str, Any]) -> None:
    """A load generator's answer."""
    print(json.dumps(message), flush=True)


@dataclass(slots=True)
class Generator:
    """A load generator in a process of its own: one line of JSON there, one back."""

    process: asyncio.subprocess.Process

    async def tell(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()

    async def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(ANSWER_WITHIN_S):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended: see above")
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        await self.tell(command)
        return await self.answer()


@asynccontextmanager
async def generator(module: str, *arguments: str) -> AsyncIterator[Generator]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=1 << 22,
    )  # fmt: skip
    try:
        yield Generator(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
