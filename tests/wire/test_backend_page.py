"""The program of docs/how-to/write-a-backend.md runs as it is printed there, and says what the page says."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from app.local.process import free_port
from regions.agents.dialect import AgentAudio, AgentText, Start
from regions.agents.text import said
from regions.agents.twilio import TwilioDialect, decode
from regions.wire.snapshot import Turn

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-backend.md"
WITHIN_S = 15.0
LOUD = b"\x10\x90" * 80
QUIET = b"\xff" * 160


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    port = free_port()
    program = tmp_path / "bot.py"
    program.write_text(found.group(1).replace("8765", str(port)), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, program, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield f"ws://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()


async def dialled(url: str) -> ClientConnection:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await connect(url, proxy=None, compression=None)
            except OSError:
                await asyncio.sleep(0.02)


async def started(url: str, start: Start) -> tuple[ClientConnection, TwilioDialect]:
    socket = await dialled(url)
    dialect = TwilioDialect(stream_sid="MZ1", account_sid="AC1", call_sid="CA1")
    for message in dialect.opening(start):
        await socket.send(message.decode())
    return socket, dialect


async def one_turn(socket: ClientConnection) -> tuple[list[tuple[str, str, str]], bytes]:
    """What is said until the agent's turn ends: (type, role, text) of each, and the audio."""
    texts: list[tuple[str, str, str]] = []
    audio = b""
    async with asyncio.timeout(WITHIN_S):
        while not texts or texts[-1][:2] != ("turn.ended", "agent"):
            raw: Any = await socket.recv()
            match decode(raw.encode()):
                case AgentAudio(ulaw):
                    audio += ulaw
                case AgentText(type_, data):
                    texts.append((type_, said(data).role, said(data).text))
    return texts, audio


async def test_it_greets_and_says_back_what_it_heard(url: str) -> None:
    socket, dialect = await started(url, Start(call="c", epoch=1))
    async with socket:
        texts, greeting = await one_turn(socket)
        assert texts[0] == ("transcript.final", "agent", "Say something.")
        for frame in [LOUD] * 50 + [QUIET] * 31:
            await socket.send(dialect.audio(frame).decode())
        texts, audio = await one_turn(socket)
        assert texts[0] == ("turn.ended", "caller", "1.0 seconds of speech")
        assert texts[1] == ("transcript.final", "agent", "Turn 1: 1.0 seconds of speech.")
        assert audio == greeting + LOUD * 50


async def test_a_resumed_socket_remembers(url: str) -> None:
    turns = [Turn(role="caller", text="one"), Turn(role="agent", text="x"), Turn(role="caller", text="two")]
    socket, _ = await started(url, Start(call="c", epoch=2, turns=turns))
    async with socket:
        texts, _ = await one_turn(socket)
    assert texts[0] == ("transcript.final", "agent", "I am back, and remember 2 of your turns.")
