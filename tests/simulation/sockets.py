"""Streams in the clothes that production expects: the client's and the edge's sockets, picows transports, the uplink's ends.

Decides nothing; it taps what the checkers need to see: who spoke to whom, and when.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import msgspec
from picows import WSListener, WSMsgType
from websockets.exceptions import InvalidStatus

from regions.agents.dial import DialError
from regions.media.codecs import SILENCE
from regions.wire import ids
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Life
from tests.simulation.network import CLEAN, RESET, End, Inbox, Network, Refused

SILENT_FRAME = base64.b64encode(SILENCE) + b'"}}'


def address_of(url: str) -> str:
    """``wss://host/path`` → ``host``."""
    return url.split("/")[2]


class ClientSocket:
    """What `websockets.connect` gives, as far as callers and edges use it."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._inbox = end.receiver = Inbox(end)
        self.transport = self

    def keep_alive(self, every_s: float, within_s: float) -> None:
        """As the library does: a peer that answers no ping is given up."""
        if not self._end.open:
            return
        if self._end.ping() > within_s:
            self.abort()
            return
        asyncio.get_running_loop().call_later(every_s, self.keep_alive, every_s, within_s)

    async def send(self, message: str | bytes) -> None:
        if not self._end.open:
            raise ConnectionResetError("the connection has closed")
        self._end.send(message)

    async def recv(self) -> Any:
        message = await self._inbox.get()
        if message is None:
            raise ConnectionResetError("the connection has closed")
        return message

    def abort(self) -> None:
        self._end.abort()
        self._inbox.closed(RESET)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self._inbox.get()
        if message is None:
            if self._inbox.code == CLEAN:
                raise StopAsyncIteration
            raise ConnectionResetError("the connection was lost")
        return message


class CallerSocket(ClientSocket):
    """A caller's. What it sends at an epoch renews the lease of that epoch's owner, once it is attached there."""

    def __init__(self, end: End, ledger: Ledger) -> None:
        super().__init__(end)
        self._ledger = ledger
        self._call: UUID | None = None
        self._epoch = 0

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str) and self._call is None:
            first = msgspec.json.decode(message)
            self._call, self._epoch = _call_of(first["ticket"]), first["epoch"]
            self._ledger.say(f"caller {self._ledger.name_of(self._call)}", f"{first['mode']} e{self._epoch}")
            if first["mode"] in ("take", "prepare"):
                self._ledger.moment("took" if first["mode"] == "take" else "prepared")
        elif isinstance(message, str) and '"take"' in message:
            self._ledger.say(f"caller {self._ledger.name_of(self._call)}", f"take e{self._epoch}")
            self._ledger.moment("took")
        elif self._call is not None:
            self._ledger.renews(self._call, self._epoch)
        await super().send(message)


_tickets: dict[str, UUID] = {}


def _call_of(ticket: str) -> UUID:
    known = _tickets.get(ticket)
    if known is None:
        body = ticket.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if len(_tickets) > 1_000:
            _tickets.clear()
        known = _tickets[ticket] = ids.decode(ids.CALL, claims["sub"])
    return known


class Connecting:
    """`websockets.connect(url)`: to be awaited, or entered."""

    def __init__(
        self, open_: Callable[[], Any], *, open_timeout: float, ping_interval: float | None = None,
        ping_timeout: float = 20.0, **options: Any,
    ) -> None:  # fmt: skip
        self._open = open_
        self._within_s = open_timeout
        self._ping_s = ping_interval
        self._pong_s = ping_timeout
        self._socket: ClientSocket | None = None

    def __await__(self) -> Any:
        return self._start().__await__()

    async def _start(self) -> ClientSocket:
        async with asyncio.timeout(self._within_s):
            try:
                socket: ClientSocket = await self._open()
            except Refused as refused:
                raise InvalidStatus(_Response(refused.status)) from None  # type: ignore[arg-type]
        if self._ping_s is not None:
            asyncio.get_running_loop().call_later(self._ping_s, socket.keep_alive, self._ping_s, self._pong_s)
        return socket

    async def __aenter__(self) -> ClientSocket:
        self._socket = await self._start()
        return self._socket

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket._end.close(CLEAN)


class _Response:
    def __init__(self, status: int) -> None:
        self.status_code = status


class ServerSocket:
    """`app.fleet.uplink.Socket`."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._inbox = end.receiver = Inbox(end)

    async def receive(self) -> str | bytes | None:
        message: str | None = await self._inbox.get()
        return message

    async def send(self, text: str) -> None:
        if not self._end.open:
            raise ConnectionResetError("the uplink has closed")
        self._end.send(text)

    async def close(self, code: int, reason: str) -> None:
        self._end.close(code)


class Frame:
    """A picows frame."""

    __slots__ = ("_payload", "msg_type")
    fin = True

    def __init__(self, msg_type: WSMsgType, payload: bytes) -> None:
        self.msg_type = msg_type
        self._payload = payload

    def get_payload_as_bytes(self) -> bytes:
        return self._payload


class Transport:
    """A picows transport over an end; also the end's receiver, which feeds the listener."""

    def __init__(self, end: End, listener: WSListener) -> None:
        self.end = end
        self.listener: Any = listener
        self._gone = False
        end.receiver = self
        self.underlying_transport = self

    def get_write_buffer_size(self) -> int:
        return sum(len(value) for kind, value in self.end.stuck if kind == "message")

    def send(self, msg_type: WSMsgType, message: bytes) -> None:
        self.end.send(bytes(message) if msg_type == WSMsgType.BINARY else bytes(message).decode())

    def send_close(self, code: int = CLEAN) -> None:
        """The peer hangs up once it has read it."""
        if self.end.open:
            loop, life = self.end.network.loop, self.end.life
            self.end.close(int(code))
            loop.deliver_at(loop.now + 0.05, life, self._disconnected)

    def disconnect(self, graceful: bool = True) -> None:
        self.end.close(CLEAN if graceful else RESET)
        asyncio.get_running_loop().call_soon(self._disconnected)

    async def wait_disconnected(self) -> None:
        """Returns at once: it is asked for once the listener has been told. Nothing is ever wrong with a frame here."""

    def message(self, message: Any) -> None:
        kind = WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY
        payload = message.encode() if isinstance(message, str) else message
        self.listener.on_ws_frame(self, Frame(kind, payload))

    def closed(self, code: int) -> None:
        if code != RESET:
            self.listener.on_ws_frame(self, Frame(WSMsgType.CLOSE, int(code).to_bytes(2, "big")))
        self._disconnected()

    def _disconnected(self) -> None:
        if not self._gone:
            self._gone = True
            self.listener.on_ws_disconnected(self)


class CallerTransport(Transport):
    """The edge's side of a caller's socket: its audio is spoken under a lease."""

    def __init__(self, end: End, listener: WSListener, ledger: Ledger) -> None:
        super().__init__(end, listener)
        self._ledger = ledger

    def send(self, msg_type: WSMsgType, message: bytes) -> None:
        session = self.listener.attachment.session
        if session is not None:
            self._ledger.on_word(session.call)
        if msg_type == WSMsgType.BINARY:
            self._ledger.speaks(ids.decode(ids.CALL, session.call), session.epoch, "audio to its caller")
        super().send(msg_type, message)


class AgentTransport(Transport):
    """The edge's side of a backend's socket: audio and tool acknowledgements are spoken under a lease. Silence is not carried."""

    def __init__(self, end: End, listener: WSListener, ledger: Ledger) -> None:
        super().__init__(end, listener)
        self._ledger = ledger
        self._call: UUID | None = None
        self._epoch = 0

    def send(self, msg_type: WSMsgType, message: bytes) -> None:
        if message.startswith(b'{"event":"media"'):
            assert self._call is not None
            self._ledger.speaks(self._call, self._epoch, "audio to its backend")
            if message.endswith(SILENT_FRAME):
                return
        elif message.startswith(b'{"event":"start"'):
            parameters = msgspec.json.decode(message)["start"]["customParameters"]
            self._call = ids.decode(ids.CALL, parameters["voxplane_call"])
            self._epoch = int(parameters["voxplane_epoch"])
        elif b'"type":"ack"' in message:
            assert self._call is not None
            self._ledger.speaks(self._call, self._epoch, "a tool acknowledgement")
        super().send(msg_type, message)


def dialler(network: Network, life: Life, ledger: Ledger) -> Any:
    """`regions.agents.dial.Dial` over the simulated network."""

    async def dial(
        url: str, listener: Callable[[], WSListener], *, deadline_s: float, **options: Any
    ) -> AgentTransport:
        try:
            async with asyncio.timeout(deadline_s):
                end = await network.connect(life, address_of(url), url)
        except TimeoutError:
            raise DialError("timeout", "no answer") from None
        except (OSError, Refused):
            raise DialError("connect", "refused") from None
        return AgentTransport(end, listener(), ledger)

    return dial
