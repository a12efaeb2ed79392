"""Calls that never pause: audio in both directions, counted by the second, with turns, tools and digits whose every copy can be told.

Decides what is said and when; what must hold of it is judged by `rules` and `static_stability`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.chaos.callers import DIGITS, Listening
from tests.chaos.history import Call, Noted
from tests.support.numbered import numbered
from voxplane import AsyncClient

FRAME_S = 0.02
SPEECH_FRAMES = 95
PERIOD_S = 2.0
"""An utterance and a short pause after it: somebody is heard in every second."""
TURN_EVERY = 2
TOOL_EVERY = 5
DIGIT_EVERY_S = 2.0
SPEECH = base64.b64encode(b"".join(numbered(1) for _ in range(SPEECH_FRAMES))).decode()


@dataclass
class Seconds:
    """Frames by second of the monotonic clock, in one direction of one call."""

    frames: Counter[int] = field(default_factory=Counter)

    def note(self) -> None:
        self.frames[int(time.monotonic())] += 1

    def between(self, from_s: float, to_s: float) -> list[tuple[int, int]]:
        """(second, frames) of each whole second."""
        return [(s, self.frames[s]) for s in range(int(from_s) + 1, int(to_s))]


class SteadyBackend:
    """Speaks on every socket in periods of two seconds. `noted`: what was said, acknowledged and done, in its order."""

    def __init__(self) -> None:
        self.noted: list[Noted] = []
        self.heard: dict[str, Seconds] = {}
        self.url = ""
        self._sockets = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[SteadyBackend]:
        async with serve(self._call, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        talking: asyncio.Task[None] | None = None
        name, seconds, said = "", Seconds(), _Said("", "", self.noted)
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    name = message["start"]["customParameters"]["load"]
                    seconds = self.heard.setdefault(name, Seconds())
                    self._sockets += 1
                    said = _Said(name, f"s{self._sockets}", self.noted)
                    talking = asyncio.create_task(said.talk(socket))
                elif message["event"] == "media":
                    # what an edge fills a pause with is all quiet
                    if not message["media"]["payload"].startswith("////"):
                        seconds.note()
                elif message["event"] == "voxplane" and message["type"] == "ack":
                    await said.acknowledged(socket, message["data"])
        except ConnectionClosed:
            pass
        finally:
            if talking is not None:
                talking.cancel()


@dataclass
class _Said:
    """One socket of one call."""

    name: str
    socket: str
    noted: list[Noted]
    count: int = 0

    async def talk(self, socket: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        due, turn = loop.time(), 0
        with suppress(ConnectionClosed):
            while True:
                turn += 1
                await socket.send(json.dumps({"event": "media", "media": {"payload": SPEECH}}))
                await self._tell(socket, "turn.ended", {"role": "agent"})
                if turn % TURN_EVERY == 0:
                    token = self._token("said")
                    await self._tell(socket, "turn.ended", {"role": "caller", "text": token})
                if turn % TOOL_EVERY == 1:
                    data = {"id": self._token("tool"), "name": "act", "arguments": {}}
                    await self._tell(socket, "tool.called", data)
                due += PERIOD_S
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def acknowledged(self, socket: ServerConnection, ack: dict[str, Any]) -> None:
        self._note("acked", ack["id"], ack["seq"])
        self._note("effect", ack["id"])
        result = {"id": ack["id"], "result": {"done": self._token("said")}}
        with suppress(ConnectionClosed):
            await self._tell(socket, "tool.result", result)

    def _token(self, kind: str) -> str:
        self.count += 1
        token = f"{self.name}.{self.socket}.{self.count}"
        self._note(kind, token)
        return token

    def _note(self, kind: str, token: str, seq: int = 0) -> None:
        self.noted.append(Noted(kind, self.name, self.socket, token=token, seq=seq))

    async def _tell(self, socket: ServerConnection, kind: str, data: dict[str, Any]) -> None:
        await socket.send(json.dumps({"event": "voxplane", "type": kind, "data": data}))


class SteadyCaller(Listening):
    """Knows the newest event of each owner that its snapshots tell of."""

    def __init__(self, ticket: str, *, kept: Call, client: AsyncClient) -> None:
        super().__init__(ticket, kept=kept, client=client)
        self.written: dict[int, int] = {}

    def _received(self, link: Any, raw: str | bytes) -> None:
        if isinstance(raw, str) and raw.startswith('{"type":"snapshot"'):
            said = json.loads(raw)
            self.written[said["epoch"]] = max(said["n"], self.written.get(said["epoch"], 0))
        super()._received(link, raw)


class SteadyCall:
    """One call from its ticket on. `digits_per_s`: how fast its caller types."""

    def __init__(
        self, created: dict[str, Any], name: str, client: AsyncClient, digits_per_s: float | None = None
    ) -> None:
        self.kept = Call(created["id"], name)
        self.ticket: str = created["ticket"]
        self.heard = Seconds()
        self.attached_s: float | None = None
        self.first_region: str = created["region"]
        self._client = client
        self._digit_every_s = 1 / digits_per_s if digits_per_s else DIGIT_EVERY_S
        self._tasks: list[asyncio.Task[None]] = []
        self.caller: SteadyCaller

    @property
    def name(self) -> str:
        return self.kept.name

    async def attach(self) -> None:
        """Raises `CallRefused` or `CallLost`."""
        self.caller = SteadyCaller(self.ticket, kept=self.kept, client=self._client)
        await self.caller.__aenter__()
        self.attached_s = time.monotonic()
        self._tasks = [asyncio.create_task(w) for w in (self._speak(), self._listen(), self._type())]

    async def hang_up(self) -> None:
        await self.stop()
        await self.caller.hangup()

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def close(self) -> None:
        await self.stop()
        if self.attached_s is not None:
            await self.caller.close()

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            number = number % 0xFFFF + 1
            await self.caller.send(numbered(number))
            due = max(due + FRAME_S, loop.time() - 5 * FRAME_S)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _listen(self) -> None:
        async for _ in self.caller.frames():
            self.heard.note()

    async def _type(self) -> None:
        while True:
            await asyncio.sleep(self._digit_every_s)
            digit = DIGITS[len(self.kept.pressed) % len(DIGITS)]
            self.kept.pressed += digit
            await self.caller.dtmf(digit)
