"""The offline example backends behind a real edge, on the kit and without it: real speech in, the answer in the log."""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.local.caller_script import Talker
from tests.support.edges import until
from tests.support.lone_edge import LoneEdge, lone_edge
from voxplane import AsyncCaller

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "order_status"
RATE_HZ = 16_000
ASKS = "what is the status of order one five eight"
REMEMBERS = "which order did i ask about"
WITHIN_S = 30.0


@asynccontextmanager
async def backend(program: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", EXAMPLE / program, "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            url = json.loads(await process.stdout.readline())["listening"]
        yield url
    finally:
        process.kill()
        await process.communicate()


async def spoken(text: str, folder: Path, voice: str) -> bytes:
    """PCM16 at 16 kHz."""
    out = folder / "line.wav"
    program = [sys.executable, "-W", "ignore", EXAMPLE / "synthesis.py", text, out, "--voice", voice]
    process = await asyncio.create_subprocess_exec(*program)
    assert await process.wait() == 0
    with wave.open(str(out)) as file:
        return file.readframes(file.getnframes())


def said(edge: LoneEdge, role: str) -> list[Any]:
    return [data["text"] for data in edge.log.of("turn.ended") if data["role"] == role]


@pytest.mark.parametrize(
    ("program", "dialect", "voice"),
    [
        ("backend.py", "native", "en-gb"),
        pytest.param("backend.py", "twilio", "en-gb", marks=pytest.mark.slow),
        pytest.param("backend_without_kit.py", "twilio", "en-gb", marks=pytest.mark.slow),
    ],
)
async def test_it_looks_the_order_up_and_remembers_it(
    tmp_path: Path, program: str, dialect: str, voice: str
) -> None:
    lines = [await spoken(text, tmp_path, voice) for text in (ASKS, REMEMBERS)]
    async with lone_edge(tmp_path) as edge, backend(program) as url:
        ticket = edge.ticket(url, agent={"dialect": dialect, "sample_rate": RATE_HZ})
        async with AsyncCaller(ticket, sample_rate=RATE_HZ) as caller, Talker(caller, RATE_HZ) as talker:
            await until(lambda: said(edge, "agent"), "the greeting")
            await talker.say(lines[0])
            await until(lambda: edge.log.of("tool.result"), "the look-up")
            assert said(edge, "caller") == [ASKS]
            await until(lambda: edge.log.of("playback.started")[1:], "the answer")
            await talker.say(lines[1])
            await until(lambda: said(edge, "caller")[1:] == [REMEMBERS], "the second question")
            [cut] = edge.log.of("turn.interrupted")
            assert "Order one five eight has shipped.".startswith(cut["text"][:20])
            await until(lambda: "You asked about order one five eight." in said(edge, "agent"), "the memory")
            await caller.hangup()
        assert edge.errors == []
