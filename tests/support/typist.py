"""Types commands one after the other in one process of its own: a command takes the main thread, which a test's loop has."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from tests.support.cli import ROOT, WITHIN_S, Done, invoke


class Typist:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def types(self, *words: str, **env: str) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, env]).encode() + b"\n")
        async with asyncio.timeout(WITHIN_S):
            return Done(**json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def typist() -> AsyncIterator[Typist]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.typist", cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 22
    )  # fmt: skip
    try:
        yield Typist(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def main() -> None:
    out = sys.stdout
    for line in sys.stdin:
        words, env = json.loads(line)
        out.write(json.dumps(asdict(invoke(*words, **env))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
