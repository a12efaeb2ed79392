"""A backend that is lost is dialled again, and one that falls over each time is given up on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from picows import WSListener, WSTransport
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from regions.agents import redial
from regions.agents.connection import AgentConnection, Ending
from regions.agents.dial import UNACKED_MS_MAX, DialError, dial
from regions.agents.dialect import Start
from regions.agents.twilio import TwilioDialect
from regions.edge import agent_leg
from regions.edge.agent_leg import BROKE_OFF, AgentLeg, Dialled, Known
from regions.edge.context import EdgeContext
from regions.edge.session import Session
from regions.edge.settings import EdgeSettings
from regions.wire.ticket import Agent, Claims, Reconnect, Sealed

WITHIN_S = 10.0
Answers = Callable[[ServerConnection, Request], Response | None]
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Call:
    """The call around a leg, and the backend it dials: as often as it is lost, it is dialled again."""

    def __init__(self) -> None:
        self.leg: AgentLeg
        self.dialled = 0
        self.connected: list[Dialled] = []
        self.gone = False
        self.lapsed = False
        self.asked = 0
        self.unreached = 0
        self.given_up: Dialled | None = None
        self.ended = asyncio.Event()

    def owns(self) -> bool:
        return not self.lapsed

    def leaving(self) -> bool:
        self.asked += self.gone
        return self.gone

    def on_audio(self, ulaw: bytes) -> None: ...
    def on_mark(self, name: str) -> None: ...
    def on_clear(self, chunk: bytes | None) -> None: ...
    def on_text(self, type_: str, data: bytes) -> None: ...

    def on_connected(self, dialled: Dialled) -> None:
        self.connected.append(dialled)

    def on_unreached(self) -> None:
        self.unreached += 1

    def on_unreachable(self, dialled: Dialled) -> None:
        self.given_up = dialled
        self.ended.set()

    def on_closed(self, connection: AgentConnection, ending: Ending) -> None:
        taken_as = self.leg.lost(connection, ending)
        if taken_as is not None and not taken_as.clean:
            self.leg.again(lambda: Known([]))

    async def backend(self, socket: ServerConnection) -> None:
        self.dialled += 1
        await socket.recv()
        await socket.close(1011, "it fell over")


class _Uplink:
    def notify(self, session: Session) -> None: ...
    def volatile(self, call: str, epoch: int, type_: str, at_ms: int, data: bytes) -> None: ...


@asynccontextmanager
async def calling(
    tmp_path: Path,
    *,
    first: str | None = None,
    fallback: str | None = None,
    answers: Answers | None = None,
    deadline_s: float = 20.0,
    silent_s: float = 20.0,
) -> AsyncIterator[Call]:
    """`first`: a URL that is dialled before the call's own backend, which is then its fallback, or before `fallback`. `answers`:
    what the own one says to a request, where it is no WebSocket."""
    call = Call()
    async with serve(call.backend, "127.0.0.1", 0, process_request=answers) as server:
        own = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        reconnect = Reconnect(deadline_s=deadline_s, silent_s=silent_s)
        agent = Agent(
            url=first or own, fallback_url=(fallback or own) if first else None, reconnect=reconnect
        )
        settings = EdgeSettings(
            region="lab", name="e", control_urls=("http://127.0.0.1",), data=tmp_path, local_targets=True
        )
        context = EdgeContext(settings, _Uplink(), ssl.create_default_context(), lambda: "", lambda _: None)
        claims = Claims(
            iss="", aud="", call="call_1", project="prj_1", jti="", iat=0, exp=0, attach_by=0, max_s=1, grants=[], sealed=""
        )  # fmt: skip
        sealed = Sealed(agent=agent, snapshot_key="", local_targets=True)
        call.leg = AgentLeg(call, context, claims, 1, sealed)
        call.leg.dial(lambda: Known([]), resumed=False)
        try:
            yield call
        finally:
            call.leg.close(stop=False)


async def test_a_backend_that_falls_over_each_time_is_given_up_on_at_the_deadline(tmp_path: Path) -> None:
    async with calling(tmp_path, deadline_s=0.3) as call, asyncio.timeout(WITHIN_S):
        await call.ended.wait()
        assert call.given_up is not None
        assert (call.given_up.code, call.given_up.resumed) == (BROKE_OFF, True)
        assert call.given_up.away_ms >= 300
        assert call.dialled == 1 + call.given_up.attempts
        assert not call.connected[0].resumed and all(d.resumed for d in call.connected[1:])


async def test_a_backend_that_was_there_for_a_while_has_all_the_time_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redial, "STEADY_MS", 0)
    async with calling(tmp_path, deadline_s=0.3) as call, asyncio.timeout(WITHIN_S):
        while call.dialled < 20:
            await asyncio.sleep(0.001)
        assert not call.ended.is_set()
        assert {d.attempts for d in call.connected} == {1}


async def test_a_deadline_of_nothing_dials_no_lost_backend_again(tmp_path: Path) -> None:
    async with calling(tmp_path, deadline_s=0) as call, asyncio.timeout(WITHIN_S):
        await call.ended.wait()
        assert call.given_up is not None
        assert (call.dialled, call.given_up.attempts) == (1, 0)


async def test_while_the_caller_is_on_its_way_to_another_edge_nothing_is_dialled_and_nothing_ends(
    tmp_path: Path,
) -> None:
    # over while it is asked four times, a tenth of a second apart, and not before the first attempt
    async with calling(tmp_path, deadline_s=0.3) as call, asyncio.timeout(WITHIN_S):
        call.gone = True
        while not call.connected or call.leg.connection is not None:
            await asyncio.sleep(0.001)
        while call.asked < 4:
            await asyncio.sleep(0.01)
        assert (call.dialled, call.ended.is_set()) == (1, False)
        call.gone = False
        while call.dialled < 2:
            await asyncio.sleep(0.001)
        await call.ended.wait()


async def test_a_first_backend_that_is_just_being_started_is_waited_for(tmp_path: Path) -> None:
    """Its port refuses until it listens, and that of its fallback does so throughout."""
    with socket.socket() as port, socket.socket() as other:
        urls = []
        for taken in (port, other):
            taken.bind(("127.0.0.1", 0))
            urls.append(f"ws://127.0.0.1:{taken.getsockname()[1]}/")
        async with calling(tmp_path, first=urls[0], fallback=urls[1]) as call, asyncio.timeout(WITHIN_S):
            tried = watch_dials(call, urls[1])
            await tried.wait()
            async with serve(call.backend, sock=port):
                while not call.connected:
                    await asyncio.sleep(0.001)
                # at once: it falls over, and when nobody listens any more it is not reached
                assert (call.connected[0].resumed, call.connected[0].fallback) == (False, False)
                assert (call.unreached, call.given_up) == (0, None)


async def test_a_first_backend_is_waited_for_whatever_its_fallback_says(tmp_path: Path) -> None:
    """The one behind the fallback is somebody who does not want the call: that says nothing of the first."""

    def refuses(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(HTTPStatus.FORBIDDEN, "")

    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        first = f"ws://127.0.0.1:{port.getsockname()[1]}/"
        async with calling(tmp_path, first=first, answers=refuses) as call, asyncio.timeout(WITHIN_S):
            tried = watch_dials(call, call.leg._sealed.agent.fallback_url or "")
            await tried.wait()
            async with serve(call.backend, sock=port):
                while not (call.connected or call.ended.is_set()):
                    await asyncio.sleep(0.001)
            assert call.given_up is None
            assert (call.connected[0].resumed, call.connected[0].fallback) == (False, False)


async def dial_alone(url: str) -> WSTransport:
    """Without a call around it."""
    tls = ssl.create_default_context()
    return await dial(url, WSListener, local_targets=True, deadline_s=WITHIN_S, silent_s=20.0, tls=tls)


def watch_dials(call: Call, url: str) -> asyncio.Event:
    """Set once `url` has been dialled in vain."""
    inner, tried = call.leg._context.dial, asyncio.Event()

    async def dials(target: str, *args: Any, **named: Any) -> WSTransport:
        try:
            return await inner(target, *args, **named)
        except DialError:
            if target == url:
                tried.set()
            raise

    call.leg._context.dial = dials  # type: ignore[assignment]
    return tried


@pytest.mark.parametrize(
    ("status", "within_ms", "dialled", "code"),
    [(503, 2_000, 3, ""), (502, 0, 1, "unavailable"), (403, 2_000, 1, "handshake")],
)
async def test_what_a_proxy_answers_decides_whether_a_first_backend_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, within_ms: int, dialled: int, code: str
) -> None:
    """Twice it answers with the status, then with a WebSocket."""
    asked: list[int] = []

    def answers(connection: ServerConnection, _: Request) -> Response | None:
        asked.append(status)
        return connection.respond(HTTPStatus(status), "") if len(asked) < 3 else None

    monkeypatch.setattr(agent_leg, "FIRST_DIAL_MS", within_ms)
    async with calling(tmp_path, answers=answers) as call, asyncio.timeout(WITHIN_S):
        while not (call.connected or call.ended.is_set()):
            await asyncio.sleep(0.001)
        assert len(asked) == dialled
        assert (call.given_up.code if call.given_up is not None else "") == code


async def test_a_first_backend_that_does_not_come_is_given_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_leg, "FIRST_DIAL_MS", 150)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"ws://127.0.0.1:{taken.getsockname()[1]}/"
        async with calling(tmp_path, first=nobody, fallback=nobody) as call, asyncio.timeout(WITHIN_S):
            await call.ended.wait()
            assert call.given_up == Dialled(resumed=False, code="connect")
            assert (call.dialled, call.unreached) == (0, 0)


async def test_an_attempt_that_fails_after_the_lease_is_over_is_told_nobody(tmp_path: Path) -> None:
    """The process was stopped while it dialled: the caller may be elsewhere, and the log has another owner."""
    async with calling(tmp_path) as call, asyncio.timeout(WITHIN_S):
        failed = asyncio.Event()

        async def fails(*_: object, **__: object) -> object:
            call.lapsed = True
            failed.set()
            raise DialError("unreachable", "nobody listens")

        while not call.connected:
            await asyncio.sleep(0.001)
        call.leg._context.dial = fails  # type: ignore[assignment]
        await failed.wait()
        dialling = call.leg._dialling
        assert dialling is not None
        await asyncio.wait({dialling})
        assert (call.unreached, call.given_up) == (0, None)


async def test_a_machine_that_is_gone_without_a_word_is_noticed_by_the_kernel() -> None:
    async def listens(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(listens, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        transport = await dial_alone(url)
        raw = transport.underlying_transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKED_MS_MAX
        transport.disconnect()


def close_frame(code: int) -> bytes:
    return b"\x88\x02" + code.to_bytes(2, "big")


@asynccontextmanager
async def closing_at_once(code: int | None) -> AsyncIterator[str]:
    """A backend that says yes to the handshake and closes in the same breath; with None it hangs instead, and keeps the socket."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if line)
        key = next(v for k, v in headers.items() if k.lower() == "sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        writer.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            + (close_frame(code) if code is not None else b"")
        )
        await writer.drain()
        if code is None:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        over.set()


@asynccontextmanager
async def closing_unanswered(scheme: str, until: int = 1_000) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy whose backend is away: it takes each connection up to that one, and closes it. And what it has read."""
    read: list[bytes] = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.read(100))
        if len(read) == until:
            server.close()
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/", read


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_connection_that_ends_without_an_answer_is_no_backend(scheme: str) -> None:
    """What ends so was taken for open: the caller would have heard nothing, and nobody would have dialled again."""
    async with closing_unanswered(scheme) as (url, read), asyncio.timeout(WITHIN_S):
        with pytest.raises(DialError) as error:
            await dial_alone(url)
        assert (error.value.code, error.value.away, len(read)) == ("unavailable", True, 1)


async def test_a_first_backend_behind_a_proxy_that_only_closes_is_waited_for(tmp_path: Path) -> None:
    async with (
        closing_unanswered("ws", until=3) as (url, read),
        asyncio.timeout(WITHIN_S),
        calling(tmp_path, first=url, fallback=url) as call,
    ):
        while len(read) < 3:
            await asyncio.sleep(0.001)
        assert (call.connected, call.unreached) == ([], 0)


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_backend_that_closes_with_the_handshake_was_not_reached(tmp_path: Path, code: int) -> None:
    """The fallback is dialled, and a leg without one says that nobody was there."""
    async with closing_at_once(code) as url, asyncio.timeout(WITHIN_S):
        async with calling(tmp_path, first=url) as call:
            while not call.connected:
                await asyncio.sleep(0.001)
            assert call.connected[0].fallback is True
        connection = AgentConnection(call, TwilioDialect(stream_sid="MZ", account_sid="AC", call_sid="CA"))
        start = Start(call="c", epoch=1)
        with pytest.raises(DialError) as error:
            await connection.open(Agent(url=url), start, local_targets=True, tls=ssl.create_default_context())
        assert error.value.code == "handshake"
        assert not connection.up


async def test_a_backend_that_hangs_is_lost_after_as_long_as_the_call_says(tmp_path: Path) -> None:
    """It takes the connection, and answers no ping."""
    async with (
        closing_at_once(None) as url,
        asyncio.timeout(WITHIN_S),
        calling(tmp_path, first=url, silent_s=0.1) as call,
    ):
        while len(call.connected) < 2:
            await asyncio.sleep(0.001)
        assert [(d.fallback, d.resumed) for d in call.connected[:2]] == [(False, False), (False, True)]


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
            dialling = asyncio.create_task(dial_alone(url))
            await asked.wait()
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(*echo_server.sockets[0].getsockname())
                writer.write(b"heard\n")
                assert await reader.readline() == b"heard\n"
                writer.close()
