"""An AI backend that needs no network: order status by voice, over Twilio Media Streams with Voxplane's text extension.

It shows what is on the wire, with `websockets` and nothing of Voxplane's; `backend.py` is the same backend on the agent kit. It
keeps nothing between sockets. What it knows of an earlier part of the call can only have come in `start`, as
`voxplane_conversation`. Run it, and give its address to a call as `agent.url`:

    python backend_without_kit.py --port 9000        →  ws://127.0.0.1:9000/
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import signal
import sys
import warnings
from typing import Any

from dialogue import (
    GREETING,
    Memory,
    Reply,
    after_tool,
    look_up,
    memory_from,
    respond,
    unanswered,
)
from speech_to_text import Final, Partial, Recognizer, Started, make_decoder
from synthesis import Speech, Synthesizer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

with warnings.catch_warnings():
    # from Python 3.13 on it comes from a package of its own, `audioop-lts`
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

FRAME_BYTES = 160
SLICE_FRAMES = 25
ACK_WITHIN_S = 2.0
CALLS_MAX = 20
DECODERS_KEPT = 2


class Decoders:
    """Recognisers take a while to load: a few are kept for the next call."""

    def __init__(self) -> None:
        self._free = [make_decoder()]

    def take(self) -> Any:
        return self._free.pop() if self._free else make_decoder()

    def give_back(self, decoder: Any) -> None:
        if len(self._free) < DECODERS_KEPT:
            self._free.append(decoder)


class Call:
    """One socket, which is all that this program knows of a call."""

    def __init__(self, socket: ServerConnection, synthesizer: Synthesizer, decoder: Any, name: str) -> None:
        self._socket = socket
        self._synthesizer = synthesizer
        self._recognizer = Recognizer(decoder)
        self._name = name
        self._sid = ""
        self._memory = Memory()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._speaking: asyncio.Task[None] | None = None
        self._tools = 0

    async def run(self) -> None:
        try:
            async for message in self._socket:
                try:
                    await self._received(json.loads(message))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
        except ConnectionClosed:
            pass
        finally:
            self._recognizer.close()
            if self._speaking is not None:
                self._speaking.cancel()

    async def _received(self, message: dict[str, Any]) -> None:
        match message.get("event"):
            case "media":
                try:
                    ulaw = base64.b64decode(message["media"]["payload"], validate=True)
                except binascii.Error:
                    return
                for happened in self._recognizer.feed(ulaw):
                    await self._heard(happened)
            case "start":
                await self._started(message["start"])
            case "voxplane" if message.get("type") in ("ack", "tool.cached"):
                waiting = self._answers.get(message["data"]["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(message["data"].get("result"))
            case "voxplane" if message.get("type") == "playback.interrupted":
                self._stop_speaking()

    async def _started(self, start: dict[str, Any]) -> None:
        self._sid = start["streamSid"]
        parameters = start.get("customParameters") or {}
        turns = json.loads(parameters.get("voxplane_conversation") or "{}").get("turns", [])
        self._memory = memory_from(turns)
        resumed = parameters.get("voxplane_resumed") == "true"
        print(
            json.dumps(
                {
                    "backend": self._name,
                    "call": parameters.get("voxplane_call"),
                    "resumed": resumed,
                    "turns": len(turns),
                }
            ),
            flush=True,
        )
        if not resumed:
            self._say(Reply(GREETING))
        elif (question := unanswered(turns)) is not None:
            self._say(respond(self._memory, question))

    async def _heard(self, happened: Started | Partial | Final) -> None:
        match happened:
            case Started():
                if self._stop_speaking():
                    await self._send({"event": "clear", "streamSid": self._sid})
            case Partial(text):
                await self._tell("transcript.partial", {"role": "caller", "text": text})
            case Final(text) if text:
                await self._tell("transcript.final", {"role": "caller", "text": text})
                await self._tell("turn.ended", {"role": "caller", "text": text})
                self._say(respond(self._memory, text))

    def _say(self, reply: Reply) -> None:
        self._stop_speaking()
        self._speaking = asyncio.create_task(self._answer(reply))

    def _stop_speaking(self) -> bool:
        """True where something was being said, or prepared."""
        speaking, self._speaking = self._speaking, None
        if speaking is None or speaking.done():
            return False
        speaking.cancel()
        return True

    async def _answer(self, reply: Reply) -> None:
        try:
            if reply.tool is not None:
                result = await self._run_tool(reply.tool.name, reply.tool.arguments)
                reply = after_tool(self._memory, result)
            speech = await asyncio.to_thread(self._synthesizer.speak, reply.text)
            await self._tell(
                "transcript.final",
                {
                    "role": "agent",
                    "text": reply.text,
                    "words": [{"word": w, "offset_ms": at} for w, at in speech.words],
                },
            )
            await self._play(speech)
            await self._tell("turn.ended", {"role": "agent"})
        except ConnectionClosed:
            return

    async def _run_tool(self, name: str, arguments: dict[str, str]) -> dict[str, str]:
        """Only once the call's log has it: a tool whose intent could be lost is not run. One that has run in this call, for
        whatever socket, is not run again: its result comes instead of the acknowledgement."""
        self._tools += 1
        tool_id = f"{name}-{self._sid[-6:]}-{self._tools}"
        key = f"{name}:{arguments['order']}"
        answer = self._answers[tool_id] = asyncio.get_running_loop().create_future()
        await self._tell("tool.called", {"id": tool_id, "key": key, "name": name, "arguments": arguments})
        try:
            async with asyncio.timeout(ACK_WITHIN_S):
                cached: dict[str, str] | None = await answer
        except TimeoutError:
            return {"status": "not been looked up", "arrives": "an unknown day", "depot": "an unknown place"}
        finally:
            del self._answers[tool_id]
        if cached is not None:
            return cached
        result = look_up(arguments["order"])
        await self._tell("tool.result", {"id": tool_id, "name": name, "result": result})
        return result

    async def _play(self, speech: Speech) -> None:
        ulaw = audioop.lin2ulaw(speech.pcm, 2)
        for i in range(0, len(ulaw), FRAME_BYTES * SLICE_FRAMES):
            piece = base64.b64encode(ulaw[i : i + FRAME_BYTES * SLICE_FRAMES]).decode()
            await self._send({"event": "media", "streamSid": self._sid, "media": {"payload": piece}})
        await self._send({"event": "mark", "streamSid": self._sid, "mark": {"name": "said"}})

    async def _tell(self, kind: str, data: dict[str, Any]) -> None:
        await self._send({"event": "voxplane", "streamSid": self._sid, "type": kind, "data": data})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(message))


async def main() -> None:
    parser = argparse.ArgumentParser(description="An offline AI backend: order status by voice.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="backend")
    given = parser.parse_args()
    synthesizer, decoders = Synthesizer(), Decoders()
    synthesizer.speak("ready")
    calls = 0

    async def call(socket: ServerConnection) -> None:
        nonlocal calls
        if calls >= CALLS_MAX:
            await socket.close(1013, "busy")
            return
        calls += 1
        decoder = decoders.take()
        try:
            await Call(socket, synthesizer, decoder, given.name).run()
        finally:
            calls -= 1
            decoders.give_back(decoder)

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(
        call, given.host, given.port, max_size=1 << 20, ping_interval=None, compression=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(json.dumps({"backend": given.name, "listening": f"ws://{given.host}:{port}/"}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
