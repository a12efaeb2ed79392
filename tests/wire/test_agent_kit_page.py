"""The program of docs/how-to/write-a-backend-with-the-agent-kit.md runs as it is printed there, behind a real edge, and goes on
after it was killed."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.local.process import free_port
from tests.support.agent_parts import RATE_HZ, tone
from tests.support.edges import until
from tests.support.lone_edge import LoneEdge, lone_edge
from voxplane import AsyncCaller

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-backend-with-the-agent-kit.md"
QUIET = bytes(640)


class Bot:
    """The program of the page, as a process."""

    def __init__(self, folder: Path) -> None:
        found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        assert found is not None
        port = free_port()
        self._program = folder / "kit_bot.py"
        self._program.write_text(found.group(1).replace("8765", str(port)), encoding="utf-8")
        self.url = f"ws://127.0.0.1:{port}/"

    @asynccontextmanager
    async def running(self, port_of: str) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, self._program, stdout=asyncio.subprocess.DEVNULL
        )
        host, port = port_of.removeprefix("ws://").rstrip("/").split(":")
        try:
            await until(lambda: _open(host, int(port)), "the bot listens")
            yield
        finally:
            process.kill()
            await process.wait()


def _open(host: str, port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


async def talk(caller: AsyncCaller, loud: asyncio.Queue[bytes]) -> None:
    while not caller.over:
        await caller.send(QUIET if loud.empty() else loud.get_nowait())
        await asyncio.sleep(0.02)


def said(edge: LoneEdge, role: str) -> list[Any]:
    return [data["text"] for data in edge.log.of("turn.ended") if data["role"] == role]


@pytest.mark.parametrize("dialect", ["twilio", "native"])
async def test_it_answers_and_remembers_after_it_was_killed(tmp_path: Path, dialect: str) -> None:
    bot, loud = Bot(tmp_path), asyncio.Queue[bytes]()
    async with lone_edge(tmp_path) as edge:
        ticket = edge.ticket(bot.url, agent={"dialect": dialect, "sample_rate": RATE_HZ})
        async with bot.running(bot.url):
            caller = AsyncCaller(ticket, sample_rate=RATE_HZ)
            await caller.__aenter__()
            talking = asyncio.create_task(talk(caller, loud))
            await until(lambda: said(edge, "agent") == ["Say something."], "the greeting")
            for _ in range(50):
                loud.put_nowait(tone(20))
            await until(lambda: len(said(edge, "agent")) == 2, "the answer")
            [heard] = filter(None, said(edge, "caller"))
            assert re.fullmatch(r"[01]\.\d seconds of speech", heard)
            assert said(edge, "agent")[1] == f"Turn 1: {heard}."
        async with bot.running(bot.url):
            await until(lambda: said(edge, "agent")[2:] == ["I am back."], "it is back")
            for _ in range(50):
                loud.put_nowait(tone(20))
            await until(lambda: len(said(edge, "agent")) == 4, "the next answer")
            assert said(edge, "agent")[3].startswith("Turn 2: ")
            assert [data["key"] for data in edge.log.of("tool.called")] == ["count:1", "count:2"]
            await caller.hangup()
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        await caller.close()
