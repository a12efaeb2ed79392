"""A backend that is lost is dialled again, and one that falls over each time is given up on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from picows import WSListener
from websockets.asyncio.server import ServerConnection, serve

from regions.agents.connection import AgentConnection
from regions.agents.dial import DialError, dial
from regions.agents.twilio import TwilioDialect
from regions.edge import agent_leg
from regions.edge.agent_leg import AgentLeg
from regions.edge.context import EdgeContext
from regions.edge.session import Session
from regions.edge.settings import EdgeSettings
from regions.wire.ticket import Agent, Claims, Sealed

WITHIN_S = 10.0
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAUSES_S = (0.0, 0.001, 0.001)


class Call:
    """The call around a leg, and the backend it dials: as often as it is lost, it is dialled again."""

    def __init__(self) -> None:
        self.leg: AgentLeg
        self.dialled = 0
        self.connected: list[bool] = []
        self.given_up = asyncio.Event()

    def owns(self) -> bool:
        return True

    def on_audio(self, ulaw: bytes) -> None: ...
    def on_mark(self, name: str) -> None: ...
    def on_clear(self) -> None: ...
    def on_text(self, type_: str, data: bytes) -> None: ...

    def on_connected(self, *, fallback: bool, resumed: bool) -> None:
        self.connected.append(fallback)

    def on_unreachable(self, code: str, *, resumed: bool) -> None:
        self.given_up.set()

    def on_closed(self, connection: AgentConnection, *, clean: bool) -> None:
        if self.leg.lost(connection) and not clean:
            self.leg.dial(list, resumed=True)

    async def backend(self, socket: ServerConnection) -> None:
        self.dialled += 1
        await socket.recv()
        await socket.close(1011, "it fell over")


class _Uplink:
    def notify(self, session: Session) -> None: ...
    def volatile(self, call: str, epoch: int, type_: str, at_ms: int, data: bytes) -> None: ...


@asynccontextmanager
async def calling(tmp_path: Path, *, first: str | None = None) -> AsyncIterator[Call]:
    """`first`: a URL that is dialled before the call's own backend, which is then its fallback."""
    call = Call()
    async with serve(call.backend, "127.0.0.1", 0) as server:
        own = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        agent = Agent(url=first, fallback_url=own) if first else Agent(url=own)
        settings = EdgeSettings(
            region="lab", name="e", control_urls=("http://127.0.0.1",), data=tmp_path, local_targets=True
        )
        context = EdgeContext(settings, _Uplink(), ssl.create_default_context(), lambda: "", lambda _: None)
        claims = Claims(
            iss="", aud="", call="call_1", project="prj_1", jti="", iat=0, exp=0, attach_by=0, max_s=1, grants=[], sealed=""
        )  # fmt: skip
        sealed = Sealed(agent=agent, snapshot_key="", local_targets=True)
        call.leg = AgentLeg(call, context, claims, 1, sealed)
        call.leg.dial(list, resumed=False)
        try:
            yield call
        finally:
            call.leg.close(stop=False)


async def test_a_backend_that_falls_over_each_time_is_given_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_leg, "REDIAL_S", PAUSES_S)
    async with calling(tmp_path) as call, asyncio.timeout(WITHIN_S):
        await call.given_up.wait()
        assert call.dialled == len(PAUSES_S)


async def test_a_backend_that_was_there_for_a_while_is_dialled_as_often_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_leg, "REDIAL_S", PAUSES_S)
    monkeypatch.setattr(agent_leg, "STEADY_S", 0.0)
    async with calling(tmp_path) as call, asyncio.timeout(WITHIN_S):
        while call.dialled <= 2 * len(PAUSES_S):
            await asyncio.sleep(0.001)
        assert not call.given_up.is_set()


def close_frame(code: int) -> bytes:
    return b"\x88\x02" + code.to_bytes(2, "big")


@asynccontextmanager
async def closing_at_once(code: int) -> AsyncIterator[str]:
    """A backend that says yes to the handshake and closes in the same breath."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if line)
        key = next(v for k, v in headers.items() if k.lower() == "sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        writer.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            + close_frame(code)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_backend_that_closes_with_the_handshake_was_not_reached(tmp_path: Path, code: int) -> None:
    """The fallback is dialled, and a leg without one says that nobody was there."""
    async with closing_at_once(code) as url, asyncio.timeout(WITHIN_S):
        async with calling(tmp_path, first=url) as call:
            while not call.connected:
                await asyncio.sleep(0.001)
            assert call.connected[0] is True
        connection = AgentConnection(call, TwilioDialect(stream_sid="MZ", account_sid="AC", call_sid="CA"))
        with pytest.raises(DialError) as error:
            await connection.open(Agent(url=url), {}, local_targets=True, tls=ssl.create_default_context())
        assert error.value.code == "handshake"
        assert not connection.up


async def test_a_dial_that_is_called_off_does_not_deafen_the_next_connection() -> None:
    """The number of its socket is the next one's; the loop must have forgotten it by then."""
    asked = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    mute_server = await asyncio.start_server(mute, "127.0.0.1", 0)
    echo_server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with mute_server, echo_server, asyncio.timeout(WITHIN_S):
        url = f"ws://127.0.0.1:{mute_server.sockets[0].getsockname()[1]}/"
        for _ in range(3):
            asked.clear()
            dialling = asyncio.create_task(
                dial(
                    url, WSListener, local_targets=True, deadline_s=WITHIN_S, tls=ssl.create_default_context()
                )
            )
            await asked.wait()
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(*echo_server.sockets[0].getsockname())
                writer.write(b"heard\n")
                assert await reader.readline() == b"heard\n"
                writer.close()
