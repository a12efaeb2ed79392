"""``python -m tests.bench.tone_process PORT``: a backend in a process of its own, that can be killed.

Any number of them share a port, as processes behind a load balancer do. Each plays a tone, in real time, whose bytes say which
process plays it. It says on its output which calls it was given, and does on a line of its input what that says: ``reset`` or
``1011`` ends the sockets it has.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
import sys
from contextlib import suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.bench.support import say, stdin

LOUD = 0x70


def voice_of(pid: int) -> bytes:
    """What its frames consist of: two loud bytes that no process has which lives at the same time."""
    return bytes([pid % LOUD, pid // LOUD % LOUD | 0x80])


class Tone:
    def __init__(self) -> None:
        self.sockets: set[ServerConnection] = set()
        payload = base64.b64encode(voice_of(os.getpid()) * 80).decode()
        self._message = json.dumps({"event": "media", "media": {"payload": payload}})

    async def call(self, connection: ServerConnection) -> None:
        self.sockets.add(connection)
        playing: asyncio.Task[None] | None = None
        try:
            async for text in connection:
                message = json.loads(text)
                if message["event"] == "start":
                    given = message["start"]["customParameters"]
                    say({"call": given["voxplane_call"], "resumed": given["voxplane_resumed"]})
                    playing = asyncio.create_task(self._play(connection))
        except ConnectionClosed:
            pass
        finally:
            self.sockets.discard(connection)
            if playing is not None:
                playing.cancel()

    async def _play(self, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        with suppress(ConnectionClosed):
            while True:
                await connection.send(self._message)
                due += 0.02
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def obey(self, order: str) -> None:
        for connection in list(self.sockets):
            if order == "reset":
                raw: socket.socket = connection.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.transport.abort()
            else:
                await connection.close(int(order), "told to")


async def main(port: int) -> None:
    tone = Tone()
    async with serve(tone.call, "127.0.0.1", port, ping_interval=None, reuse_port=True):
        say({"ready": os.getpid()})
        async for line in await stdin():
            await tone.obey(line.decode().strip())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
