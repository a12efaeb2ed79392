"""A process of our own that takes orders: one line of JSON there, one back. It ends when its orders end, however they end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

ANSWER_WITHIN_S = 30.0


@dataclass(slots=True)
class Child:
    process: asyncio.subprocess.Process
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Several may ask at once: each gets its own answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._asking, asyncio.timeout(ANSWER_WITHIN_S):
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            await self.process.stdin.drain()
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("the child has ended: see above")
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def child(module: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def orders() -> asyncio.StreamReader:
    """In the child: what it is told, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def answer(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)
