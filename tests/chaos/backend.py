"""The customer's backend, without a memory: it speaks Twilio's dialect with the text extension, and dies whenever it is told to.

Decides what is said on a socket: turns of either side, audio, tool calls. A tool takes effect when its call is acknowledged,
each time it is, and never else: what makes the effects of a call happen once is the platform's business. Everything that is
said carries a token of its own; what was said, acknowledged and done goes into the record first.

    python -m tests.chaos.backend PORT RECORD
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import secrets
import sys
from pathlib import Path
from typing import Any

import uvloop
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_create_server,
)

from tests.chaos.child import orders
from tests.chaos.record import Record
from tests.chaos.rules import tokens_in

PAUSE_S = (1.0, 3.0)
PIECE = base64.b64encode(bytes([0x10, 0x90]) * 400).decode()
"""100 ms of a tone."""
PIECES_MAX = 8
BEFORE_ALL_MEDIA = b'{"event":"media"'


class Socket(WSListener):
    """One socket of one call, from `start` on."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._transport: WSTransport | None = None
        self._talking: asyncio.Task[None] | None = None
        self._name = secrets.token_hex(8)
        self._call = ""
        self._said = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        if self._talking is not None:
            self._talking.cancel()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        payload = frame.get_payload_as_bytes()
        if payload.startswith(BEFORE_ALL_MEDIA):
            return
        message = json.loads(payload)
        match message["event"]:
            case "start":
                self._start(message["start"]["customParameters"])
            case "voxplane" if message["type"] == "ack":
                self._acknowledged(message["data"])

    def _start(self, parameters: dict[str, str]) -> None:
        self._call = parameters["load"]
        if parameters["voxplane_resumed"] == "true":
            turns = json.loads(parameters["voxplane_conversation"])["turns"]
            self._record.note(
                "resumed",
                self._call,
                self._name,
                tokens=tokens_in([t.get("id") or t.get("text") for t in turns]),
                results=tokens_in([t.get("result") for t in turns]),
            )
        hang_up_after_s = float(parameters.get("hang_up_after_s", "inf"))
        self._talking = asyncio.create_task(self._talk(hang_up_after_s))

    def _acknowledged(self, ack: dict[str, Any]) -> None:
        token = ack["id"]
        self._record.note("acked", self._call, self._name, token=token, seq=ack["seq"])
        self._record.note("effect", self._call, self._name, token=token)
        result = self._token()
        self._record.note("said", self._call, self._name, token=result)
        self._tell("tool.result", {"id": token, "result": {"done": result}})

    async def _talk(self, hang_up_after_s: float) -> None:
        loop = asyncio.get_running_loop()
        began_s, chance = loop.time(), random.Random(self._name)
        while loop.time() - began_s < hang_up_after_s:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            chance.choice((self._caller_turn, self._agent_turn, self._tool))(chance)
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def _caller_turn(self, _: random.Random) -> None:
        for kind in ("transcript.final", "turn.ended"):
            token = self._token()
            self._record.note("said", self._call, self._name, token=token)
            self._tell(kind, {"role": "caller", "text": token})

    def _agent_turn(self, chance: random.Random) -> None:
        """Becomes an event once it has been played, or cut: it is not `said`."""
        self._tell("transcript.final", {"role": "agent", "text": self._token()})
        for _ in range(chance.randint(1, PIECES_MAX)):
            self._send({"event": "media", "media": {"payload": PIECE}})
        self._tell("turn.ended", {"role": "agent"})

    def _tool(self, _: random.Random) -> None:
        token = self._token()
        self._record.note("tool", self._call, self._name, token=token)
        self._tell("tool.called", {"id": token, "name": "act", "arguments": {"of": self._call}})

    def _token(self) -> str:
        self._said += 1
        return f"{self._call}.{self._name}.{self._said}"

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        self._send({"event": "voxplane", "type": kind, "data": data})

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, json.dumps(message).encode())


async def serve(port: int, record: Record) -> None:
    """Until its parent has gone."""
    server = await ws_create_server(lambda _: Socket(record), "127.0.0.1", port)
    try:
        await (await orders()).read()
    finally:
        server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Record(Path(sys.argv[2]))))
