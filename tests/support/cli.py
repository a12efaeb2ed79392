"""``voxplane`` as a test types it, in a process of its own or in this one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from app.cli.main import app

ROOT = Path(__file__).parents[2]
WITHIN_S = 60


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


async def begin(*words: str, **env: str) -> asyncio.subprocess.Process:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VOXPLANE_", "DATABASE_", "REDIS_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", *words, cwd=ROOT, env=kept | {"VOXPLANE_DATA": "/nonexistent"} | env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def voxplane(*words: str, **env: str) -> Done:
    process = await begin(*words, **env)
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


def invoke(*words: str, **env: str) -> Done:
    """The same without a process of its own, for what ends at once."""
    unset = {k: None for k in os.environ if k.startswith(("VOXPLANE_", "DATABASE_", "REDIS_"))}
    result = CliRunner().invoke(app, words, env={**unset, "VOXPLANE_DATA": "/nonexistent", **env})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


async def until_says(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(WITHIN_S):
        while words not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
    return said
