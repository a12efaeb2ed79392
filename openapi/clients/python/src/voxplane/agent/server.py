"""A WebSocket server that an edge dials: each socket becomes a call of the pipeline, in whichever dialect it speaks.

Decides which socket speaks for a call where two are open, and how each is closed, for the edge reads that: 1000 hangs up, anything
else has the backend dialled again, this process or another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed

from voxplane.agent.call import Call
from voxplane.agent.line import Line
from voxplane.agent.pipeline import Pipeline
from voxplane.agent.recordings import Recordings
from voxplane.agent.wires import Start, Started, Stopped, UnknownWire, Wire, wire_of

START_WITHIN_S = 10.0
PING_S = 20.0
MESSAGE_BYTES_MAX = 1 << 20
CALLS_MAX = 100

Pipelines = Callable[[Start], Pipeline]
"""Gives the pipeline for one call. It is asked again for each of the call's sockets."""


class AgentServer:
    """Serves `pipeline` at ``ws://host:port/``, on any path, from entering it to leaving it::

        async with AgentServer(pipeline, port=8765) as server:
            await server.closed()

    `port` 0: any that is free; `url` tells. With `calls_max` sockets open another is refused with 1013, and the edge tries
    `agent.fallback_url`. Leaving closes every socket with 1001, so that calls go on at another process. `more`: arguments of
    `websockets.asyncio.server.serve`, such as `ssl` and `process_request`.

    Raises `OSError` on entering, where the port cannot be had."""

    def __init__(
        self,
        pipeline: Pipeline | Pipelines,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        calls_max: int = CALLS_MAX,
        **more: Any,
    ) -> None:
        self._pipeline: Pipelines = pipeline if callable(pipeline) else lambda _: pipeline
        self._host, self._port = host, port
        self._calls_max = calls_max
        self._more = more
        self._sockets = 0
        self._calls: dict[str, Call] = {}
        self._recordings = Recordings()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None, "enter it first"
        port = next(iter(self._server.sockets)).getsockname()[1]
        scheme = "wss" if self._more.get("ssl") else "ws"
        return f"{scheme}://{self._host}:{port}/"

    async def closed(self) -> None:
        """Returns when the server is closed."""
        assert self._server is not None, "enter it first"
        await self._server.wait_closed()

    async def __aenter__(self) -> AgentServer:
        options: dict[str, Any] = {
            "max_size": MESSAGE_BYTES_MAX,
            "ping_interval": PING_S,
            "ping_timeout": PING_S,
            "compression": None,
        }
        self._server = await listen(self._socket, self._host, self._port, **(options | self._more))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _socket(self, socket: ServerConnection) -> None:
        if self._sockets >= self._calls_max:
            await socket.close(1013, "busy")
            return
        self._sockets += 1
        try:
            try:
                async with asyncio.timeout(START_WITHIN_S):
                    wire, start = await _opening(socket)
            except (UnknownWire, TimeoutError) as error:
                await socket.close(1002, str(error)[:120] or "no start came in time")
                return
            await self._serve(socket, wire, start)
        except ConnectionClosed:
            return
        finally:
            self._sockets -= 1

    async def _serve(self, socket: ServerConnection, wire: Wire, start: Start) -> None:
        line = Line(socket, wire)
        call = Call(self._pipeline(start), start, line, self._recordings)
        writing = asyncio.create_task(line.run())
        code = 1011
        try:
            self._take_over(call)
            async for message in socket:
                incoming = wire.read(message)
                call.take(incoming)
                if isinstance(incoming, Stopped):
                    code = 1000
                    break
        finally:
            if self._calls.get(start.call) is call:
                del self._calls[start.call]
            writing.cancel()
            await asyncio.gather(call.close(), socket.close(code), return_exceptions=True)

    def _take_over(self, call: Call) -> None:
        """The higher epoch speaks, and of equal ones the newer socket."""
        other = self._calls.get(call.call)
        if other is not None and other.start.epoch > call.start.epoch:
            call.supersede()
            return
        if other is not None:
            other.supersede()
        self._calls[call.call] = call
        call.begin()


async def _opening(socket: ServerConnection) -> tuple[Wire, Start]:
    """Raises `UnknownWire`."""
    first = await socket.recv()
    wire = wire_of(first)
    incoming = wire.read(first)
    while not isinstance(incoming, Started):
        incoming = wire.read(await socket.recv())
    return wire, incoming.start


async def serve(
    pipeline: Pipeline | Pipelines, host: str = "127.0.0.1", port: int = 8765, **more: Any
) -> None:
    """Serves until it is cancelled. See `AgentServer`."""
    async with AgentServer(pipeline, host=host, port=port, **more) as server:
        await server.closed()
